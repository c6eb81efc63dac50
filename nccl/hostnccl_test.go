//go:build cuda

package nccl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/splora/splora/nccl/hostnccl"
)

// build gives the stand-in, without some of its functions.
func build(t *testing.T, without ...string) string {
	t.Helper()
	lib, err := hostnccl.Library()
	if errors.Is(err, hostnccl.ErrNoCompiler) {
		t.Skip(err)
	}
	if err == nil && len(without) > 0 {
		lib, err = hostnccl.Without(lib, t.TempDir(), without...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func host(t *testing.T, without ...string) *Library {
	t.Helper()
	l, err := Open(build(t, without...))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// memory outside Go's heap, as a device's is.
func memory(t *testing.T, n int) ([]byte, uintptr) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, max(n, 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	return b[:n], uintptr(unsafe.Pointer(&b[:1][0]))
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// world forms a communicator of n ranks in this process.
func world(t *testing.T, l *Library, n int) []*Comm {
	t.Helper()
	id, err := l.GetUniqueId()
	if err != nil {
		t.Fatal(err)
	}
	cs := make([]*Comm, n)
	onAll(t, n, func(r int) (err error) {
		cs[r], err = l.CommInitRankConfig(soon(t), n, id, r, Config{})
		return err
	})
	t.Cleanup(func() {
		for _, c := range cs {
			c.Abort(10 * time.Second)
		}
	})
	return cs
}

// onAll runs f for every rank at once and fails on any error.
func onAll(t *testing.T, n int, f func(r int) error) {
	t.Helper()
	if err := errors.Join(each(n, f)...); err != nil {
		t.Fatal(err)
	}
}

func each(n int, f func(r int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for r := range n {
		wg.Go(func() { errs[r] = f(r) })
	}
	wg.Wait()
	return errs
}

// number is rank r's i-th input: small whole numbers, so that every type holds every partial result, and all ranks know it.
func number(r, i int) float64 { return float64((r*7+i*3)%5 + 1) }

func put(t DataType, b []byte, x float64) {
	switch t {
	case Int8, Uint8:
		b[0] = byte(x)
	case Int32, Uint32:
		binary.LittleEndian.PutUint32(b, uint32(x))
	case Int64, Uint64:
		binary.LittleEndian.PutUint64(b, uint64(x))
	case Float32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(float32(x)))
	case Float64:
		binary.LittleEndian.PutUint64(b, math.Float64bits(x))
	case Bfloat16:
		binary.LittleEndian.PutUint16(b, uint16(math.Float32bits(float32(x))>>16))
	case Float16: // whole numbers below 2048
		e := uint16(0)
		for y := x; y >= 2; y /= 2 {
			e++
		}
		binary.LittleEndian.PutUint16(b, (e+15)<<10|uint16((x/math.Pow(2, float64(e))-1)*1024))
	}
}

// vector of count numbers of rank r, from the off-th.
func vector(dt DataType, r, off, count int) []byte {
	b := make([]byte, count*dt.Size())
	for i := range count {
		put(dt, b[i*dt.Size():], number(r, off+i))
	}
	return b
}

// reduced is the oracle: in float64, over ranks.
func reduced(dt DataType, op RedOp, n, off, count int) []byte {
	b := make([]byte, count*dt.Size())
	for i := range count {
		x := number(0, off+i)
		for r := 1; r < n; r++ {
			y := number(r, off+i)
			x = map[RedOp]float64{Sum: x + y, Prod: x * y, Max: math.Max(x, y), Min: math.Min(x, y), Avg: x + y}[op]
		}
		if op == Avg {
			if x /= float64(n); dt != Float32 && dt != Float64 && dt != Float16 && dt != Bfloat16 {
				x = math.Floor(x)
			}
		}
		put(dt, b[i*dt.Size():], x)
	}
	return b
}

func TestAllReduceIsTheReductionOnEveryRankForEveryTypeAndOperation(t *testing.T) {
	l := host(t)
	for _, n := range []int{1, 2, 4} { // of which an average is exact in every type
		cs := world(t, l, n)
		for dt := Int8; dt <= Bfloat16; dt++ {
			for op := Sum; op <= Avg; op++ {
				const count = 37
				if n == 4 && op == Avg && (dt == Float16 || dt == Bfloat16) {
					continue // the quotient of the helper above is cut, not rounded
				}
				onAll(t, n, func(r int) error {
					b, p := memory(t, count*dt.Size())
					copy(b, vector(dt, r, 0, count))
					if err := cs[r].AllReduce(p, p, count, dt, op, 0); err != nil {
						return err
					}
					if err := cs[r].Wait(soon(t)); err != nil {
						return err
					}
					if want := reduced(dt, op, n, 0, count); string(b) != string(want) {
						return fmt.Errorf("rank %d of %d, %s of %s: % x, want % x", r, n, op, dt, b, want)
					}
					return nil
				})
			}
		}
	}
}

func TestTheOtherCollectivesMoveWhatTheySay(t *testing.T) {
	l := host(t)
	const n, count = 3, 1001
	cs := world(t, l, n)
	size := Float32.Size()
	onAll(t, n, func(r int) error {
		c, ctx := cs[r], soon(t)
		if got, err := c.Count(); got != n || err != nil {
			return fmt.Errorf("count %d, %v", got, err)
		}
		if got, err := c.UserRank(); got != r || err != nil {
			return fmt.Errorf("rank %d, %v", got, err)
		}
		if got, err := c.CuDevice(); got != 0 || err != nil {
			return fmt.Errorf("device %d, %v", got, err)
		}
		send, sp := memory(t, n*count*size)
		recv, rp := memory(t, n*count*size)
		copy(send, vector(Float32, r, 0, n*count))
		check := func(what string, err error, got, want []byte) error {
			if err = errors.Join(err, c.Wait(ctx)); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if string(got) != string(want) {
				return fmt.Errorf("%s: rank %d has something else", what, r)
			}
			return nil
		}
		var want []byte
		for k := range n {
			want = append(want, vector(Float32, k, 0, count)...)
		}
		if err := check("all-gather", c.AllGather(sp, rp, count, Float32, 0), recv, want); err != nil {
			return err
		}
		got, want := recv[:count*size], reduced(Float32, Sum, n, r*count, count)
		if err := check("reduce-scatter", c.ReduceScatter(sp, rp, count, Float32, Sum, 0), got, want); err != nil {
			return err
		}
		if err := check("broadcast", c.Broadcast(sp, rp, count, Float32, 2, 0), got, vector(Float32, 2, 0, count)); err != nil {
			return err
		}
		if want = vector(Float32, 2, 0, count); r == 1 {
			want = reduced(Float32, Max, n, 0, count)
		}
		if err := check("reduce", c.Reduce(sp, rp, count, Float32, Max, 1, 0), got, want); err != nil {
			return err
		}
		// a ring: each sends to the right and receives from the left
		if err := l.GroupStart(); err != nil {
			return err
		}
		left := (r + n - 1) % n
		err := errors.Join(c.Recv(rp, count, Float32, left, 0), c.Send(sp, count, Float32, (r+1)%n, 0), l.GroupEnd())
		if err := check("send and recv", err, got, vector(Float32, left, 0, count)); err != nil {
			return err
		}
		if err := c.Finalize(ctx); err != nil {
			return err
		}
		return c.Destroy()
	})
	if _, err := cs[0].Count(); err == nil || !strings.Contains(err.Error(), "ncclCommCount on a communicator that was destroyed") {
		t.Error(err)
	}
}

func TestACommunicatorIsInProgressUntilAllRanksHaveComeAndThenIsNot(t *testing.T) {
	l := host(t)
	t.Setenv("HOSTNCCL_INIT_MS", "100")
	id, _ := l.GetUniqueId()
	var handle uintptr
	if r := l.abi.initRank(&handle, 1, []UniqueId{id}, 0, Config{}.encode()); r != InProgress || handle == 0 {
		t.Fatal(r)
	}
	c := newComm(l, handle)
	if err := c.GetAsyncError(); err != InProgress {
		t.Error(err)
	}
	if err := c.Wait(soon(t)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.GetAsyncError(), c.Abort(time.Minute)); err != nil {
		t.Error(err)
	}
}

func TestARankThatDoesNotComeEndsTheOthersInitAtTheDeadline(t *testing.T) {
	l := host(t)
	before := runtime.NumGoroutine()
	id, _ := l.GetUniqueId()
	for _, fault := range []string{"", "hang-init"} {
		t.Setenv("HOSTNCCL_FAULT", fault)
		ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
		c, err := l.CommInitRankConfig(ctx, 2, id, 1, Config{})
		cancel()
		if c != nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ncclCommInitRankConfig: rank 1 waits for others that have not come") {
			t.Error(err)
		}
		if errors.As(err, new(*HungError)) {
			t.Error("the abort hung:", err)
		}
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

func TestAnAbortThatHangsIsSaidSo(t *testing.T) {
	l := host(t)
	t.Setenv("HOSTNCCL_FAULT", "hang-abort")
	id, _ := l.GetUniqueId()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := l.CommInitRankConfig(ctx, 2, id, 0, Config{AbortTime: 50 * time.Millisecond})
	if !errors.As(err, new(*HungError)) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the process must be ended") {
		t.Error(err)
	}
}

func TestAnErrorAtInitIsThatErrorAndNotTheDeadline(t *testing.T) {
	l := host(t)
	t.Setenv("HOSTNCCL_FAULT", "error-init3")
	id, _ := l.GetUniqueId()
	_, err := l.CommInitRankConfig(soon(t), 2, id, 0, Config{})
	if !errors.Is(err, InternalError) || !strings.Contains(err.Error(), "the fault that was asked for, at init") {
		t.Error(err)
	}
}

func TestWrongArgumentsComeBackWithNCCLsWords(t *testing.T) {
	l := host(t)
	id, _ := l.GetUniqueId()
	_, err := l.CommInitRankConfig(soon(t), 2, id, 2, Config{})
	if !errors.Is(err, InvalidArgument) || !strings.Contains(err.Error(), "Invalid rank requested : 2/2") {
		t.Error(err)
	}
	if _, err := l.CommInitRankConfig(soon(t), 1, id, 0, Config{MaxCTAs: 4}); !errors.Is(err, InvalidArgument) {
		t.Error(err)
	}
	if _, err := l.CommInitRankConfig(soon(t), 1, UniqueId{}, 0, Config{}); !errors.Is(err, InvalidArgument) || !strings.Contains(err.Error(), "not a unique id") {
		t.Error(err)
	}
	c := world(t, l, 1)[0]
	_, p := memory(t, 64)
	if err := c.AllReduce(p, p, 8, DataType(12), Sum, 0); !errors.Is(err, InvalidArgument) {
		t.Error(err)
	}
	if err := c.Send(p, 8, Float32, 5, 0); !errors.Is(err, InvalidArgument) || !strings.Contains(err.Error(), "ncclSend: rank 5 of 1") {
		t.Error(err)
	}
}

func TestACollectiveThatAPeerSkipsIsInProgressUntilTheDeadlineAndCanBeAborted(t *testing.T) {
	l := host(t)
	cs := world(t, l, 2)
	_, p := memory(t, 64)
	if err := cs[0].AllReduce(p, p, 16, Float32, Sum, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Millisecond)
	defer cancel()
	if err := cs[0].Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still in progress") {
		t.Error(err)
	}
	onAll(t, 2, func(r int) error { return cs[r].Abort(10 * time.Second) })
	if err := cs[0].AllReduce(p, p, 16, Float32, Sum, 0); err == nil || !strings.Contains(err.Error(), "ncclAllReduce on a communicator that was aborted") {
		t.Error(err)
	}
	if err := cs[0].Abort(time.Second); err != nil {
		t.Error("a second abort:", err)
	}
}

func TestAPeerThatLeavesIsARemoteErrorOverSocketsAndNothingOverP2P(t *testing.T) {
	l := host(t)
	for _, transport := range []string{"socket", "p2p"} {
		t.Setenv("HOSTNCCL_TRANSPORT", transport)
		cs := world(t, l, 3)
		_, p := memory(t, 64)
		if err := cs[0].AllReduce(p, p, 16, Float32, Sum, 0); err != nil {
			t.Fatal(err)
		}
		if err := cs[2].Abort(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if transport == "p2p" {
			ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
		}
		err := cs[0].Wait(ctx)
		cancel()
		if transport == "socket" && (!errors.Is(err, RemoteError) || !strings.Contains(err.Error(), "rank 2")) || transport == "p2p" && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", transport, err)
		}
	}
}

func TestAnAsynchronousErrorIsReportedWithItsResult(t *testing.T) {
	l := host(t)
	for _, want := range []Result{UnhandledCudaError, SystemError, RemoteError, Timeout} {
		t.Setenv("HOSTNCCL_FAULT", fmt.Sprintf("rank1:error%d@2", int(want)))
		cs := world(t, l, 2)
		errs := each(2, func(r int) error {
			_, p := memory(t, 64)
			for range 2 {
				if err := errors.Join(cs[r].AllReduce(p, p, 16, Float32, Sum, 0), waitShort(cs[r])); err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(errs[1], want) || !strings.Contains(errs[1].Error(), "ncclAllReduce") {
			t.Error(want, errs[1])
		}
		if !errors.Is(errs[0], context.DeadlineExceeded) {
			t.Error("rank 0, which nobody has told:", errs[0])
		}
	}
}

func waitShort(c *Comm) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	return c.Wait(ctx)
}

func TestAnOldLibraryDoesTheBasicsAndNamesWhatItHasNot(t *testing.T) {
	var late []string
	for _, o := range optional {
		late = append(late, o.symbol)
	}
	t.Setenv("HOSTNCCL_VERSION", "21805")
	l := host(t, late...)
	if l.GetVersion() != 21805 || len(l.Missing()) != len(optional) || l.Has("ncclCommRevoke") || !l.Has("ncclCommSplit") {
		t.Error(l.GetVersion(), l.Missing())
	}
	cs := world(t, l, 2)
	onAll(t, 2, func(r int) error {
		b, p := memory(t, 40)
		copy(b, vector(Float32, r, 0, 10))
		if err := errors.Join(cs[r].AllReduce(p, p, 10, Float32, Sum, 0), cs[r].Wait(soon(t))); err != nil {
			return err
		}
		if string(b) != string(reduced(Float32, Sum, 2, 0, 10)) {
			return errors.New("another sum")
		}
		return nil
	})
	c, ctx := cs[0], soon(t)
	_, alloc := l.MemAlloc(8)
	_, shrink := c.CommShrink(ctx, []int{1}, false, Config{})
	_, grow := c.CommGrow(ctx, 3, nil, Config{})
	_, into := l.GrowInto(ctx, 3, UniqueId{}, 2, Config{})
	_, id := c.CommGetUniqueId()
	_, reg := c.CommRegister(1, 1)
	_, scalable := l.CommInitRankScalable(ctx, 2, 0, make([]UniqueId, 2), Config{})
	_, stats := c.CommMemStats(MemTotal)
	for symbol, err := range map[string]error{"ncclMemAlloc": alloc, "ncclMemFree": l.MemFree(0), "ncclCommShrink": shrink, "ncclCommGrow": errors.Join(grow, into),
		"ncclCommGetUniqueId": id, "ncclCommRegister": reg, "ncclCommDeregister": c.CommDeregister(1), "ncclCommInitRankScalable": scalable,
		"ncclCommMemStats": stats, "ncclCommRevoke": c.CommRevoke(ctx), "ncclCommSuspend": c.CommSuspend(), "ncclCommResume": c.CommResume()} {
		if m := (*MissingError)(nil); !errors.As(err, &m) || m.Symbol != symbol || m.Version != 21805 || !strings.Contains(err.Error(), "is NCCL 2.18.5, which has no "+symbol) {
			t.Errorf("%s: %v", symbol, err)
		}
	}
}

func TestALibraryThatLacksWhatIsRequiredOrIsTooOldIsRefused(t *testing.T) {
	if _, err := Open(build(t, "ncclAllReduce")); err == nil || !strings.Contains(err.Error(), "lacks ncclAllReduce") {
		t.Error(err)
	}
	t.Setenv("HOSTNCCL_VERSION", "21701")
	if _, err := Open(build(t)); err == nil || !strings.Contains(err.Error(), "is NCCL 2.17.1: 2.18.0 or later is needed") {
		t.Error(err)
	}
}

func TestCommunicatorsAreSplitShrunkAndGrown(t *testing.T) {
	l := host(t)
	cs := world(t, l, 4)
	sizeAndRank := func(c *Comm, size, rank int) error {
		n, err1 := c.Count()
		r, err2 := c.UserRank()
		if n != size || r != rank {
			return fmt.Errorf("rank %d of %d, want %d of %d (%w)", r, n, rank, size, errors.Join(err1, err2))
		}
		return nil
	}
	// ranks 0 and 1 become one of two, in reverse; 2 another of one; 3 none
	onAll(t, 4, func(r int) error {
		color := []int{0, 0, 1, NoColor}[r]
		c, err := cs[r].CommSplit(soon(t), color, -r, Config{})
		if err != nil || r == 3 {
			if c != nil {
				return errors.New("a communicator without a color")
			}
			return err
		}
		defer c.Abort(10 * time.Second)
		return sizeAndRank(c, []int{2, 2, 1}[r], []int{1, 0, 0}[r])
	})
	// rank 1 is left out
	small := make([]*Comm, 4)
	onAll(t, 4, func(r int) (err error) {
		if r == 1 {
			return nil
		}
		if small[r], err = cs[r].CommShrink(soon(t), []int{1}, r == 0, Config{}); err != nil {
			return err
		}
		return sizeAndRank(small[r], 3, []int{0, -1, 1, 2}[r])
	})
	// and comes back, as the last
	id, err := small[0].CommGetUniqueId()
	if err != nil {
		t.Fatal(err)
	}
	onAll(t, 4, func(r int) (err error) {
		var c *Comm
		switch r {
		case 0:
			c, err = small[0].CommGrow(soon(t), 4, &id, Config{})
		case 1:
			c, err = l.GrowInto(soon(t), 4, id, 3, Config{})
		default:
			c, err = small[r].CommGrow(soon(t), 4, nil, Config{})
		}
		if err != nil {
			return err
		}
		defer c.Abort(10 * time.Second)
		if small[r] != nil {
			defer small[r].Abort(10 * time.Second)
		}
		if err := sizeAndRank(c, 4, []int{0, 3, 1, 2}[r]); err != nil {
			return err
		}
		b, p := memory(t, 8)
		put(Int64, b, 5)
		if err := errors.Join(c.AllReduce(p, p, 1, Int64, Sum, 0), c.Finalize(soon(t))); err != nil {
			return err
		}
		if b[0] != 20 {
			return fmt.Errorf("4 times 5 is %d", b[0])
		}
		return nil
	})
}

func TestTheRestOfTheOptionalCallsDoWhatTheySay(t *testing.T) {
	l := host(t)
	p, err := l.MemAlloc(100)
	if err != nil || p == 0 {
		t.Fatal(err)
	}
	ids := make([]UniqueId, 2)
	for i := range ids {
		ids[i], _ = l.GetUniqueId()
	}
	cs := make([]*Comm, 2)
	onAll(t, 2, func(r int) (err error) {
		cs[r], err = l.CommInitRankScalable(soon(t), 2, r, ids, Config{})
		return err
	})
	c := cs[0]
	h, err := c.CommRegister(p, 100)
	if err := errors.Join(err, c.CommDeregister(h), l.MemFree(p), c.CommSuspend()); err != nil {
		t.Error(err)
	}
	if v, err := c.CommMemStats(MemSuspended); v != 1 || err != nil {
		t.Error(v, err)
	}
	if err := c.CommResume(); err != nil {
		t.Error(err)
	}
	_, b := memory(t, 8)
	if err := c.AllReduce(b, b, 1, Int64, Sum, 0); err != nil { // which the other never enters
		t.Error(err)
	}
	if err := c.CommRevoke(soon(t)); err != nil {
		t.Error(err)
	}
	if err := c.AllReduce(b, b, 1, Int64, Sum, 0); !errors.Is(err, InvalidUsage) {
		t.Error(err)
	}
	onAll(t, 2, func(r int) error { return cs[r].Abort(10 * time.Second) })
}
