//go:build cuda

package dist

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/splora/splora/nccl"
	"github.com/splora/splora/nccl/hostnccl"
)

// library is the stand-in for NCCL.
func library(t testing.TB) string {
	t.Helper()
	lib, err := hostnccl.Library()
	if errors.Is(err, hostnccl.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func done() (bool, error) { return true, nil } // the stand-in knows no streams

// onNCCL are configs of n members that reduce over the stand-in.
func onNCCL(t testing.TB, n int) []Config {
	cs := configs(t, n)
	for i := range cs {
		cs[i].NCCL = &NCCL{Library: library(t), Done: done}
	}
	return cs
}

// remote is a vector in memory that is not Go's, as a device's is.
type remote struct{ v []float32 }

func newRemote(t testing.TB, v ...float32) remote {
	t.Helper()
	b, err := unix.Mmap(-1, 0, max(4*len(v), 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	r := remote{unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(v))}
	copy(r.v, v)
	return r
}

func (r remote) Float32() []float32 { return nil }
func (r remote) DeviceFloat32() (uintptr, int) {
	return uintptr(unsafe.Pointer(unsafe.SliceData(r.v))), len(r.v)
}

func remotes(t testing.TB, vs [][]float32) []remote {
	out := make([]remote, len(vs))
	for r, v := range vs {
		out[r] = newRemote(t, v...)
	}
	return out
}

// whole are small whole numbers, whose sum every rank knows exactly.
func whole(rank, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32((rank*31+i*7)%1013 - 500)
	}
	return v
}

func TestAllReduceOverNCCLIsTheSumOnEveryRankToTheBit(t *testing.T) {
	t.Parallel()
	for _, world := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			t.Parallel()
			cs := onNCCL(t, world)
			for i := range cs {
				cs[i].WorldMax = max(2, world)
				cs[i].WorldMin = world
			}
			gs := mustJoin(t, cs)
			for _, n := range []int{1, 2, 1000, 4099, 300001} {
				vs := make([][]float32, world)
				for r := range vs {
					vs[r] = whole(r, n)
				}
				out := remotes(t, vs)
				if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(out[g.Rank()]) })...); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					var want float32
					for r := range vs {
						want += vs[r][i]
					}
					for r := range out {
						if out[r].v[i] != want {
							t.Fatalf("rank %d, float %d of %d: %v, want %v", r, i, n, out[r].v[i], want)
						}
					}
				}
			}
			in := vectors(5, world, 4099) // of very different magnitudes
			out := remotes(t, in)
			if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(out[g.Rank()]) })...); err != nil {
				t.Fatal(err)
			}
			for i := range in[0] {
				exact, scale := 0.0, 0.0
				for _, v := range in {
					exact += float64(v[i])
					scale += math.Abs(float64(v[i]))
				}
				if tol := float64(world) * scale / (1 << 24); !(math.Abs(float64(out[0].v[i])-exact) <= tol) {
					t.Fatalf("float %d: %g, in float64 %g", i, out[0].v[i], exact)
				}
				for r := range out {
					if math.Float32bits(out[r].v[i]) != math.Float32bits(out[0].v[i]) {
						t.Fatalf("float %d differs between rank 0 and %d", i, r)
					}
				}
			}
		})
	}
}

func TestANCCLGroupBroadcastsAndReducesHostVectorsOverItsSockets(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, onNCCL(t, 3))
	for root := range 3 {
		vs := remotes(t, [][]float32{whole(0, 1001), whole(1, 1001), whole(2, 1001)})
		if err := errors.Join(onAll(gs, func(g Group) error { return g.Broadcast(vs[g.Rank()], root) })...); err != nil {
			t.Fatal(err)
		}
		for r := range vs {
			for i, want := range whole(root, 1001) {
				if vs[r].v[i] != want {
					t.Fatalf("from %d: rank %d, float %d: %v, want %v", root, r, i, vs[r].v[i], want)
				}
			}
		}
	}
	in := vectors(4, 3, 4099)
	checkSum(t, in, reduceAll(t, gs, in)) // in the ring's order
}

