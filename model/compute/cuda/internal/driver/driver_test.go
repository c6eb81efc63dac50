//go:build cuda

package driver_test

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/compute/cuda/internal/driver"
	"github.com/splora/splora/model/compute/cuda/kernels"
)

func TestMain(m *testing.M) {
	os.Setenv("HOSTGPU_DEVICES", "2")
	cudatest.Main(m)
}

// queues are one on each of two devices; on a machine with one GPU both are on that.
func queues(t *testing.T) (q [2]*driver.Queue, number [2]cu.Device) {
	t.Helper()
	if why, none := strings.CutPrefix(cudatest.StandIn(), "none: "); none {
		t.Skip("neither a GPU nor a stand-in: " + why)
	}
	n, err := cu.NumDevices()
	if err != nil {
		t.Fatal(err)
	}
	if cudatest.StandIn() != "" && n != 2 {
		t.Fatalf("%d devices", n)
	}
	for i := range q {
		d, err := cu.GetDevice(i % n)
		if err == nil {
			q[i], err = driver.Open(d)
		}
		if err != nil {
			t.Fatal(err)
		}
		number[i] = d
		t.Cleanup(func() {
			if err := q[i].Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return q, number
}

// current is the device of the thread's context.
func current(t *testing.T) cu.Device {
	t.Helper()
	d, err := cu.CurrentDevice()
	if err != nil {
		t.Error(err)
	}
	return d
}

func TestEachQueueBindsItsContextOnWhateverThreadItIsCalled(t *testing.T) {
	q, number := queues(t)
	runtime.LockOSThread()
	for i := range 10 { // by turns on one thread
		k := i % 3 % 2
		if err := q[k].Wait(); err != nil {
			t.Fatal(err)
		}
		if d := current(t); d != number[k] {
			t.Errorf("after a call of queue %d the context is device %v's", k, d)
		}
	}
	runtime.UnlockOSThread()
	var all sync.WaitGroup
	var turn sync.Mutex
	for i := range 64 { // by turns on many threads
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for j := range 4 {
				k := (i + j) % 2
				turn.Lock()
				err := q[k].Do(func() error {
					if d := current(t); d != number[k] {
						t.Errorf("in queue %d the context is device %v's", k, d)
					}
					return nil
				})
				turn.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
}

func TestMemoryIsSetCopiedAndMeasured(t *testing.T) {
	q, _ := queues(t)
	before, total, err := q[0].Memory()
	if err != nil || before <= 0 || total < before {
		t.Fatal(before, total, err)
	}
	const n = 1 << 20
	a, err1 := q[0].Alloc(n)
	b, err2 := q[0].Alloc(n)
	pinned, err3 := q[0].Pinned(n)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	for i := range pinned {
		pinned[i] = byte(i * 31)
	}
	want := bytes.Clone(pinned)
	for _, err := range []error{q[0].To(a, pinned), q[0].Copy(b+256, a, n-256), q[0].Set(b, 0x01020304, 4, 32), q[0].Set(b+128, 0xabcd, 2, 32),
		q[0].Set(b+192, 7, 1, 64), q[0].Wait()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	clear(pinned)
	if err := q[0].From(pinned, b); err != nil {
		t.Fatal(err)
	}
	if err := q[0].Wait(); err != nil {
		t.Fatal(err)
	}
	head := append(bytes.Repeat([]byte{4, 3, 2, 1}, 32), append(bytes.Repeat([]byte{0xcd, 0xab}, 32), bytes.Repeat([]byte{7}, 64)...)...)
	if !bytes.Equal(pinned, append(head, want[:n-256]...)) {
		t.Error("the bytes are others")
	}
	if done, err := q[0].Done(); !done || err != nil {
		t.Error(done, err)
	}
	for _, err := range []error{q[0].Free(a), q[0].Free(b), q[0].Unpin(pinned)} {
		if err != nil {
			t.Error(err)
		}
	}
	if after, _, err := q[0].Memory(); cudatest.StandIn() != "" && after != before || err != nil {
		t.Errorf("%d free, before %d, %v", after, before, err)
	}
	if _, err := q[0].Alloc(total * 2); err != driver.NoMemory {
		t.Errorf("twice the memory: %v", err)
	}
}

func TestABrokenModuleSaysWhatTheCompilerSays(t *testing.T) {
	q, _ := queues(t)
	if _, err := q[0].Module([]byte(".version 7.8\n.target sm_80\nthis is no PTX\x00")); err == nil {
		t.Error("nonsense is loaded as a module")
	} else {
		t.Log(err)
	}
	m, err := q[0].Module(kernels.PTX("elementwise"))
	if err != nil {
		t.Fatal(err)
	}
	if err := q[0].Do(func() error { _, err := m.Function("no_such_kernel"); return err }); err == nil {
		t.Error("a kernel that is not there is found")
	}
}

func TestCodesHaveTheDriversNames(t *testing.T) {
	queues(t)
	for c, want := range map[driver.Code]string{driver.NoMemory: "CUDA_ERROR_OUT_OF_MEMORY (2)", 700: "(700)", 424242: "424242", driver.NoLibrary: "libcuda.so.1"} {
		if !strings.Contains(c.Error(), want) && !strings.Contains(c.Error(), "error 700") {
			t.Errorf("%d: %s", int(c), c)
		}
	}
}
