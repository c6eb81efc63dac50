//go:build cuda

package cuda_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/computetest"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/tensor"
)

func TestMain(m *testing.M) { cudatest.Main(m) }

func TestEveryOperationConforms(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{SparseCores: true})
	t.Log(b.Name())
	computetest.Run(t, b)
}

func TestTwoRunsGiveTheSameBits(t *testing.T) {
	if cudatest.StandIn() != "" {
		t.Skip("the stand-in does one thing after the other: only a GPU could give other bits")
	}
	computetest.SameBits(t, cudatest.Open(t, cuda.Config{SparseCores: true}), cudatest.Open(t, cuda.Config{SparseCores: true, Blocking: true}))
}

// child runs one test of this program in a process whose loader finds no driver.
func child(t *testing.T, name string) (string, error) {
	t.Helper()
	if cudatest.Driver() {
		t.Skip("this machine has a driver")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^"+name+"$", "-test.v")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LD_LIBRARY_PATH=") && !strings.HasPrefix(v, "SPLORA_TEST_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "SPLORA_TEST_HOSTGPU=none: on purpose", "SPLORA_TEST_NO_DRIVER=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWithoutADriverTheProgramStartsAndOpenSaysSo(t *testing.T) {
	if os.Getenv("SPLORA_TEST_NO_DRIVER") == "" {
		out, err := child(t, t.Name())
		if err != nil || !strings.Contains(out, "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	b, err := cuda.Open(cuda.Config{})
	if b != nil || !errors.Is(err, cuda.ErrNoDriver) {
		t.Fatalf("%v, %v", b, err)
	}
	for _, part := range []string{"libcuda.so.1", "install the driver", "--device cpu"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestADeviceThatIsNotThereIsNamed(t *testing.T) {
	cudatest.Open(t, cuda.Config{})
	if _, err := cuda.Open(cuda.Config{Device: 99}); !errors.Is(err, cuda.ErrNoDevice) || !strings.Contains(err.Error(), "number 99") {
		t.Error(err)
	}
}

func TestALibraryThatIsNotCuBLASIsRefused(t *testing.T) {
	cudatest.Open(t, cuda.Config{})
	for path, want := range map[string]string{"/nowhere/libcublas.so.13": "/nowhere/libcublas.so.13", "libc.so.6": "cublasCreate_v2"} {
		if _, err := cuda.Open(cuda.Config{CUBLAS: path}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "install") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// bytesOf are n bytes that differ.
func pattern(n int) []byte {
	v := make([]byte, n)
	for i := range v {
		v[i] = byte(i*7 + i>>8*13 + i>>16*29)
	}
	return v
}

func TestUploadsOfAnySizeComeBackAndTheSourceMayChangeAtOnce(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	for _, n := range []int{0, 1, 63, 4 << 20, 8<<20 - 1, 8 << 20, 8<<20 + 1, 19<<20 + 5} {
		x := tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: n, Mem: b.Alloc(n)}
		src := pattern(n)
		b.Upload(x, src)
		clear(src)
		back := make([]byte, n)
		b.Download(back, x)
		if !bytes.Equal(back, pattern(n)) {
			t.Errorf("%d bytes differ", n)
		}
	}
	var all []tensor.Tensor // many small ones, so that the staging memory is gone round while copies are queued
	for i := range 3000 {
		x := tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: 9000, Mem: b.Alloc(9000)}
		b.Upload(x, bytes.Repeat([]byte{byte(i), byte(i >> 8), 1}, 3000))
		all = append(all, x)
	}
	for i, x := range all {
		back := make([]byte, 9000)
		if b.Download(back, x); !bytes.Equal(back, bytes.Repeat([]byte{byte(i), byte(i >> 8), 1}, 3000)) {
			t.Fatalf("piece %d differs", i)
		}
	}
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
}

func TestTheArenaIsOneAllocationZeroedAndSealed(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	before := usage(t, b)
	const n = 64 << 20
	if err := b.Reserve(n); err != nil {
		t.Fatal(err)
	}
	first := b.Alloc(1)
	for _, k := range []int{1, 255, 256, 257, 1 << 20} {
		m := b.Alloc(k)
		if m.Device%uintptr(b.Align()) != 0 || m.Device < first.Device || m.Device+uintptr(k) > first.Device+n {
			t.Errorf("%d bytes at %#x, not inside the arena at %#x", k, m.Device, first.Device)
		}
		v := bytes.Repeat([]byte{1}, k)
		if b.Download(v, tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: k, Mem: m}); bytes.Count(v, []byte{0}) != k {
			t.Errorf("%d bytes are not zero", k)
		}
	}
	after := usage(t, b)
	if got := after.Arena - before.Arena; got != n {
		t.Errorf("the arena has grown by %d, reserved were %d", got, n)
	}
	if got := after.Used - before.Used; got != 256+256+256+256+512+1<<20 {
		t.Errorf("%d bytes are given out", got)
	}
	if after.Own == 0 || after.Own != before.Arena || before.Used != before.Arena || before.Free-after.Free != n {
		t.Errorf("%+v, then %+v", before, after)
	}
	b.Seal()
	defer func() {
		if recover() == nil {
			t.Error("an allocation after Seal is let through")
		}
	}()
	b.Alloc(1)
}

func usage(t *testing.T, b *cuda.Backend) compute.Usage {
	t.Helper()
	u, err := b.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestMoreThanTheDeviceHasIsRefusedWithFigures(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	err := b.Reserve(usage(t, b).Total * 2)
	if err == nil || !strings.Contains(err.Error(), "free of") || !strings.Contains(err.Error(), "--micro-batch") {
		t.Errorf("%v", err)
	}
	if err := b.Sync(); err != nil {
		t.Errorf("a plan that does not fit has spoiled the backend: %v", err)
	}
}

func TestTheFirstFailureSticksAndNamesTheOperation(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	x := tensor.Tensor{DType: tensor.F32, Rows: 1, Cols: 8, Mem: b.Alloc(32)}
	b.Fill(x, 3)
	bad := x
	bad.Mem.Device = 64 // no memory
	b.Download(make([]byte, 32), bad)
	err := b.Sync()
	if err == nil || !strings.Contains(err.Error(), "cuda:0") || !strings.Contains(err.Error(), "download") {
		t.Fatalf("%v", err)
	}
	b.Fill(x, 4)
	if s := b.SumSquares(x); s == s {
		t.Errorf("a sum of a device that has failed: %v", s)
	}
	if again := b.Sync(); again != err {
		t.Errorf("%v, then %v", err, again)
	}
}

func TestTimesCountEveryOperation(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	x := tensor.Tensor{DType: tensor.F32, Rows: 30, Cols: 30, Mem: b.Alloc(3600)}
	y := tensor.Tensor{DType: tensor.F32, Rows: 30, Cols: 30, Mem: b.Alloc(3600)}
	if err := b.Profile(); err != nil {
		t.Fatal(err)
	}
	const n = 1500 // more than are timed at once
	for range n {
		b.Add(x, y)
	}
	b.Gemm(x, 1, y, false, y, true, 0)
	list, err := b.Times()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, l := range list {
		if calls[l.Op] = l.Calls; !(l.Seconds >= 0) || math.IsInf(l.Seconds, 0) {
			t.Errorf("%+v", l)
		}
	}
	if calls["add_f32"] != n || calls["gemm"] != 1 || len(calls) != 2 {
		t.Errorf("%v", list)
	}
	if !slices.IsSortedFunc(list, func(a, b cuda.Time) int { return int(math.Copysign(1, b.Seconds-a.Seconds)) }) && list[0].Seconds < list[1].Seconds {
		t.Errorf("not the longest first: %v", list)
	}
}

func TestHostMemoryAsAnOperandIsABug(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	defer func() {
		if s, _ := recover().(string); !strings.Contains(s, "not on the device") {
			t.Errorf("%q", s)
		}
	}()
	b.Add(tensor.New(tensor.F32, 2, 2), tensor.New(tensor.F32, 2, 2))
}

func TestAPieceIsRepeatedOverADestinationOfAnyLength(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	for _, s := range [][2]int{{1, 1}, {5, 3}, {3, 5}, {1000, 64}, {1 << 20, 4096}, {1<<20 + 13, 4096}} {
		dst, piece := tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: s[0], Mem: b.Alloc(s[0])}, pattern(s[1])
		b.Repeat(dst, piece)
		got := make([]byte, s[0])
		b.Download(got, dst)
		if want := bytes.Repeat(piece, s[0]/s[1]+1)[:s[0]]; !bytes.Equal(got, want) {
			t.Errorf("%d bytes of a piece of %d differ", s[0], s[1])
		}
	}
}

func TestAProductWithALargeHalfWeightIsTakenInPieces(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{})
	rng := rand.New(rand.NewPCG(5, 6))
	const m, rows, cols = 3, 1500, 1111 // more than the scratch memory holds
	half := tensor.New(tensor.BF16, rows, cols)
	for i := range half.Uint16() {
		half.Uint16()[i] = tensor.ToBF16(float32(rng.NormFloat64()))
	}
	w := make([]float32, rows*cols)
	tensor.Widen(w, half)
	up := func(t tensor.Tensor) tensor.Tensor {
		d := t
		d.Mem = b.Alloc(t.Bytes())
		b.Upload(d, t.Mem.Host)
		return d
	}
	y := up(half)
	for _, ty := range []bool{false, true} {
		for _, tx := range []bool{false, true} {
			k, n := rows, cols
			if ty {
				k, n = n, k
			}
			x, dst := tensor.New(tensor.F32, m, k), tensor.New(tensor.F32, m, n)
			if tx {
				x = x.Reshape(k, m)
			}
			for _, v := range [][]float32{x.Float32(), dst.Float32()} {
				for i := range v {
					v[i] = float32(rng.NormFloat64())
				}
			}
			d := up(dst)
			b.Gemm(d, 0.5, up(x), tx, y, ty, 2)
			got := make([]float32, m*n)
			b.Download(tensor.Of(got).Mem.Host, d)
			var off, norm float64
			for i := range got {
				want := 2 * float64(dst.Float32()[i])
				for p := range k {
					xi, wi := i/n*k+p, p*cols+i%n
					if tx {
						xi = p*m + i/n
					}
					if ty {
						wi = i%n*cols + p
					}
					want += 0.5 * float64(x.Float32()[xi]) * float64(w[wi])
				}
				off, norm = off+(float64(got[i])-want)*(float64(got[i])-want), norm+want*want
			}
			if e := math.Sqrt(off / norm); !(e <= 1e-6) {
				t.Errorf("transposed %v, %v: relative error %.1e", tx, ty, e)
			}
		}
	}
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
}