func TestOneCollectiveOverNCCLIsOneCallOfThePredictedSizeAndNothingOnTheDataConnections(t *testing.T) {
	t.Parallel()
	cs := onNCCL(t, 2)
	var mu sync.Mutex
	traces := map[int][]Collective{}
	for i := range cs {
		cs[i].Trace = func(c Collective) {
			mu.Lock()
			defer mu.Unlock()
			traces[i] = append(traces[i], c)
		}
	}
	gs := mustJoin(t, cs)
	const n, steps = 12345, 5
	err := errors.Join(onAll(gs, func(g Group) error {
		v := newRemote(t, make([]float32, n)...)
		if err := g.Broadcast(v, 1); err != nil {
			return err
		}
		before := g.Traffic()
		for step := 1; step <= steps; step++ {
			g.SetProgress(step, "all-reduce")
			last := g.Traffic()
			if err := g.AllReduce(v); err != nil {
				return err
			}
			now := g.Traffic()
			if now.DeviceCalls != last.DeviceCalls+1 || now.DeviceBytes != last.DeviceBytes+4*n {
				return fmt.Errorf("step %d: %d calls, %d bytes", step, now.DeviceCalls-last.DeviceCalls, now.DeviceBytes-last.DeviceBytes)
			}
		}
		if now := g.Traffic(); now.DataWritten != before.DataWritten || now.DataRead != before.DataRead {
			return fmt.Errorf("%d bytes on the data connections", now.DataWritten-before.DataWritten)
		}
		return nil
	})...)
	if err != nil {
		t.Fatal(err)
	}
	for r, cs := range traces {
		if len(cs) != steps+1 || cs[0].Op != "broadcast" {
			t.Fatalf("rank %d: %+v", r, cs)
		}
		for i, c := range cs[1:] {
			if c.Op != "all-reduce" || !c.NCCL || c.Bytes != 4*n || c.Step != i+1 || c.Generation != 3 || c.Seq != cs[i].Seq+1 || c.Took <= 0 {
				t.Errorf("rank %d: %+v", r, c)
			}
		}
	}
}

func TestCollectivesOverNCCLLeaveNothingBehind(t *testing.T) {
	gs := mustJoin(t, onNCCL(t, 2))
	vs := remotes(t, [][]float32{whole(0, 10), whole(1, 10)})
	reduce := func(times int) {
		err := errors.Join(onAll(gs, func(g Group) error {
			for range times {
				if err := g.AllReduce(vs[g.Rank()]); err != nil {
					return err
				}
			}
			return nil
		})...)
		if err != nil {
			t.Fatal(err)
		}
	}
	reduce(10)
	before := runtime.NumGoroutine()
	reduce(200)
	if after := runtime.NumGoroutine(); after > before+20 { // the rest is gossip's
		t.Errorf("%d goroutines before 200 collectives, %d after", before, after)
	}
}

func TestADeviceVectorInAGroupWithoutNCCLIsTheCallersMistake(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 2))
	for _, g := range []Group{gs[0], Loopback(2)[1]} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, "a vector of 3 floats in device memory, and this group has no NCCL") {
					t.Error(got)
				}
			}()
			g.AllReduce(newRemote(t, 1, 2, 3))
		}()
	}
	if err := Solo().AllReduce(newRemote(t, 1, 2, 3)); err != nil {
		t.Error(err)
	}
}

func TestAMissingNCCLFailsTheJoinBeforeAnythingBegins(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	cs[0].NCCL = &NCCL{Library: "/nonexistent/libnccl.so.2"}
	if _, err := Join(context.Background(), cs[0]); err == nil || !strings.Contains(err.Error(), "dist: nccl: /nonexistent/libnccl.so.2: no such library") {
		t.Error(err)
	}
	cs[0].NCCL = &NCCL{Library: library(t)} // a stream, and no driver to ask for it
	if _, err := os.Stat("/dev/nvidiactl"); err != nil {
		if _, err := Join(context.Background(), cs[0]); err == nil || !strings.Contains(err.Error(), "dist: nccl: the CUDA driver: libcuda.so.1") {
			t.Error(err)
		}
	}
	cs[0].NCCL.Timeout = -1
	if _, err := Join(context.Background(), cs[0]); err == nil || !strings.Contains(err.Error(), "negative duration") {
		t.Error(err)
	}
}

