package dist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/splora/splora/dist/rendezvous"
)

// group is a committed assignment at work: the ring for data, and rank 0 as the hub of everything else.
type group struct {
	n          *node
	a          rendezvous.Assignment
	rank, size int

	turn sync.Mutex // one collective at a time
	ring ring

	mu       sync.Mutex
	in, out  net.Conn // left, right
	seq      int      // collectives begun
	what     string   // the one under way, "" = none
	since    time.Time
	gathers  map[int]chan [][]byte
	departed map[int]int   // rank → how many collectives it had done when it said goodbye
	hubGone  bool          // rank 0's connection ended after its goodbye
	changed  chan struct{} // closed and replaced when departed or hubGone change
	closing  sync.Once

	err  *Aborted
	mine *Aborted      // what this rank asked to abort with
	dead chan struct{} // closed once err is set and, on rank 0, told to all

	vitals  []vital // by rank; the last that was heard
	doubted map[int]bool
	beaten  time.Time
	warned  time.Time

	calls map[int]*tally // rank 0's loop only
}

func newGroup(n *node, a rendezvous.Assignment) *group {
	g := &group{n: n, a: a, rank: a.Rank(n.name), size: a.World(), gathers: map[int]chan [][]byte{}, departed: map[int]int{},
		changed: make(chan struct{}), dead: make(chan struct{}), doubted: map[int]bool{}, calls: map[int]*tally{}}
	g.vitals = make([]vital, g.size)
	for r := range g.vitals {
		g.vitals[r] = vital{Rank: r, State: "joining", heard: time.Now()}
	}
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

// context ends when the group is dead.
func (g *group) context() context.Context {
	ctx, cancel := context.WithCancel(g.n.ctx)
	g.n.spawn(func() {
		select {
		case <-g.dead:
		case <-g.n.ctx.Done():
		}
		cancel()
	})
	return ctx
}

func (g *group) Rank() int        { return g.rank }
func (g *group) Size() int        { return g.size }
func (g *group) Generation() int  { return g.a.Generation }
func (g *group) Traffic() Traffic { return g.n.meters.traffic() }

// label is host/rank, the name in errors.
func (g *group) label(rank int) string { return fmt.Sprintf("%s/%d", g.a.Members[rank].Host, rank) }

func (g *group) AllReduce(v Vector) error {
	x := v.Float32()
	return g.collective(fmt.Sprintf("all-reduce of %d floats", len(x)), func() error { return g.ring.allReduce(x) })
}

func (g *group) Broadcast(v Vector, root int) error {
	checkRoot(root, g.size)
	x := v.Float32()
	return g.collective(fmt.Sprintf("broadcast of %d floats from rank %d", len(x), root), func() error { return g.ring.broadcast(x, root) })
}

// collective on the data connections. Rank 0 is told of it meanwhile, so that different calls are found out.
func (g *group) collective(what string, run func() error) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	seq, err := g.enter(what)
	if err != nil {
		return err
	}
	defer g.leave()
	g.toHub(kCall, g.calling(seq, what, nil))
	if run() != nil {
		<-g.dead
		return g.failure()
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
	g.what = ""
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

// callFrame announces a collective, and carries a part of a gather. It is as good as a heartbeat.
type callFrame struct {
	Seq   int    `json:"seq"`
	What  string `json:"what"`
	Step  int    `json:"step"`
	State string `json:"state"`
	Bytes []byte `json:"bytes,omitempty"`
}

func (g *group) calling(seq int, what string, b []byte) callFrame {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.vitals[g.rank]
	return callFrame{Seq: seq, What: what, Step: v.Step, State: v.State, Bytes: b}
}

type partsFrame struct {
	Seq   int      `json:"seq"`
	Parts [][]byte `json:"parts"`
}

type byeFrame struct {
	Rank int `json:"rank"`
	Done int `json:"done"` // collectives
}

// toHub sends to rank 0; on rank 0 itself it takes the same way into the loop.
func (g *group) toHub(k kind, x any) {
	if g.rank == 0 {
		b := encode(x)
		g.n.events.put(inLoop(func() { g.take(0, k, b) }))
		return
	}
	g.send(0, k, x)
}

// send to a rank, if there is still a link.
func (g *group) send(rank int, k kind, x any) bool {
	g.n.mu.Lock()
	l := g.n.links[g.a.Members[rank].Name]
	g.n.mu.Unlock()
	if l != nil {
		l.send(k, encode(x))
	}
	return l != nil
}

// toAll sends to every rank but 0, which calls it, and but one.
func (g *group) toAll(k kind, x any, but int) {
	for r := 1; r < g.size; r++ {
		if r != but {
			g.send(r, k, x)
		}
	}
}

func encode(x any) []byte {
	b, err := json.Marshal(x)
	if err != nil {
		panic(err) // plain data
	}
	return b
}

func (g *group) frame(f frameIn) {
	if r := g.a.Rank(f.link.peer); r >= 0 {
		g.take(r, f.kind, f.payload)
	}
}

// take handles one frame from a rank, in the loop.
func (g *group) take(from int, k kind, b []byte) {
	switch k {
	case kCall, kPart:
		with(b, func(c callFrame) { g.onCall(from, c, k == kPart) })
	case kParts:
		with(b, g.deliver)
	case kBeat:
		with(b, func(v vital) { v.Rank = from; g.heard(v) })
	case kTable:
		with(b, func(vs []vital) { g.table(vs) })
	case kAbort:
		with(b, func(a abortFrame) { g.decide(&Aborted{Rank: a.Rank, Lost: a.Lost, Cause: a.Cause}) })
	case kBye:
		with(b, g.onBye)
	}
}

func with[T any](b []byte, f func(T)) {
	var x T
	if json.Unmarshal(b, &x) == nil {
		f(x)
	}
}

// tally of one collective on rank 0.
type tally struct {
	what  string
	first int // the rank that began it
	count int
	parts [][]byte
}

func (g *group) onCall(from int, c callFrame, gather bool) {
	if g.rank != 0 {
		return
	}
	g.heard(vital{Rank: from, Step: c.Step, State: c.State, Seq: c.Seq, What: c.What})
	t := g.calls[c.Seq]
	if t == nil {
		t = &tally{what: c.What, first: from, parts: make([][]byte, g.size)}
		g.calls[c.Seq] = t
	}
	if t.what != c.What {
		g.propose(&Aborted{Rank: from, Cause: fmt.Sprintf("collective %d: %s", c.Seq, differentCalls(from, c.What, t.first, t.what))})
		return
	}
	t.count++
	t.parts[from] = c.Bytes
	if t.count < g.size {
		return
	}
	delete(g.calls, c.Seq)
	if gather {
		p := partsFrame{c.Seq, t.parts}
		g.toAll(kParts, p, 0)
		g.deliver(p)
	}
}

func (g *group) deliver(p partsFrame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch, ok := g.gathers[p.Seq]; ok && len(p.Parts) == g.size {
		delete(g.gathers, p.Seq)
		ch <- p.Parts
	}
}

// Close: goodbye, a wait for the others' goodbye, and the end of everything.
func (g *group) Close() error {
	g.closing.Do(func() {
		if what := g.busy(); what != "" {
			g.Abort(errors.New("closed during " + what))
		}
		g.goodbye()
		g.end()
	})
	return nil
}

// end frees everything; what is called afterwards fails.
func (g *group) end() {
	if g.failure() != nil {
		<-g.dead // on rank 0: told to all
	}
	g.n.shutdown()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closeData()
	if g.err == nil {
		g.err = &Aborted{Rank: g.rank, Cause: "this rank has closed it"}
		close(g.dead)
	}
}

func (g *group) busy() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return ""
	}
	return g.what
}

