package dist

import (
	"fmt"
	"strings"
	"time"

	"github.com/splora/splora/dist/rendezvous"
)

// vital says where a rank is. It travels with each heartbeat, so that a report of a loss or a stall can tell.
type vital struct {
	Rank  int           `json:"rank"`
	Step  int           `json:"step"`
	State string        `json:"state"`
	Seq   int           `json:"seq"`             // collectives begun
	What  string        `json:"what,omitempty"`  // the collective it waits in: operation, size, transport
	Phase string        `json:"phase,omitempty"` // how far that is: queueing, on the stream
	Age   time.Duration `json:"age,omitempty"`   // when it was passed on
	heard time.Time
}

func (g *group) SetProgress(step int, state string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vitals[g.rank].Step, g.vitals[g.rank].State = step, state
}

// setState keeps the step.
func (g *group) setState(state string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vitals[g.rank].State = state
}

// setPhase of the collective under way.
func (g *group) setPhase(phase string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase = phase
}

// own vital now; needs mu.
func (g *group) own() vital {
	v := &g.vitals[g.rank]
	v.Seq, v.What, v.Phase, v.heard = g.seq, g.what, g.phase, time.Now()
	return *v
}

func (g *group) heard(v vital) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v.heard = time.Now().Add(-v.Age)
	if v.Rank >= 0 && v.Rank < g.size && v.Rank != g.rank {
		g.vitals[v.Rank] = v
	}
}

func (g *group) table(vs []vital) {
	for _, v := range vs {
		g.heard(v)
	}
}

// tick: heartbeats, and what their absence says; in the loop.
func (g *group) tick(now time.Time) {
	g.mu.Lock()
	if g.err != nil {
		g.mu.Unlock()
		return
	}
	due := now.Sub(g.beaten) >= g.n.cfg.Heartbeat
	own := g.own()
	vs := g.aged(now)
	lost := g.silent(now)
	stall := g.stalled(now)
	late := g.overdue(now)
	if due {
		g.beaten = now
	}
	g.mu.Unlock()

	if due && g.rank == 0 {
		g.toAll(kTable, vs, 0)
	} else if due {
		g.send(0, kBeat, own)
	}
	if stall != "" {
		g.n.cfg.Logger.Warn(stall, "rank", g.rank, "generation", g.a.Generation)
	}
	if lost != nil {
		g.n.step(*lost)
	}
	if late != nil {
		g.propose(late)
	}
}

func (g *group) aged(now time.Time) []vital {
	vs := append([]vital(nil), g.vitals...)
	for r := range vs {
		vs[r].Age = now.Sub(vs[r].heard)
	}
	return vs
}

// silent is a rank whose heartbeat has stopped: for Silence, or for three beats if gossip has called it dead; needs mu.
func (g *group) silent(now time.Time) *rendezvous.Lost {
	for r, v := range g.vitals {
		_, departed := g.departed[r]
		if departed || !g.watches(r) {
			continue
		}
		age := now.Sub(v.heard)
		name := g.a.Members[r].Name
		if g.doubted[r] && age > 3*g.n.cfg.Heartbeat {
			return &rendezvous.Lost{At: now, Name: name, Reason: "gossip has declared it dead and its heartbeat has stopped"}
		}
		if age > g.n.cfg.Silence {
			return &rendezvous.Lost{At: now, Name: name, Reason: fmt.Sprintf("no heartbeat for %.0f s", age.Seconds())}
		}
	}
	return nil
}

// watches: rank 0 watches all, the others rank 0, through which alone they hear of each other.
func (g *group) watches(r int) bool { return r >= 0 && r != g.rank && (g.rank == 0 || r == 0) }

// doubt notes that gossip says that the member is dead. That alone is not believed while its heartbeat is fresh: tick
// will see when it is not.
func (g *group) doubt(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.a.Rank(name); r >= 0 {
		g.doubted[r] = true
	}
}

// trust: gossip sees the member again.
func (g *group) trust(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.doubted, g.a.Rank(name))
}

// stalled is a report on a collective that waits for too long, or ""; needs mu.
func (g *group) stalled(now time.Time) string {
	if g.what == "" || now.Sub(g.since) < g.n.cfg.Stall || now.Sub(g.warned) < g.n.cfg.Stall {
		return ""
	}
	g.warned = now
	return g.report(now)
}

// overdue is the end of a group whose collective over NCCL, which knows no end of its own, has taken all its time; needs mu.
func (g *group) overdue(now time.Time) *Aborted {
	c := g.n.cfg.NCCL
	if g.dev == nil || !strings.HasSuffix(g.what, overNCCL) || now.Sub(g.since) < c.Timeout {
		return nil
	}
	cause := fmt.Errorf("time-out of %v: %s", c.Timeout, g.report(now))
	return &Aborted{Rank: g.rank, Cause: fmt.Sprintf("%s: %v", g.label(g.rank), cause), err: cause}
}

// report says who waits in the collective under way, and where the others are; needs mu.
func (g *group) report(now time.Time) string {
	var here, missing []string
	for r, v := range g.vitals {
		if r == g.rank || v.Seq >= g.seq {
			here = append(here, g.label(r))
		} else {
			missing = append(missing, g.where(r))
		}
	}
	rest := "all ranks are in it"
	if missing != nil {
		rest = fmt.Sprintf("with %s; not there yet: %s", strings.Join(here, ", "), strings.Join(missing, "; "))
	}
	return fmt.Sprintf("waits for %.0f s in collective %d (%s) of generation %d, step %d; %s", now.Sub(g.since).Seconds(), g.seq,
		during(g.what, g.phase), g.a.Generation, g.vitals[g.rank].Step, rest)
}

func during(what, phase string) string {
	if phase == "" {
		return what
	}
	return what + ", " + phase
}

// where a rank was; needs mu.
func (g *group) where(r int) string {
	v := g.vitals[r]
	in := ""
	if v.What != "" {
		in = fmt.Sprintf(", in collective %d (%s)", v.Seq, during(v.What, v.Phase))
	}
	return fmt.Sprintf("%s at step %d, %s%s, %.1f s ago", g.label(r), v.Step, v.State, in, time.Since(v.heard).Seconds())
}

func (g *group) lastSeen(r int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return "last seen: " + g.where(r)
}
