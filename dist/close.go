package dist

import (
	"errors"
	"time"
)

// Close: goodbye, a wait for the others' goodbye, and the end of everything.
func (g *group) Close() error {
	g.closing.Do(func() {
		if what := g.busy(); what != "" {
			g.Abort(errors.New("closed during " + what))
		}
		g.goodbye()
		g.leaveNCCL()
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
		g.die()
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
