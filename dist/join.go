package dist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/splora/splora/nccl"
)

// Late is the error of a member that is not let in because another group of its job is under way.
type Late struct {
	Generation int // of that group: the member's own, or a later one
	Cause      string
}

func (l *Late) Error() string { return "dist: " + l.Cause }

// Join finds the other members of the job, agrees with them on ranks and returns when all of them have joined. The
// error says how many of how many members were seen, and what may be wrong; it is a *Late if there is a group already.
func Join(ctx context.Context, c Config) (Group, error) {
	c, err := c.resolve()
	if err != nil {
		return nil, err
	}
	if c.WorldMax == 1 {
		return &solo{generation: c.Generation}, nil
	}
	var lib *nccl.Library
	if c.NCCL != nil {
		if lib, err = c.NCCL.open(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	n, err := startNode(c, lib)
	if err != nil {
		return nil, err
	}
	g, err := n.form(ctx)
	if err != nil {
		n.shutdown()
		return nil, err
	}
	return g, nil
}

// form waits for the commit, then connects the ring, then for all others to have done so.
func (n *node) form(ctx context.Context) (*group, error) {
	var g *group
	select {
	case x := <-n.outcome:
		if err, ok := x.(error); ok {
			return nil, err
		}
		g = x.(*group)
	case <-ctx.Done():
		return nil, n.explain(ctx.Err())
	}
	err := g.connect(ctx)
	if err == nil && n.lib != nil {
		err = g.joinNCCL(ctx)
	}
	if err != nil {
		g.Abort(err)
		return nil, g.failure()
	}
	if err := g.Barrier(ctx); err != nil {
		return nil, err
	}
	n.cfg.Logger.Info("group stands", "job", n.cfg.Job, "generation", g.Generation(), "rank", g.rank, "world", g.size)
	return g, nil
}

// explain why no group came to be.
func (n *node) explain(err error) error {
	n.mu.Lock()
	status := n.status
	n.mu.Unlock()
	hints := n.diag.hints()
	if hints == "" {
		hints = "check that every member was started with the same job, key, generation and a seed that it can reach"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("dist: rendezvous of job %q, generation %d, gave up after %v: %s. %s", n.cfg.Job, n.cfg.Generation, n.cfg.Timeout, status, hints)
	}
	return fmt.Errorf("dist: rendezvous of job %q: %w (%s)", n.cfg.Job, err, status)
}

// connect dials the right neighbour's data address and waits for the left neighbour to do the same.
func (g *group) connect(ctx context.Context) error {
	ctx, cancel := g.until(ctx)
	defer cancel()
	right, left := g.a.Members[(g.rank+1)%g.size], g.a.Members[(g.rank+g.size-1)%g.size]
	h := hello{Job: g.n.cfg.Job, Generation: g.a.Generation, Attempt: g.a.Attempt, Rank: g.rank, Purpose: "data", From: g.n.name, To: right.Name}
	out, err := g.n.dialUntil(ctx, right.Data, h)
	if err != nil {
		return fmt.Errorf("data connection to %s at %s: %w", right, right.Data, err)
	}
	in, err := g.n.claim(ctx, left.Name, g.a.Attempt)
	if err != nil {
		out.Close()
		return fmt.Errorf("data connection from %s to %s: %w", left, g.n.self.Data, err)
	}
	stop := context.AfterFunc(ctx, func() { // a neighbour that stands still now would be waited for for ever
		in.Close()
		out.Close()
	})
	sharedIn, sharedOut, err := g.sharing(in, out, left.Host, right.Host)
	if !stop() {
		if err == nil {
			sharedIn.Close()
			sharedOut.Close()
		}
		err = ctx.Err()
	}
	if err != nil {
		in.Close()
		out.Close()
		return fmt.Errorf("data connections of %s: %w", g.n.self, err)
	}
	g.attach(sharedIn, sharedOut)
	return nil
}

// dialUntil tries again until ctx ends, because the other side may be a moment late.
func (n *node) dialUntil(ctx context.Context, addr string, h hello) (net.Conn, error) {
	for {
		c, err := n.dial(ctx, addr, h, n.meters.data)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// plain says in words what a broken connection means.
func plain(err error) string {
	switch {
	case err == nil:
		return "closed"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed by the other side (EOF)"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset by the other side"
	}
	return err.Error()
}