func TestNVIDIAsNCCLWithoutAGPUMakesTheIdAndFailsTheJoinInItsOwnWords(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("this machine has a GPU")
	}
	lib, err := nccl.Open(os.Getenv("SPLORA_TEST_NCCL"))
	if err != nil {
		t.Skip("NVIDIA's NCCL is not on this machine: ", err)
	}
	cs := configs(t, 2)
	for i := range cs {
		cs[i].NCCL = &NCCL{Library: lib.Path(), Done: done}
	}
	var errs []error
	within(t, 15*time.Second, func() { _, errs = joinAll(cs) })
	wantErrors(t, errs, "dist: group aborted: host/", "nccl: ncclCommInitRankConfig: unhandled cuda error", "Cuda failure")
}

func TestARankWithoutNCCLAmongRanksWithItIsNamed(t *testing.T) {
	t.Parallel()
	cs := onNCCL(t, 2)
	cs[1].NCCL = nil
	_, errs := joinAll(cs)
	wantErrors(t, errs, "NCCL differs: 2.30.7 on host/0, but none on host/1")
}

func TestEachGenerationHasAUniqueIdOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	cs := onNCCL(t, 2)
	for generation := 4; generation < 7; generation++ {
		for i := range cs {
			cs[i].Generation = generation
		}
		gs := mustJoin(t, cs)
		id := string(gs[0].(*group).a.Unique)
		if id != string(gs[1].(*group).a.Unique) || len(id) != 128 || seen[id] {
			t.Errorf("generation %d: an id of %d bytes, seen before: %v", generation, len(id), seen[id])
		}
		seen[id] = true
		onAll(gs, func(g Group) error { return g.Close() })
	}
}

func TestARankThatHangsInNCCLsInitEndsTheJoinAtItsDeadline(t *testing.T) {
	cs := onNCCL(t, 2)
	t.Setenv("HOSTNCCL_FAULT", "rank1:hang-init")
	for i := range cs {
		cs[i].Timeout = 1500 * time.Millisecond
	}
	var errs []error
	within(t, 15*time.Second, func() { _, errs = joinAll(cs) })
	wantErrors(t, errs, "ncclCommInitRankConfig: rank ", "waits for others that have not come")
}

func TestAnErrorOfNCCLOnOneRankReachesAllWithItsWords(t *testing.T) {
	for fault, want := range map[string]string{
		"rank1:error1@2":      "dist: group aborted: host/1: nccl: ncclAllReduce: unhandled cuda error (ncclUnhandledCudaError): hostnccl: the fault that was asked for, in ncclAllReduce",
		"rank1:error-init2":   "dist: group aborted: host/1: nccl: ncclCommInitRankConfig: unhandled system error",
		"rank1:error6@2":      "dist: group aborted: NCCL on host/1 has lost another rank: nccl: ncclAllReduce: remote process exited",
		"rank0:error3@1,none": "dist: group aborted: host/0: nccl: ncclAllReduce: internal error",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Setenv("HOSTNCCL_FAULT", fault)
			gs, errs := joinAll(onNCCL(t, 2))
			if strings.Contains(fault, "init") {
				wantErrors(t, errs, want)
				return
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			within(t, 15*time.Second, func() {
				errs = onAll(gs, func(g Group) error {
					v := newRemote(t, 1, 2, 3)
					for range 2 {
						if err := g.AllReduce(v); err != nil {
							return err
						}
					}
					return nil
				})
			})
			wantErrors(t, errs, want)
			onAll(gs, func(g Group) error { return g.Close() })
		})
	}
}