func (g *group) goodbye() {
	g.mu.Lock()
	bye := byeFrame{g.rank, g.seq}
	g.mu.Unlock()
	g.toHub(kBye, bye)
	late := time.NewTimer(g.n.cfg.CloseWait)
	defer late.Stop()
	for {
		g.mu.Lock()
		over := g.allGone()
		changed := g.changed
		g.mu.Unlock()
		if over {
			return
		}
		select {
		case <-changed:
		case <-g.dead:
			return
		case <-g.n.ctx.Done():
			return
		case <-late.C:
			g.n.cfg.Logger.Debug("closing before the others", "rank", g.rank)
			return
		}
	}
}

// allGone: every other rank has said goodbye, or nobody is left to relay it; needs mu.
func (g *group) allGone() bool {
	others := len(g.departed)
	if _, self := g.departed[g.rank]; self {
		others--
	}
	return g.hubGone || others == g.size-1
}

func (g *group) onBye(b byeFrame) {
	if g.rank == 0 {
		g.toAll(kBye, b, b.Rank)
	}
	g.mu.Lock()
	g.departed[b.Rank] = b.Done
	g.change()
	early := g.early()
	g.mu.Unlock()
	if early != nil && early.Rank != g.rank {
		g.propose(early)
	}
}

func (g *group) change() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// misses: the end of the member's link is a loss to this rank: it watches it, and it has not said goodbye.
func (g *group) misses(name string) bool {
	r := g.a.Rank(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	_, departed := g.departed[r]
	if departed && r == 0 {
		g.hubGone = true
		g.change()
	}
	return !departed && g.watches(r)
}
