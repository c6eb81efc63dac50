//go:build cuda

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/launch/hostnvml"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/nccl/hostnccl"
)

// standIns is the environment of a machine whose driver, cuBLAS, NVML and NCCL are stand-ins. The file world tells of its GPUs.
func standIns(t *testing.T, world string) []string {
	t.Helper()
	if cudatest.Driver() {
		t.Skip("this machine has a driver")
	}
	gpu, err := cudatest.Build()
	if err != nil {
		t.Skip("no stand-ins: ", err)
	}
	nvml, err1 := hostnvml.Library()
	nccl, err2 := hostnccl.Library()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return []string{"LD_LIBRARY_PATH=" + filepath.Dir(nvml) + ":" + filepath.Dir(nccl) + ":" + gpu, "HOSTNVML=" + world}
}

// telling writes such a file, whole: it is read at any time.
func telling(t *testing.T, text string) (world string) {
	t.Helper()
	world = filepath.Join(t.TempDir(), "world")
	tell(t, world, text)
	return world
}

func tell(t *testing.T, world, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(world+".new", []byte(text), 0o644), os.Rename(world+".new", world)); err != nil {
		t.Fatal(err)
	}
}

func TestDoctorTriesEveryGPUThatCanBeUsedAndNCCLBetweenThem(t *testing.T) {
	const first = "driver 570.86.15 12080\ngpu uuid=GPU-aaaa bus=27\n"
	for world, want := range map[string][]string{
		first + "gpu uuid=GPU-bbbb bus=155\n": {"ok      driver: 570.86.15, for CUDA up to 12.8\n", "ok      GPU 1: NVIDIA_H200 can be used\n",
			"matrix product: on cpu", "ok      NCCL: 2.30.7 at ", "ok      2 ranks: met and reduced 1024 KiB over NCCL, exactly"},
		first + "gpu uuid=GPU-bbbb bus=155 used=9000\nproc GPU-bbbb 1 9000\ngpu uuid=GPU-cccc bus=200 mig=1\ngpu uuid=GPU-dddd bus=201 capability=75\n": {
			"warn    GPU 1: GPU-bbbb: 9000 MiB", "warn    GPU 2: GPU-cccc: MIG", "warn    GPU 3: GPU-dddd (NVIDIA_H200): compute capability 7.5",
			"1 rank on its GPU: it computes", "2 ranks: met and reduced 1024 KiB over loopback"},
	} {
		o := on(t, standIns(t, telling(t, world)), "doctor")
		for _, want := range want {
			if !strings.Contains(o.stdout, want) {
				t.Errorf("want %q in\n%s", want, o.stdout)
			}
		}
		if n := strings.Count(o.stdout, "matrix product: on cuda:0"); n != strings.Count(o.stdout, "NVIDIA_H200 can be used") {
			t.Errorf("%d products on GPUs:\n%s", n, o.stdout)
		}
	}
	if o := on(t, standIns(t, telling(t, first)), "doctor", "--ranks", "2"); !strings.Contains(o.stdout, "ok      2 ranks: met and reduced 1024 KiB over NCCL, exactly") {
		t.Errorf("two ranks on one GPU:\n%s", o.stdout)
	}
}

func TestARunOnAGPUWritesItsHealth(t *testing.T) {
	w := newWorld(t)
	on(t, standIns(t, telling(t, "gpu uuid=GPU-b bus=9 used=7777\ngpu uuid=GPU-a bus=1 used=1234 power=655123 util=98 throttle=68\n")), w.train("--device", "cuda", "--max-steps", "1")...)
	m, err := train.ReadMetrics(filepath.Join(w.path("out"), "metrics.jsonl"))
	if err != nil || len(m) == 0 {
		t.Fatalf("%d steps, error %v", len(m), err)
	}
	for _, r := range m { // device 0 is that of the lowest PCI address
		if r.GPU == nil || *r.GPU != (train.GPU{MemBytes: 1234 << 20, PowerW: 655.123, Util: 98, Throttle: "power cap, thermal (hardware)"}) {
			t.Errorf("step %d: %+v", r.Step, r.GPU)
		}
	}
}

