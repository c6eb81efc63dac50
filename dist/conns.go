package dist

import (
	"context"
	"fmt"
	"net"
	"time"
)

// A node's connections: links it dials or is dialled by, data connections that wait to be claimed.

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
