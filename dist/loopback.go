package dist

import (
	"bytes"
	"context"
	"fmt"
	"sync"
)

// Loopback makes n ranks in one process, for tests: the same sums, bit for bit, as the ring over TCP. Each rank must be
// used from a goroutine of its own.
func Loopback(n int) []Group {
	if n < 1 {
		panic(fmt.Sprintf("dist: loopback group of %d", n))
	}
	h := &hall{n: n, calls: make([]call, n), changed: make(chan struct{})}
	groups := make([]Group, n)
	for r := range groups {
		groups[r] = &loopback{hall: h, rank: r}
	}
	return groups
}

// call is what one rank brought to the collective that is being gathered.
type call struct {
	here  bool
	what  string // "all-reduce of 12": must be equal on all ranks
	v     []float32
	bytes []byte
}

// hall is where the ranks meet. A round ends when the last has come: it does the work and opens the door.
type hall struct {
	mu      sync.Mutex
	n       int
	calls   []call
	arrived int
	left    bool // a rank has closed
	err     *Aborted
	result  [][]byte
	changed chan struct{} // closed and replaced at the end of a round and at a failure
}

type loopback struct {
	*hall
	rank int
}

func (g *loopback) Rank() int               { return g.rank }
func (g *loopback) Size() int               { return g.n }
func (g *loopback) Generation() int         { return 0 }
func (g *loopback) SetProgress(int, string) {}
func (g *loopback) Traffic() Traffic        { return Traffic{} }

func (g *loopback) AllReduce(v Vector) error {
	x := host(v)
	_, err := g.meet(context.Background(), call{what: fmt.Sprintf("all-reduce of %d", len(x)), v: x}, ringSum)
	return err
}

func (g *loopback) Broadcast(v Vector, root int) error {
	checkRoot(root, g.n)
	x := host(v)
	_, err := g.meet(context.Background(), call{what: fmt.Sprintf("broadcast of %d from %d", len(x), root), v: x}, func(vs [][]float32) {
		for _, dst := range vs {
			copy(dst, vs[root])
		}
	})
	return err
}

func (g *loopback) Barrier(ctx context.Context) error {
	_, err := g.meet(ctx, call{what: "barrier"}, nil)
	return err
}

func (g *loopback) AllGatherBytes(ctx context.Context, b []byte) ([][]byte, error) {
	checkGather(b)
	return g.meet(ctx, call{what: "gather", bytes: bytes.Clone(b)}, nil)
}

func (g *loopback) Abort(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail(&Aborted{Rank: g.rank, Cause: fmt.Sprintf("rank %d: %v", g.rank, cause), err: cause})
}

// Close lets later collectives of the others fail, and one that waits for this rank.
func (g *loopback) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = true
	if g.arrived > 0 && !g.calls[g.rank].here {
		g.fail(&Aborted{Rank: g.rank, Cause: fmt.Sprintf("rank %d closed the group while others wait for it", g.rank)})
	}
	return nil
}

func (h *hall) fail(a *Aborted) {
	if h.err == nil {
		h.err = a
		h.open()
	}
}

func (h *hall) open() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (g *loopback) meet(ctx context.Context, c call, work func([][]float32)) ([][]byte, error) {
	h := g.hall
	h.mu.Lock()
	if err := h.admit(g.rank, c); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	if h.arrived == h.n {
		h.finish(work)
		defer h.mu.Unlock()
		return h.result, nil
	}
	door := h.changed
	h.mu.Unlock()
	select {
	case <-door:
	case <-ctx.Done():
		g.Abort(fmt.Errorf("%s: %w", c.what, ctx.Err()))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil && h.calls[g.rank].here {
		return nil, h.err
	}
	return h.result, nil
}

// admit takes the call in, unless the group has failed or the ranks do different things.
func (h *hall) admit(rank int, c call) error {
	if h.err == nil && h.left {
		h.fail(&Aborted{Rank: -1, Cause: "a rank has closed the group"})
	}
	for r, o := range h.calls {
		if h.err == nil && o.here && o.what != c.what {
			h.fail(&Aborted{Rank: rank, Cause: differentCalls(rank, c.what, r, o.what)})
		}
	}
	if h.err != nil {
		return h.err
	}
	c.here = true
	h.calls[rank] = c
	h.arrived++
	return nil
}

func (h *hall) finish(work func([][]float32)) {
	vs, bs := make([][]float32, h.n), make([][]byte, h.n)
	for r, c := range h.calls {
		vs[r], bs[r] = c.v, c.bytes
	}
	if work != nil {
		work(vs)
	}
	h.result, h.arrived = bs, 0
	clear(h.calls)
	h.open()
}

func differentCalls(rank int, what string, other int, otherWhat string) string {
	return fmt.Sprintf("rank %d calls %s where rank %d calls %s: all ranks must call the same collectives in the same order", rank, what, other, otherWhat)
}
