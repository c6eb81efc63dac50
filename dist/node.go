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
func startNode(c Config) (*node, error) {
	n := &node{cfg: c, key: derive(c.Key, "control"), diag: newDiagnosis(c.Logger), events: newQueue[any](),
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
	n.self = c.member(n.name, addr, addr)
	n.state = rendezvous.New(rendezvous.Config{Self: n.self, LastCall: c.LastCall}, time.Now())
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

// link to a member: the open one, or a new one that dials.
func (n *node) link(peer, addr string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.links[peer]; l != nil {
		return l
	}
	l := newLink(peer)
	n.links[peer], n.all[l] = l, true
	n.spawn(func() { n.serve(l, addr) })
	return l
}

// adopt takes in a link that a member has dialled.
func (n *node) adopt(peer string, c net.Conn) {
	l := newLink(peer)
	l.conn = c
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		c.Close()
		return
	}
	n.links[peer], n.all[l] = l, true
	n.spawn(func() { n.serve(l, "") })
}

// serve runs a link to its end: dial if need be, write and read.
func (n *node) serve(l *link, addr string) {
	err := n.open(l, addr)
	if err == nil {
		n.spawn(func() { l.write(); l.close() })
		err = l.read(func(k kind, b []byte) { n.events.put(frameIn{l, k, b}) })
	}
	l.close()
	n.mu.Lock()
	delete(n.all, l)
	n.mu.Unlock()
	n.events.put(linkClosed{l, err})
}

func (n *node) open(l *link, addr string) error {
	if addr == "" {
		return nil
	}
	h := hello{Job: n.cfg.Job, Generation: n.cfg.Generation, Purpose: "control", From: n.name, To: l.peer, Rank: -1}
	c, err := n.dial(n.ctx, addr, h, n.meters.control)
	if err != nil {
		return err
	}
	if !l.open(c) {
		c.Close()
		return net.ErrClosed
	}
	return nil
}

// dial connects and authenticates.
func (n *node) dial(ctx context.Context, addr string, h hello, meter func(net.Conn) net.Conn) (net.Conn, error) {
	d := net.Dialer{Timeout: handshakeTime}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := meter(raw)
	if err := dialHandshake(c, n.key, h); err != nil {
		raw.Close()
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return c, nil
}

// accept takes connections; a stranger holds one of a limited number of places for a few seconds at most.
func (n *node) accept() {
	places := make(chan struct{}, 64+2*n.cfg.WorldMax)
	for {
		c, err := n.ln.Accept()
		if err != nil {
			if n.ctx.Err() != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors: try again
			continue
		}
		places <- struct{}{}
		n.spawn(func() {
			n.welcome(c)
			<-places
		})
	}
}

func (n *node) welcome(raw net.Conn) {
	stop := context.AfterFunc(n.ctx, func() { raw.Close() })
	defer stop()
	var m meters // what the handshake took, until we know whose it is
	h, err := acceptHandshake(m.control(raw), n.key, n.check)
	if err != nil {
		raw.Close()
		if n.ctx.Err() == nil {
			n.diag.stranger(raw.RemoteAddr().String(), err)
		}
		return
	}
	written, read := m.controlWritten.Load(), m.controlRead.Load()
	if h.Purpose == "control" {
		n.meters.controlWritten.Add(written)
		n.meters.controlRead.Add(read)
		n.adopt(h.From, n.meters.control(raw))
		return
	}
	n.meters.dataWritten.Add(written)
	n.meters.dataRead.Add(read)
	n.park(dataConn{n.meters.data(raw), h})
}

// check a member that has proved its key.
func (n *node) check(h hello) string {
	switch {
	case n.ctx.Err() != nil:
		return "closing"
	case h.Job != n.cfg.Job:
		return fmt.Sprintf("job %q, this is job %q", h.Job, n.cfg.Job)
	case h.To != n.name:
		return "meant for another member, which had this address before"
	case h.Generation != n.cfg.Generation:
		return fmt.Sprintf("generation %d, this is generation %d", h.Generation, n.cfg.Generation)
	case h.Purpose != "control" && h.Purpose != "data":
		return "unknown purpose " + h.Purpose
	}
	return ""
}

func (n *node) park(d dataConn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, ok := n.parked[d.hello.From]; ok {
		old.Close()
	}
	n.parked[d.hello.From] = d
	close(n.arrival)
	n.arrival = make(chan struct{})
}

// claim waits for the data connection of a member for this attempt.
func (n *node) claim(ctx context.Context, from string, attempt int) (net.Conn, error) {
	for {
		n.mu.Lock()
		d, ok := n.parked[from]
		arrival := n.arrival
		if ok && d.hello.Attempt == attempt {
			delete(n.parked, from)
			n.mu.Unlock()
			return d.Conn, nil
		}
		n.mu.Unlock()
		select {
		case <-arrival:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
