package dist

import (
	"fmt"
	"time"

	"github.com/splora/splora/dist/rendezvous"
)

// How all ranks come to report the same, first cause: rank 0 decides. A rank that fails asks it and waits for the
// verdict; only if that does not come in verdictTime does it decide alone.
//
// A broken data connection says little: the neighbour may have died or may itself have heard of a failure. So it waits
// for suspectTime for a firmer cause (a closed control connection, an abort) before it is taken as one.
const (
	verdictTime = time.Second
	suspectTime = 500 * time.Millisecond
)

type abortFrame struct {
	Rank  int    `json:"rank"`
	Lost  bool   `json:"lost"`
	Cause string `json:"cause"`
}

// Abort returns when the group is dead: the process may end then, the others know.
func (g *group) Abort(cause error) {
	g.propose(&Aborted{Rank: g.rank, Cause: fmt.Sprintf("%s: %v", g.label(g.rank), cause), err: cause})
	<-g.dead
}

// propose a failure. Returns at once; the group dies within verdictTime.
func (g *group) propose(a *Aborted) {
	g.mu.Lock()
	first := g.mine == nil && g.err == nil
	if first {
		g.mine = a
	}
	g.mu.Unlock()
	if !first {
		return
	}
	if g.rank == 0 || !g.send(0, kAbort, abortFrame{a.Rank, a.Lost, a.Cause}) {
		g.decide(a)
		return
	}
	go func() {
		select {
		case <-g.dead:
		case <-time.After(verdictTime):
			g.decide(g.unanswered(a))
		}
	}()
}

// unanswered: rank 0 gave no verdict. If its heart does not beat either, it is what failed first, unless this rank has
// a reason of its own.
func (g *group) unanswered(a *Aborted) *Aborted {
	g.mu.Lock()
	mute := time.Since(g.vitals[0].heard) > 2*g.n.cfg.Heartbeat
	g.mu.Unlock()
	if a.err != nil || !mute {
		return a
	}
	return &Aborted{Rank: 0, Lost: true, Cause: fmt.Sprintf("lost %s: it does not answer; %s (then: %s)", g.label(0), g.lastSeen(0), a.Cause)}
}

// decide sets the group's failure, once. Rank 0 tells all before anybody here learns of it, because the process may end
// right then.
func (g *group) decide(a *Aborted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return
	}
	if g.mine != nil && g.mine.Cause == a.Cause {
		a.err = g.mine.err
	}
	g.err = a
	go func() {
		if g.rank == 0 {
			g.toAll(kAbort, abortFrame{a.Rank, a.Lost, a.Cause}, 0)
			g.n.flush(verdictTime)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.closeData()
		close(g.dead)
		g.die()
	}()
}

// broken is called by the ring when a data connection fails; it returns when the group is dead.
func (g *group) broken(right bool, err error) {
	peer, side := (g.rank+g.size-1)%g.size, "from"
	if right {
		peer, side = (g.rank+1)%g.size, "to"
	}
	select {
	case <-g.dead:
		return
	case <-time.After(suspectTime):
	}
	g.propose(&Aborted{Rank: peer, Lost: true, Cause: fmt.Sprintf("lost %s: data connection %s it: %s; %s", g.label(peer), side, plain(err), g.lastSeen(peer))})
	<-g.dead
}

// onLost: the state machine has failed after the commit; in the loop.
func (g *group) onLost(f rendezvous.Fail) {
	r := g.a.Rank(f.Lost)
	if r < 0 {
		g.propose(&Aborted{Rank: -1, Cause: f.Cause})
		return
	}
	a := &Aborted{Rank: r, Lost: true, Cause: f.Cause + "; " + g.lastSeen(r)}
	if r == 0 {
		g.decide(a) // nobody else is left to do it
		return
	}
	g.propose(a)
}
