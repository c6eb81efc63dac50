package kernels

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// attentionCases have every width, both types, odd heads, more keys than queries, shared keys, windows, documents and padding, aligned and not.
var attentionCases = []struct{ b, tq, tk, hq, hkv, d, window, layout, off int }{
	{1, 70, 70, 2, 1, 64, 0, 0, 0}, {2, 5, 133, 4, 2, 80, 0, 1, 0}, {1, 66, 66, 2, 2, 96, 20, 0, 0}, {1, 65, 130, 2, 1, 128, 0, 2, 0},
	{1, 67, 67, 2, 1, 256, 0, 1, 0}, {1, 33, 40, 3, 1, 33, 0, 1, 0}, {2, 17, 17, 2, 1, 7, 5, 2, 1}, {1, 9, 9, 1, 1, 200, 0, 0, 1},
	{1, 1, 90, 4, 1, 64, 30, 0, 0}, {1, 130, 130, 1, 1, 16, 0, 1, 0}, {1, 40, 40, 2, 2, 90, 0, 2, 0}, {1, 36, 36, 1, 1, 104, 0, 0, 0},
	// long enough for tiles in which every query sees every key
	{1, 300, 300, 1, 1, 64, 0, 0, 0}, {1, 257, 257, 1, 1, 80, 200, 0, 0}, {1, 130, 330, 2, 1, 128, 0, 0, 0}, {1, 200, 200, 1, 1, 256, 0, 0, 0},
}

// adapterCases are out, in, r, and whether the weight is dense; odd rows, columns and ranks, several stripes.
var adapterCases = []struct {
	out, in, r int
	dense      bool
}{{1, 8, 1, false}, {130, 264, 5, false}, {300, 520, 16, true}, {257, 1032, 16, false}, {140, 264, 20, false}, {129, 136, 64, false}}

// spmmCases are n, out, in, r, the type of W's values, and whether values and y are not aligned; odd rows and outputs, less than a tile and more
// than a block of both, less inputs than stages and more, ranks beyond one depth, and none.
var spmmCases = []struct {
	n, out, in, r int
	values        string
	off           int
}{
	{1, 1, 64, 1, "bf16", 0}, {37, 33, 64, 3, "f32", 1}, {129, 130, 128, 16, "bf16", 0}, {5, 264, 192, 20, "f16", 0}, {131, 17, 448, 4, "bf16", 1},
	{260, 136, 320, 0, "f32", 0}, {64, 300, 256, 65, "f16", 1},
}

// lines are what check reads: the cases with the launches that this package gives them.
func lines() string {
	var s strings.Builder
	for _, c := range attentionCases {
		for _, half := range []bool{false, true} {
			h := Heads{BF16: half, B: c.b, Tq: c.tq, Tk: c.tk, Hq: c.hq, Hkv: c.hkv, D: c.d}
			fmt.Fprint(&s, h.dtype(), " ", c.b, " ", c.tq, " ", c.tk, " ", c.hq, " ", c.hkv, " ", c.d, " ", c.window, " ", c.layout, " ", c.off)
			for _, l := range []Launch{h.Attention(), h.Delta(), h.DQ(), h.DKV()} {
				fmt.Fprint(&s, " ", l.Module, " ", l.Name, " ", l.Grid[0], " ", l.Grid[1], " ", l.Grid[2], " ", l.Threads, " ", l.Shared)
			}
			fmt.Fprintln(&s)
		}
	}
	for _, c := range adapterCases {
		a, ok := AdapterGradient(c.out, c.in, c.r, 4)
		if !ok {
			panic("no launch")
		}
		dense := 0
		if c.dense {
			dense = 1
		}
		fmt.Fprintln(&s, "adapter", c.out, c.in, c.r, dense, a.Module, a.Name, a.Grid[0], a.Grid[1], a.Grid[2], a.Threads, a.Shared, a.R, a.Stripe, a.PartA, a.PartB)
	}
	for _, c := range spmmCases {
		fmt.Fprint(&s, "spmm ", c.n, " ", c.out, " ", c.in, " ", c.r, " ", c.values, " ", c.off, " ", Compressed(c.out, c.in))
		merge := Compress(c.out, c.in)
		merge.Name += "_" + c.values
		for _, l := range []Launch{merge, Spmm(c.n, c.out)} {
			fmt.Fprint(&s, " ", l.Module, " ", l.Name, " ", l.Grid[0], " ", l.Grid[1], " ", l.Grid[2], " ", l.Threads, " ", l.Shared)
		}
		fmt.Fprintln(&s)
	}
	return s.String()
}