func TestAStreamThatFailsOrNeverEndsAbortsTheGroupAndIsFreed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		done func() (bool, error)
		want string
	}{
		"fails": {func() (bool, error) { return false, errors.New("CUDA_ERROR_ECC_UNCORRECTABLE (214)") }, "host/1: CUDA_ERROR_ECC_UNCORRECTABLE (214)"},
		"hangs": {func() (bool, error) { return false, nil }, "host/1: time-out of 1s: waits for 1 s in collective 2 (all-reduce of 3 floats over NCCL, on the stream) of generation 3, step 7; "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cs := onNCCL(t, 2)
			var rank1 atomic.Bool // configs are by local rank, which is the rank
			cs[1].NCCL.Done = func() (bool, error) { rank1.Store(true); return c.done() }
			cs[1].NCCL.Timeout = time.Second
			gs := mustJoin(t, cs)
			var errs []error
			within(t, 15*time.Second, func() {
				errs = onAll(gs, func(g Group) error {
					g.SetProgress(7, "all-reduce")
					if err := g.AllReduce(newRemote(t, 1, 2, 3)); err != nil {
						return err
					}
					return g.Barrier(context.Background())
				})
			})
			wantErrors(t, errs, c.want)
			if !rank1.Load() {
				t.Error("nobody asked for the stream")
			}
		})
	}
}

func TestACollectiveThatARankNeverEntersEndsAtItsTimeoutWithWhoWaitsWhere(t *testing.T) {
	t.Parallel()
	cs := onNCCL(t, 3)
	for i := range cs {
		cs[i].NCCL.Timeout = 1500 * time.Millisecond
	}
	gs := mustJoin(t, cs)
	gs[2].SetProgress(406, "forward layer 17")
	var errs []error
	within(t, 15*time.Second, func() {
		errs = onAll(gs, func(g Group) error {
			if g.Rank() == 2 { // alive, and somewhere else
				<-g.(*group).dead
				return g.(*group).failure()
			}
			g.SetProgress(406, "all-reduce")
			return g.AllReduce(newRemote(t, make([]float32, 20)...))
		})
	})
	wantErrors(t, errs, "time-out of 1.5s: waits for 2 s in collective 2 (all-reduce of 20 floats over NCCL, queueing) of generation 3, step 406; with host/0, host/1",
		"not there yet: host/2 at step 406, forward layer 17, ")
	for _, err := range errs[1:] {
		if err.Error() != errs[0].Error() {
			t.Errorf("two causes: %v and %v", errs[0], err)
		}
	}
}

func TestAnAbortThatHangsEndsTheProcessNamingTheCause(t *testing.T) {
	t.Setenv("HOSTNCCL_FAULT", "rank1:slow-abort500")
	cs := onNCCL(t, 2)
	died := make(chan error, 1)
	cs[1].NCCL.Budget, cs[1].NCCL.Die = 100*time.Millisecond, func(err error) { died <- err }
	gs := mustJoin(t, cs)
	within(t, 15*time.Second, func() {
		gs[0].Abort(errors.New("loss is NaN"))
		err := <-died
		if err == nil || err.Error() != "dist: group aborted: host/0: loss is NaN; NCCL's abort has not returned within 100ms: ending the process" {
			t.Error(err)
		}
	})
}

func TestClosingAGroupThatCannotBeFinalizedAbortsItsCommunicator(t *testing.T) {
	t.Setenv("HOSTNCCL_FAULT", "rank1:hang-finalize")
	cs := onNCCL(t, 2)
	var log lines
	for i := range cs {
		cs[i].CloseWait, cs[i].Logger = 300*time.Millisecond, &log
	}
	gs := mustJoin(t, cs)
	within(t, 15*time.Second, func() { onAll(gs, func(g Group) error { return g.Close() }) })
	if log.find("the NCCL communicator could not be finalized") == "" {
		t.Error("nobody has said so")
	}
}
