package nccl

import (
	"context"
	"fmt"
)

// NoColor in CommSplit: this rank joins none of the new communicators.
const NoColor = -1

// CommSplit forms one communicator per color ≥ 0 out of c, ranks in order of key. All ranks of c must call it. The result is nil
// with NoColor.
func (c *Comm) CommSplit(ctx context.Context, color, key int, cfg Config) (*Comm, error) {
	return c.derive(ctx, "ncclCommSplit", func(h uintptr, s slot) Result {
		return c.lib.abi.split(h, color, key, s, cfg.encode())
	})
}

// CommShrink forms a communicator of all ranks but those excluded, which do not call it. With abort, operations under
// way are ended first. Since 2.27.
func (c *Comm) CommShrink(ctx context.Context, exclude []int, abort bool, cfg Config) (*Comm, error) {
	if err := c.lib.need("ncclCommShrink"); err != nil {
		return nil, err
	}
	ranks, flags := make([]int32, len(exclude)), 0
	for i, r := range exclude {
		ranks[i] = int32(r)
	}
	if abort {
		flags = 1
	}
	return c.derive(ctx, "ncclCommShrink", func(h uintptr, s slot) Result {
		return c.lib.abi.shrink(h, ranks, s, cfg.encode(), flags)
	})
}

// CommGetUniqueId makes the id with which c is grown, on the one rank that hands it to the new ones. Since 2.29.
func (c *Comm) CommGetUniqueId() (UniqueId, error) {
	var id UniqueId
	if err := c.lib.need("ncclCommGetUniqueId"); err != nil {
		return id, err
	}
	return id, c.do("ncclCommGetUniqueId", func(h uintptr) Result { return c.lib.abi.uniqueID(h, &id) })
}

// CommGrow forms a communicator of nranks out of the ranks of c and new ones, which come in with GrowInto. id is given on
// the rank that made it, nil on the others of c. Since 2.29.
func (c *Comm) CommGrow(ctx context.Context, nranks int, id *UniqueId, cfg Config) (*Comm, error) {
	if err := c.lib.need("ncclCommGrow"); err != nil {
		return nil, err
	}
	rank, err := c.UserRank()
	if err != nil {
		return nil, err
	}
	return c.lib.grow(ctx, rank, cfg, func(s slot) (r Result, err error) {
		err = c.do("ncclCommGrow", func(h uintptr) Result {
			r = c.lib.abi.grow(h, nranks, id, -1, s, cfg.encode())
			return Success
		})
		return r, err
	})
}

// GrowInto is ncclCommGrow of a rank that was not there before. New ranks are numbered from the old size.
func (l *Library) GrowInto(ctx context.Context, nranks int, id UniqueId, rank int, cfg Config) (*Comm, error) {
	if err := l.need("ncclCommGrow"); err != nil {
		return nil, err
	}
	return l.grow(ctx, rank, cfg, func(s slot) (Result, error) { return l.abi.grow(0, nranks, &id, rank, s, cfg.encode()), nil })
}

// grow: the new communicator is there at once, and in progress. Its slot is written once more when it is done.
func (l *Library) grow(ctx context.Context, rank int, cfg Config, begin func(slot) (Result, error)) (*Comm, error) {
	s := l.abi.newSlot()
	defer s.free()
	var gone error
	g, err := l.form(ctx, "ncclCommGrow", rank, cfg, func(out *uintptr) Result {
		r, err := begin(s)
		*out, gone = s.load(), err
		return r
	})
	if gone != nil {
		return nil, gone
	}
	return g, err
}

// derive forms a communicator out of c. Until it is done it is c that is in progress; should that fail, or ctx end, c is to be
// aborted.
func (c *Comm) derive(ctx context.Context, call string, begin func(h uintptr, s slot) Result) (*Comm, error) {
	s := c.lib.abi.newSlot()
	err := c.do(call, func(h uintptr) Result { return begin(h, s) })
	if err == nil {
		err = c.wait(ctx, call)
	}
	if err != nil {
		return nil, err // the slot stays: it may still be written
	}
	defer s.free()
	if h := s.load(); h != 0 {
		return newComm(c.lib, h), nil
	}
	return nil, nil
}

// CommRevoke stops what is under way and waits until the communicator is quiet: it can then be split, shrunk or
// destroyed, but not finalized. Since 2.28.
func (c *Comm) CommRevoke(ctx context.Context) error {
	if err := c.lib.need("ncclCommRevoke"); err != nil {
		return err
	}
	if err := c.do("ncclCommRevoke", func(h uintptr) Result { return c.lib.abi.commFlags("ncclCommRevoke", h, 0) }); err != nil {
		return err
	}
	return c.wait(ctx, "ncclCommRevoke")
}

// CommRegister makes device memory known to NCCL, for transfers without copies; CommDeregister takes its handle. Since 2.19.
func (c *Comm) CommRegister(ptr uintptr, n int) (handle uintptr, err error) {
	if err := c.lib.need("ncclCommRegister"); err != nil {
		return 0, err
	}
	err = c.do("ncclCommRegister", func(h uintptr) (r Result) {
		handle, r = c.lib.abi.register(h, ptr, n)
		return r
	})
	return handle, err
}

// CommDeregister undoes CommRegister.
func (c *Comm) CommDeregister(handle uintptr) error {
	if err := c.lib.need("ncclCommDeregister"); err != nil {
		return err
	}
	return c.do("ncclCommDeregister", func(h uintptr) Result { return c.lib.abi.deregister(h, handle) })
}

// CommSuspend frees the GPU memory that the communicator can do without until CommResume. Since 2.29.
func (c *Comm) CommSuspend() error {
	if err := c.lib.need("ncclCommSuspend"); err != nil {
		return err
	}
	const memory = 1 // NCCL_SUSPEND_MEM
	return c.do("ncclCommSuspend", func(h uintptr) Result { return c.lib.abi.commFlags("ncclCommSuspend", h, memory) })
}

// CommResume undoes CommSuspend.
func (c *Comm) CommResume() error {
	if err := c.lib.need("ncclCommResume"); err != nil {
		return err
	}
	return c.do("ncclCommResume", func(h uintptr) Result { return c.lib.abi.comm("ncclCommResume", h) })
}

// MemStat is ncclCommMemStat_t.
type MemStat int

// What CommMemStats tells, in bytes but for MemSuspended.
const (
	MemSuspendable MemStat = 0 // GPU memory that CommSuspend frees
	MemSuspended   MemStat = 1 // 1 while it is freed
	MemPersistent  MemStat = 2 // GPU memory that stays
	MemTotal       MemStat = 3 // GPU memory that NCCL has taken
)

func (s MemStat) String() string { return fmt.Sprintf("ncclCommMemStat_t %d", int(s)) }

// CommMemStats tells how much GPU memory the communicator takes. Since 2.29.
func (c *Comm) CommMemStats(s MemStat) (uint64, error) {
	if err := c.lib.need("ncclCommMemStats"); err != nil {
		return 0, err
	}
	var v uint64
	err := c.do("ncclCommMemStats", func(h uintptr) (r Result) {
		v, r = c.lib.abi.memStats(h, int(s))
		return r
	})
	return v, err
}