func TestDoctorFindsTheMachinesGPUWell(t *testing.T) {
	if !cudatest.Driver() {
		t.Skip("no GPU")
	}
	o := on(t, nil, "doctor")
	t.Logf("%s", o.stdout)
	if !strings.Contains(o.stdout, "matrix product: on cuda:0") {
		t.Errorf("no product on the GPU:\n%s", o.stdout)
	}
	if !strings.Contains(o.stdout, "ok      NCCL: ") {
		t.Log("no NCCL here: not run between two ranks")
		return
	}
	if o = on(t, nil, "doctor", "--ranks", "2"); !strings.Contains(o.stdout, "2 ranks: met and reduced 1024 KiB over NCCL, exactly") {
		t.Errorf("%s", o.stdout)
	}
	t.Logf("%s", o.stdout)
}

// What a restart waits for: memory in use is seen, with who holds it, and its end, too.
func TestMemoryHeldOnTheMachinesGPUIsSeenUntilItIsFreed(t *testing.T) {
	if !cudatest.Driver() {
		t.Skip("no GPU")
	}
	g, err := launch.OpenGPUs()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	take := func() launch.Candidate {
		t.Helper()
		all, err := launch.Survey{Env: os.Environ()}.Take(g)
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	if c := take(); c.Why != "" {
		t.Fatalf("it is not free to begin with: %s", c)
	}
	b, err := cuda.Open(cuda.Config{Libraries: libraries()})
	if err != nil {
		t.Fatal(err)
	}
	b.Alloc(3 << 30)
	held := take()
	if err := errors.Join(b.Sync(), b.Close()); err != nil {
		t.Fatal(err)
	}
	t.Log(held.Why)
	if !strings.Contains(held.Why, "of its memory are in use") {
		t.Errorf("3 GiB in use: %q", held.Why)
	}
	began := time.Now()
	for take().Why != "" {
		if time.Since(began) > 50*time.Second {
			t.Fatalf("after 50 s %s", take())
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("free %v after its end", time.Since(began))
}

// A GPU falls off the bus in the middle of a run of two ranks: the ranks save, the next attempt leaves it for a spare one, and the
// result is that of a run to which nothing happened.
func TestARunGoesOnWithTheSameBitsWhenAGPUFallsOffTheBus(t *testing.T) {
	w := newWorld(t)
	const gpus = "gpu uuid=GPU-a bus=1\ngpu uuid=GPU-b bus=2\ngpu uuid=GPU-c bus=3 mig=1\ngpu uuid=GPU-d bus=4\n"
	world := telling(t, gpus)
	env := append(standIns(t, world), choosesGPUs+"=1", maxRestarts+"=1")
	run := func(out string, faulty bool) string {
		t.Helper()
		p := start(t, "launch", env, w.train("--device", "cuda", "--max-steps", "20", "--out", w.path(out))...)
		if faulty {
			if !p.until("step  3/20") {
				t.Fatalf("%s", p.wait().stderr)
			}
			tell(t, world, gpus+"event GPU-b 8 79\n")
		}
		o := p.wait()
		if o.code != exitDone {
			t.Fatalf("exit code %d\n%s", o.code, o.stderr)
		}
		return o.stderr
	}
	run("whole", false)
	log := run("cut", true)
	for _, want := range []string{"its GPU GPU-b (0000:02:00.0) reported Xid 79: the GPU has fallen off the bus", `"from":["GPU-a","GPU-b"],"to":["GPU-a","GPU-d"]`, "generation 2"} {
		if !strings.Contains(log, want) {
			t.Errorf("want %q in\n%s", want, log)
		}
	}
	if d := apart(adapterOf(t, w.path("cut")), adapterOf(t, w.path("whole"))); d != 0 {
		t.Errorf("the adapters are %.1e apart", d)
	}
}
