package dist

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/splora/splora/dist/rendezvous"
	"github.com/splora/splora/nccl"
)

// node is one member on the network, from Join to Close: listener, links, gossip, and one goroutine (loop) that takes
// every event from one queue, in order, and alone owns the state machine.
type node struct {
	cfg    Config
	key    []byte // of handshakes
	name   string
	self   rendezvous.Member
	ln     net.Listener
	gossip *gossip
	lib    *nccl.Library // nil without NCCL
	diag   *diagnosis
	meters meters
	events *queue[any]
	ctx    context.Context // ends with the node
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once

	state *rendezvous.State // owned by loop

	mu      sync.Mutex
	links   map[string]*link    // by member; the newest
	all     map[*link]bool      // every open one
	parked  map[string]dataConn // accepted data connections by dialer, until claimed
	arrival chan struct{}       // closed and replaced when one is parked
	group   *group              // once committed
	status  string              // the state's own words

	outcome chan any // rendezvous.Commit or error, once
}

type dataConn struct {
	net.Conn
	hello hello
}

// events besides gossipJoined and gossipLeft
type (
	frameIn struct {
		link    *link
		kind    kind
		payload []byte
	}
	linkClosed struct {
		link *link
		err  error
	}
	inLoop func() // runs in the loop's goroutine
)

// startNode opens the listeners and begins to look for the others.
func startNode(c Config, lib *nccl.Library) (*node, error) {
	n := &node{cfg: c, lib: lib, key: derive(c.Key, "control"), diag: newDiagnosis(c.Logger), events: newQueue[any](),
		links: map[string]*link{}, all: map[*link]bool{}, parked: map[string]dataConn{},
		arrival: make(chan struct{}), outcome: make(chan any, 1)}
	n.name = fmt.Sprintf("%s/%d/%d/%d/%d-%s", c.Job, c.Generation, c.NodeRank, c.LocalRank, os.Getpid(), rand.Text()[:8])
	var err error
	if n.ln, err = net.Listen("tcp", net.JoinHostPort(c.Bind, "0")); err != nil {
		return nil, fmt.Errorf("dist: cannot listen on %s: %w", c.Bind, err)
	}
	port := n.ln.Addr().(*net.TCPAddr).Port
	if n.gossip, err = startGossip(c, n.name, port, n.diag, n.events.put); err != nil {
		n.ln.Close()
		return nil, err
	}
	addr := net.JoinHostPort(n.gossip.host(), strconv.Itoa(port))
	n.self = c.member(n.name, addr, addr, lib)
	n.state = rendezvous.New(rendezvous.Config{Self: n.self, LastCall: c.LastCall, NeedUnique: lib != nil}, time.Now())
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.spawn(func() { n.gossip.join(n.ctx) })
	n.spawn(n.accept)
	n.spawn(n.loop)
	return n, nil
}

func (n *node) spawn(f func()) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		f()
	}()
}

// shutdown frees everything and waits for every goroutine.
func (n *node) shutdown() {
	n.closed.Do(func() {
		n.diag.silence()
		n.flush(time.Second)
		n.cancel()
		n.ln.Close()
		n.mu.Lock()
		for l := range n.all {
			l.close()
		}
		n.mu.Unlock()
		n.gossip.leave()
		n.wg.Wait()
		for _, d := range n.parked {
			d.Close()
		}
	})
}

// flush hands what is queued on all links to the kernel.
func (n *node) flush(limit time.Duration) {
	n.mu.Lock()
	var ls []*link
	for l := range n.all {
		if l.opened() {
			ls = append(ls, l)
		}
	}
	n.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() { l.flush(limit) })
	}
	wg.Wait()
}

// loop is the one place where things happen.
func (n *node) loop() {
	tick := time.NewTicker(min(200*time.Millisecond, n.cfg.Heartbeat))
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.events.ready:
			for _, e := range n.events.drain() {
				n.handle(e)
			}
		case now := <-tick.C:
			n.tick(now)
		}
	}
}

func (n *node) handle(e any) {
	now := time.Now()
	switch e := e.(type) {
	case gossipJoined:
		if g := n.standing(); g != nil {
			g.trust(e.member.Name)
		}
		n.step(rendezvous.Joined{At: now, Member: e.member})
	case gossipLeft:
		if g := n.standing(); g != nil {
			g.doubt(e.name)
		} else {
			n.step(rendezvous.Lost{At: now, Name: e.name, Reason: "gossip has declared it dead"})
		}
	case frameIn:
		n.frame(e, now)
	case linkClosed:
		n.onClosed(e, now)
	case inLoop:
		e()
	}
}

func (n *node) frame(f frameIn, now time.Time) {
	if f.kind != kRendezvous {
		if g := n.standing(); g != nil {
			g.frame(f)
		}
		return
	}
	var m rendezvous.Message
	if err := json.Unmarshal(f.payload, &m); err == nil {
		n.step(rendezvous.Received{At: now, From: f.link.peer, Message: m})
	}
}

// onClosed: a broken link is a lost member, if it was the one in use and had been open.
func (n *node) onClosed(e linkClosed, now time.Time) {
	n.mu.Lock()
	current := n.links[e.link.peer] == e.link
	if current {
		delete(n.links, e.link.peer)
	}
	opened := e.link.opened()
	n.mu.Unlock()
	if !opened {
		n.diag.dial(e.err)
	}
	g := n.standing()
	if !current || !opened && g == nil || g != nil && !g.misses(e.link.peer) {
		return
	}
	n.step(rendezvous.Lost{At: now, Name: e.link.peer, Reason: "control connection: " + plain(e.err)})
}

func (n *node) tick(now time.Time) {
	if g := n.standing(); g != nil {
		g.tick(now)
	} else {
		for _, m := range n.gossip.members(n.name) {
			n.step(rendezvous.Joined{At: now, Member: m})
		}
		if seed, wrong := n.diag.wrongKey(); wrong {
			n.finish(fmt.Errorf("dist: seed %s: gossip key differs: all members of job %q need the same key", seed, n.cfg.Job))
		}
	}
	n.step(rendezvous.Tick{At: now})
}

// step feeds the state machine and does what it says.
func (n *node) step(e rendezvous.Event) {
	for _, a := range n.state.Step(e) {
		switch a := a.(type) {
		case rendezvous.Send:
			b, err := json.Marshal(a.Message)
			if err != nil {
				panic(err) // plain data
			}
			n.link(a.To, a.Control).send(kRendezvous, b)
		case rendezvous.MakeUnique:
			n.makeUnique()
		case rendezvous.Commit:
			n.commit(a.Assignment)
		case rendezvous.Fail:
			n.failed(a)
		}
	}
	n.mu.Lock()
	n.status = n.state.Status()
	n.mu.Unlock()
}

func (n *node) commit(a rendezvous.Assignment) {
	g := newGroup(n, a)
	n.mu.Lock()
	n.group = g
	n.mu.Unlock()
	n.finish(g)
}

func (n *node) failed(f rendezvous.Fail) {
	if g := n.standing(); g != nil {
		g.onLost(f)
		return
	}
	if f.Late > 0 {
		n.finish(&Late{Generation: f.Late, Cause: f.Cause})
		return
	}
	n.finish(fmt.Errorf("dist: %s", f.Cause))
}

// finish answers Join: a *group or an error; the first counts.
func (n *node) finish(x any) {
	select {
	case n.outcome <- x:
	default:
	}
}

func (n *node) standing() *group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group
}
