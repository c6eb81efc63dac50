package dist

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/splora/splora/dist/rendezvous"
	"github.com/splora/splora/nccl"
)

// group is a committed assignment at work: the ring for data, and rank 0 as the hub of everything else.
type group struct {
	n          *node
	a          rendezvous.Assignment
	rank, size int

	turn sync.Mutex // one collective at a time
	ring ring
	dev  *device // nil without NCCL

	mu       sync.Mutex
	in, out  net.Conn // left, right
	seq      int      // collectives begun
	what     string   // the one under way, "" = none
	phase    string   // how far it is
	since    time.Time
	gathers  map[int]chan [][]byte
	departed map[int]int   // rank → how many collectives it had done when it said goodbye
	hubGone  bool          // rank 0's connection ended after its goodbye
	changed  chan struct{} // closed and replaced when departed or hubGone change
	closing  sync.Once

	err  *Aborted
	mine *Aborted        // what this rank asked to abort with
	dead chan struct{}   // closed once err is set and, on rank 0, told to all
	life context.Context // ends then, or with the node
	die  context.CancelFunc

	vitals  []vital // by rank; the last that was heard
	doubted map[int]bool
	beaten  time.Time
	warned  time.Time

	calls map[int]*tally // rank 0's loop only
}

func newGroup(n *node, a rendezvous.Assignment) *group {
	g := &group{n: n, a: a, rank: a.Rank(n.name), size: a.World(), gathers: map[int]chan [][]byte{}, departed: map[int]int{},
		changed: make(chan struct{}), dead: make(chan struct{}), doubted: map[int]bool{}, calls: map[int]*tally{}}
	g.life, g.die = context.WithCancel(n.ctx)
	g.vitals = make([]vital, g.size)
	for r := range g.vitals {
		g.vitals[r] = vital{Rank: r, State: "joining", heard: time.Now()}
	}
	g.vitals[g.rank].State = "joined"
	return g
}

func (g *group) attach(in, out net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in, g.out = in, out
	g.ring = ring{rank: g.rank, n: g.size, piece: piece, right: out, left: in, broken: g.broken}
	if g.err != nil {
		g.closeData()
	}
}

func (g *group) closeData() {
	for _, c := range []net.Conn{g.in, g.out} {
		if c != nil {
			c.Close()
		}
	}
}

func (g *group) Rank() int        { return g.rank }
func (g *group) Size() int        { return g.size }
func (g *group) Generation() int  { return g.a.Generation }
func (g *group) Traffic() Traffic { return g.n.meters.traffic() }

// Collective is one that has ended well.
type Collective struct {
	Generation, Step int
	Seq              int    // counts this group's collectives, barriers and gathers among them, from 1
	Op               string // "all-reduce" or "broadcast"
	Bytes            int64  // of the vector
	NCCL             bool   // in device memory
	Took             time.Duration
}

// label is host/rank, the name in errors.
func (g *group) label(rank int) string { return fmt.Sprintf("%s/%d", g.a.Members[rank].Host, rank) }

func (g *group) AllReduce(v Vector) error {
	if p, n, ok := g.onDevice(v); ok {
		c := Collective{Op: "all-reduce", Bytes: 4 * int64(n), NCCL: true}
		return g.collective(fmt.Sprintf("all-reduce of %d floats"+overNCCL, n), c, func() error {
			return g.dev.run(g, func(comm *nccl.Comm, stream uintptr) error {
				return comm.AllReduce(p, p, n, nccl.Float32, nccl.Sum, stream)
			})
		})
	}
	x := host(v)
	c := Collective{Op: "all-reduce", Bytes: 4 * int64(len(x))}
	return g.collective(fmt.Sprintf("all-reduce of %d floats", len(x)), c, func() error { return g.ring.allReduce(x) })
}

func (g *group) Broadcast(v Vector, root int) error {
	checkRoot(root, g.size)
	if p, n, ok := g.onDevice(v); ok {
		c := Collective{Op: "broadcast", Bytes: 4 * int64(n), NCCL: true}
		return g.collective(fmt.Sprintf("broadcast of %d floats from rank %d"+overNCCL, n, root), c, func() error {
			return g.dev.run(g, func(comm *nccl.Comm, stream uintptr) error {
				return comm.Broadcast(p, p, n, nccl.Float32, root, stream)
			})
		})
	}
	x := host(v)
	c := Collective{Op: "broadcast", Bytes: 4 * int64(len(x))}
	return g.collective(fmt.Sprintf("broadcast of %d floats from rank %d", len(x), root), c, func() error { return g.ring.broadcast(x, root) })
}

// onDevice is v's device memory, if that is where it is and NCCL can reach it.
func (g *group) onDevice(v Vector) (ptr uintptr, n int, ok bool) {
	ptr, n, ok = onDevice(v)
	return ptr, n, ok && g.dev != nil
}

// collective on vectors. Rank 0 is told of it meanwhile, so that different calls are found out.
func (g *group) collective(what string, c Collective, run func() error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	began := time.Now()
	seq, err := g.enter(what)
	if err != nil {
		return err
	}
	defer g.leave()
	call := g.calling(seq, what, nil)
	g.toHub(kCall, call)
	if run() != nil {
		<-g.dead
		return g.failure()
	}
	if c.NCCL {
		g.n.meters.device(c.Bytes)
	}
	if trace := g.n.cfg.Trace; trace != nil {
		c.Generation, c.Step, c.Seq, c.Took = g.a.Generation, call.Step, seq, time.Since(began)
		trace(c)
	}
	return nil
}

func (g *group) Barrier(ctx context.Context) error {
	_, err := g.gather(ctx, "barrier", nil)
	return err
}

func (g *group) AllGatherBytes(ctx context.Context, b []byte) ([][]byte, error) {
	checkGather(b)
	return g.gather(ctx, "gather", b)
}

func (g *group) gather(ctx context.Context, what string, b []byte) ([][]byte, error) {
	g.turn.Lock()
	defer g.turn.Unlock()
	seq, err := g.enter(what)
	if err != nil {
		return nil, err
	}
	defer g.leave()
	parts := make(chan [][]byte, 1)
	g.mu.Lock()
	g.gathers[seq] = parts
	g.mu.Unlock()
	g.toHub(kPart, g.calling(seq, what, b))
	select {
	case p := <-parts:
		return p, nil
	case <-ctx.Done():
		g.Abort(fmt.Errorf("%s: %w", what, ctx.Err()))
	case <-g.dead:
	}
	return nil, g.failure()
}

// enter begins the next collective, unless the group has failed or a rank has gone that would have to take part.
func (g *group) enter(what string) (seq int, err error) {
	g.mu.Lock()
	if g.err != nil {
		g.mu.Unlock()
		<-g.dead
		return 0, g.failure()
	}
	g.seq++
	g.what, g.since = what, time.Now()
	early := g.early()
	seq = g.seq
	g.mu.Unlock()
	if early != nil {
		g.propose(early)
		<-g.dead
		return 0, g.failure()
	}
	return seq, nil
}

func (g *group) leave() {
	g.mu.Lock()
	g.what, g.phase = "", ""
	g.mu.Unlock()
}

// early is the failure of the collective under way if a rank has said goodbye before it; needs mu.
func (g *group) early() *Aborted {
	for r, done := range g.departed {
		if g.what != "" && done < g.seq {
			return &Aborted{Rank: r, Cause: fmt.Sprintf("%s closed the group after collective %d, but %s began collective %d (%s)", g.label(r), done, g.label(g.rank), g.seq, g.what)}
		}
	}
	return nil
}

func (g *group) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		return nil
	}
	return g.err
}