// build compiles the stand-in into the user's cache, unless that is done.
func build(t *testing.T, mode string) string {
	t.Helper()
	if _, err := exec.LookPath("g++"); err != nil || runtime.GOOS != "linux" {
		t.Skip("the kernels are compiled for the host by g++ on Linux, which is not here")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "splora", map[string]string{"plain": "hostgpu", "asan": "hostgpu-asan"}[mode])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // another test program may build it, too
		t.Fatal(err)
	}
	if out, err := exec.Command("../hostgpu/build.sh", dir, mode).CombinedOutput(); err != nil {
		t.Fatalf("hostgpu/build.sh: %v\n%s", err, out)
	}
	return dir
}

// check runs the kernels' own tests on the stand-in.
func check(t *testing.T, mode string, env ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(build(t, mode), "check"), ".")
	cmd.Stdin, cmd.Env = strings.NewReader(lines()), append(os.Environ(), env...)
	var out, why bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &why
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), why.String())
	}
	t.Log(out.String())
}

func TestEveryKernelIsItsFormulaAndStaysInItsTensors(t *testing.T) {
	check(t, "asan", "ASAN_OPTIONS=detect_leaks=0")
}

func TestNoKernelDependsOnTheOrderOfItsThreads(t *testing.T) {
	check(t, "plain", "HOSTGPU_ORDER=1")
}

func TestTheStandInStopsFaultyKernels(t *testing.T) {
	for _, c := range []struct{ kernel, mode, order, says string }{
		{"faulty_none", "plain", "0", ""}, {"faulty_none", "asan", "0", ""},
		{"faulty_race", "plain", "1", "relative error"}, {"faulty_barrier", "plain", "0", "no thread can go on"},
		{"faulty_shuffle", "plain", "0", "no thread can go on"}, {"faulty_copy", "plain", "0", "relative error"},
		{"faulty_alignment", "asan", "0", "misaligned address"}, {"faulty_overrun", "asan", "0", "heap-buffer-overflow"},
		{"faulty_shared", "asan", "0", "heap-buffer-overflow"}, {"faulty_metadata", "plain", "0", "places 0 and 0"},
	} {
		cmd := exec.Command(filepath.Join(build(t, c.mode), "check"), ".", c.kernel)
		cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0", "HOSTGPU_ORDER="+c.order)
		out, err := cmd.CombinedOutput()
		if (err == nil) != (c.says == "") || !strings.Contains(string(out), c.says) {
			t.Errorf("%s, %s: %v\n%s", c.kernel, c.mode, err, out)
		}
	}
}

func TestAnAdapterGradientCoversEveryRowOnce(t *testing.T) {
	for _, out := range []int{1, 127, 128, 129, 4096, 28672} {
		for _, in := range []int{8, 512, 520, 8192} {
			for _, r := range []int{1, 16, 17, 64} {
				a, ok := AdapterGradient(out, in, r, 132)
				if !ok || a.R < r || a.Stripe%128 != 0 || a.Stripe*a.Grid[1] < out || a.Stripe*(a.Grid[1]-1) >= out || a.Shared > 163<<10 {
					t.Errorf("[%d,%d] rank %d: %+v", out, in, r, a)
				}
			}
		}
	}
	for _, c := range [][3]int{{8, 8, 65}, {8, 12, 4}, {0, 8, 4}} {
		if _, ok := AdapterGradient(c[0], c[1], c[2], 132); ok {
			t.Errorf("%v is taken", c)
		}
	}
}

func TestSharedMemoryIsWhatAGPUHas(t *testing.T) {
	const sm80 = 163 << 10 // the least of those that have the tensor cores we use and are not for games
	for _, d := range []int{8, 64, 80, 96, 128, 256} {
		for _, half := range []bool{false, true} {
			h := Heads{BF16: half, B: 1, Tq: 32 << 10, Tk: 32 << 10, Hq: 32, Hkv: 8, D: d}
			for _, l := range []Launch{h.Attention(), h.DQ(), h.DKV(), Spmm(2048, 4096)} {
				if l.Shared > sm80 {
					t.Errorf("%s takes %d bytes of shared memory", l.Name, l.Shared)
				}
			}
		}
	}
}
