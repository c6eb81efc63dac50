package nccl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Comm is one rank's communicator, non-blocking. Its calls exclude each other; Wait may be left and taken up again.
type Comm struct {
	lib    *Library
	turn   chan struct{} // holds a token while nobody is in a call
	handle uintptr       // 0 once it has ended
	ended  string        // how
	last   string        // the collective that was begun last
}

func newComm(l *Library, handle uintptr) *Comm {
	c := &Comm{lib: l, turn: make(chan struct{}, 1), handle: handle, last: "ncclCommGetAsyncError"}
	c.turn <- struct{}{}
	return c
}

// CommInitRankConfig forms a communicator with the nranks−1 others that call it with the same id; this is rank `rank`. It
// returns when all have come, or when ctx ends: then what was begun is aborted. The GPU is that of the calling
// thread's current CUDA context.
func (l *Library) CommInitRankConfig(ctx context.Context, nranks int, id UniqueId, rank int, c Config) (*Comm, error) {
	return l.form(ctx, "ncclCommInitRankConfig", rank, c, func(out *uintptr) Result {
		return l.abi.initRank(out, nranks, []UniqueId{id}, rank, c.encode())
	})
}

// CommInitRankScalable is CommInitRankConfig with several ids, to spread the ranks' meeting over several processes.
func (l *Library) CommInitRankScalable(ctx context.Context, nranks, rank int, ids []UniqueId, c Config) (*Comm, error) {
	if err := l.need("ncclCommInitRankScalable"); err != nil {
		return nil, err
	}
	if len(ids) < 2 {
		panic(fmt.Sprintf("nccl: CommInitRankScalable with %d ids", len(ids)))
	}
	return l.form(ctx, "ncclCommInitRankScalable", rank, c, func(out *uintptr) Result {
		return l.abi.initRank(out, nranks, ids, rank, c.encode())
	})
}

// form begins a communicator and waits for it.
func (l *Library) form(ctx context.Context, call string, rank int, cfg Config, begin func(*uintptr) Result) (*Comm, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("nccl: %s: %w", call, err)
	}
	var handle uintptr
	r := begin(&handle)
	if handle == 0 {
		return nil, l.check(call, 0, r)
	}
	c := newComm(l, handle)
	err := l.check(call, handle, r)
	if err == nil {
		err = c.wait(ctx, call)
	}
	if err == nil {
		return c, nil
	}
	if late := ctx.Err(); late != nil {
		err = fmt.Errorf("nccl: %s: rank %d waits for others that have not come: %w", call, rank, late)
	}
	return nil, errors.Join(err, c.Abort(cmp.Or(cfg.AbortTime, 10*time.Second)))
}

// GetAsyncError is nil when all that was begun has been issued without error, InProgress while it is being issued, else an
// *Error.
func (c *Comm) GetAsyncError() error { return c.poll("") }

// poll is GetAsyncError; an error is said to be call's, or, if that is "", the last collective's.
func (c *Comm) poll(call string) error {
	var state Result
	err := c.do(call, func(h uintptr) Result {
		s, r := c.lib.abi.commInt("ncclCommGetAsyncError", h)
		state = Result(s)
		return r
	})
	if err == nil && state == InProgress {
		return InProgress
	}
	if err == nil && state != Success {
		return c.do(call, func(uintptr) Result { return state })
	}
	return err
}

// Wait polls until nothing is in progress: then a stream may be waited for, and the next call be made. It fails with NCCL's
// asynchronous error, or with ctx's; the communicator is to be aborted then.
func (c *Comm) Wait(ctx context.Context) error { return c.wait(ctx, "") }

func (c *Comm) wait(ctx context.Context, call string) error {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		err := c.poll(call)
		if err != InProgress {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nccl: %s: still in progress: %w", cmp.Or(call, c.last), ctx.Err())
		case <-time.After(pause):
		}
	}
}

// do makes one call, alone on the communicator.
func (c *Comm) do(call string, f func(handle uintptr) Result) error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	call = cmp.Or(call, c.last)
	if c.handle == 0 {
		return fmt.Errorf("nccl: %s on a communicator that was %s", call, c.ended)
	}
	return c.lib.check(call, c.handle, f(c.handle))
}

func (c *Comm) query(call string) (int, error) {
	var v int
	err := c.do(call, func(h uintptr) (r Result) {
		v, r = c.lib.abi.commInt(call, h)
		return r
	})
	return v, err
}

// Count is the number of ranks.
func (c *Comm) Count() (int, error) { return c.query("ncclCommCount") }

// CuDevice is the CUDA ordinal of the rank's GPU.
func (c *Comm) CuDevice() (int, error) { return c.query("ncclCommCuDevice") }

// UserRank is this rank.
func (c *Comm) UserRank() (int, error) { return c.query("ncclCommUserRank") }

// Finalize waits until all that was begun is done on every rank. Destroy must follow; or Abort, if it fails.
func (c *Comm) Finalize(ctx context.Context) error {
	if err := c.do("ncclCommFinalize", func(h uintptr) Result { return c.lib.abi.comm("ncclCommFinalize", h) }); err != nil {
		return err
	}
	return c.wait(ctx, "ncclCommFinalize")
}

// Destroy frees a communicator that was finalized.
func (c *Comm) Destroy() error { return c.end("ncclCommDestroy", "destroyed") }

// Abort ends what is under way, on the GPU too, and frees the communicator, on a thread of its own. A call that another
// thread is in must return first. Past the budget it is a *HungError: the process must be ended then. All ranks that
// are left must abort, or those that do may hang. Of a communicator that has ended it does nothing.
func (c *Comm) Abort(budget time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- c.end("ncclCommAbort", "aborted") }()
	select {
	case err := <-done:
		if err != nil && errors.As(err, new(*Error)) {
			return err
		}
		return nil
	case <-time.After(budget):
		return &HungError{Call: "ncclCommAbort"}
	}
}

// end frees the communicator. Its error text comes from the library, for the handle is gone.
func (c *Comm) end(call, how string) error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	if c.handle == 0 {
		return fmt.Errorf("nccl: %s on a communicator that was %s", call, c.ended)
	}
	h := c.handle
	c.handle, c.ended = 0, how
	return c.lib.check(call, 0, c.lib.abi.comm(call, h))
}
