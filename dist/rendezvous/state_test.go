package rendezvous

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// all runs n members to the end in calm weather.
func all(n, lo, hi int, change func(i int, m *Member)) *world {
	w := newWorld(n, lo, hi, change)
	w.calm()
	return w
}

func TestRanksFollowNodeThenLocalRankNotNamesOrArrival(t *testing.T) {
	// names are such that text order is wrong, nodes count down
	w := newWorld(12, 12, 12, func(i int, m *Member) { m.Node, m.Local, m.Host = 11-i, 0, fmt.Sprintf("host%d", 11-i) })
	w.calm()
	for i, m := range w.members {
		if c := w.commits[m.Name]; c.Rank(m.Name) != 11-i {
			t.Errorf("%s, node %d: rank %d", m.Name, m.Node, c.Rank(m.Name))
		}
	}
}

func TestFewerThanMaxStartOnlyAfterTheLastCall(t *testing.T) {
	w := newWorld(3, 2, 4, nil)
	for range 2 {
		for _, a := range w.members {
			for _, b := range w.members {
				if a.Name != b.Name {
					w.joined(a.Name, b)
				}
			}
		}
		for len(w.flying) > 0 {
			w.deliver(0, false)
		}
		w.tick(time.Second)
	}
	if len(w.commits) != 0 {
		t.Fatalf("committed before the last call was over: %v", w.commits)
	}
	w.calm()
	if c := w.commits[at(0)]; len(w.commits) != 3 || c.World() != 3 {
		t.Fatalf("%d commits, world %d", len(w.commits), c.World())
	}
}

func TestFewerThanMinNeverStart(t *testing.T) {
	w := all(2, 3, 4, nil)
	if len(w.commits)+len(w.fails) != 0 {
		t.Fatalf("%v %v", w.commits, w.fails)
	}
	if s := w.states[at(0)].Status(); !strings.Contains(s, "2 of 3 to 4 members have registered: h0/0, h0/1") {
		t.Error(s)
	}
}

func TestHalfOfTheLastWorldDoesNotStartMoreThanHalfDoes(t *testing.T) {
	for _, c := range []struct {
		alive, previous int
		start           bool
	}{{2, 4, false}, {3, 4, true}, {3, 6, false}, {4, 6, true}, {1, 0, true}} {
		w := all(c.alive, 1, 8, func(i int, m *Member) {
			if i == c.alive-1 { // one that remembers is enough
				m.Previous = c.previous
			}
		})
		if started := len(w.commits) > 0; started != c.start {
			t.Errorf("%d alive of %d: started %v", c.alive, c.previous, started)
		}
	}
}

func TestADifferentModelFolderFailsEveryRankAndNamesThePartAndBothSides(t *testing.T) {
	w := all(4, 4, 4, func(i int, m *Member) {
		m.Fingerprint = map[string]string{"model": "1f3a", "config": "c0", "data": "dd"}
		if i == 2 {
			m.Fingerprint["model"] = "77b2"
		}
	})
	if len(w.commits) != 0 || len(w.fails) != 4 {
		t.Fatalf("%d commits, %d failures", len(w.commits), len(w.fails))
	}
	for name, f := range w.fails {
		if want := "model differs: 1f3a on h0/0, h0/1, h1/1, but 77b2 on h1/0"; !strings.Contains(f.Cause, want) {
			t.Errorf("%s: %s", name, f.Cause)
		}
		if strings.Contains(f.Cause, "config") || strings.Contains(f.Cause, "data") {
			t.Errorf("%s blames more than differs: %s", name, f.Cause)
		}
	}
}

func TestAMissingPartAndDifferentWorldLimitsAreMismatchesToo(t *testing.T) {
	w := all(2, 2, 2, func(i int, m *Member) {
		if i == 1 {
			m.Fingerprint = map[string]string{"data": "dd"}
			m.Max = 3
		}
	})
	for name, f := range w.fails {
		if !strings.Contains(f.Cause, "data differs: dd on h0/1, but none on h0/0") || !strings.Contains(f.Cause, "world differs: 2:2 on h0/0, but 2:3 on h0/1") {
			t.Errorf("%s: %s", name, f.Cause)
		}
	}
	if len(w.fails) != 2 {
		t.Errorf("%d failures", len(w.fails))
	}
}

func TestTwoProcessesWithOneSeatFailByName(t *testing.T) {
	w := all(3, 2, 3, func(i int, m *Member) { m.Node, m.Host, m.Local = 0, "h", min(i, 1) })
	if len(w.fails) != 3 || !strings.Contains(w.fails[at(0)].Cause, "claim node rank 0, local rank 1: m1 and m2") {
		t.Fatalf("%v", w.fails)
	}
}

func TestALateJoinerIsToldThatTheGroupStands(t *testing.T) {
	w := newWorld(3, 2, 2, nil)
	late := at(2)
	w.dead[late] = true // not there yet
	w.calm()
	w.dead[late] = false
	w.calm()
	if f := w.fails[late]; f.Late != 5 || !strings.Contains(f.Cause, "generation 5 already stands with 2 ranks") {
		t.Errorf("%+v", f)
	}
	if len(w.commits) != 2 || len(w.fails) != 1 {
		t.Errorf("%v %v", w.commits, w.fails)
	}
}

func TestAMemberLostAfterTheCommitFailsTheOthers(t *testing.T) {
	w := all(3, 2, 3, nil)
	w.dead[at(1)] = true
	w.calm()
	for _, name := range []string{at(0), at(2)} {
		if f := w.fails[name]; f.Lost != at(1) || f.Cause != "lost h0/1: test" {
			t.Errorf("%s: %v", name, f)
		}
	}
}

// meet makes everybody see everybody.
func (w *world) meet() {
	for _, a := range w.members {
		for _, b := range w.members {
			if a.Name != b.Name {
				w.joined(a.Name, b)
			}
		}
	}
}

// deliverOnly delivers messages of one kind until none is left.
func (w *world) deliverOnly(k Kind) {
	for i := 0; i < len(w.flying); {
		if w.flying[i].message.Kind != k {
			i++
			continue
		}
		w.deliver(i, false)
		i = 0
	}
}

func TestACoordinatorLostBeforeAcknowledgementIsReplaced(t *testing.T) {
	w := newWorld(3, 2, 3, nil)
	w.meet()
	w.deliverOnly(Register)
	w.dead[at(0)] = true // its proposal never arrives
	w.flying = nil
	w.calm()
	for _, name := range []string{at(1), at(2)} {
		if c := w.commits[name]; c.World() != 2 || c.Members[0].Name != at(1) {
			t.Errorf("%s: %v %v", name, c, w.fails)
		}
	}
}

func TestACoordinatorLostBetweenAcknowledgementAndCommitFailsTheGeneration(t *testing.T) {
	w := newWorld(3, 2, 3, nil)
	w.meet()
	w.deliverOnly(Register)
	w.deliverOnly(Propose)
	w.deliverOnly(Ack) // the coordinator commits
	w.dead[at(0)] = true
	w.flying = nil // nobody hears of it
	w.calm()
	for _, name := range []string{at(1), at(2)} {
		if f := w.fails[name]; f.Lost != at(0) || !strings.Contains(f.Cause, "between acknowledgement and commit") {
			t.Errorf("%s: %v, commits %v", name, f, w.commits)
		}
	}
}

func TestAMemberLostBeforeTheCommitIsLeftOutOfTheNextAttempt(t *testing.T) {
	w := newWorld(3, 2, 3, nil)
	w.meet()
	w.deliverOnly(Register)
	w.deliverOnly(Propose) // both are bound
	w.dead[at(2)] = true
	for i := range w.flying { // its acknowledgement is lost, too
		if w.flying[i].from == at(2) {
			w.flying = append(w.flying[:i], w.flying[i+1:]...)
			break
		}
	}
	w.calm()
	for _, name := range []string{at(0), at(1)} {
		if c := w.commits[name]; c.World() != 2 || c.Attempt != 2 {
			t.Errorf("%s: %v %v", name, c, w.fails)
		}
	}
}

func TestTwoCandidatesWithPartialViewsEndInOneGroup(t *testing.T) {
	w := newWorld(4, 3, 4, nil)
	// m2 and m3 see each other only, m0 and m1 each other only; then gossip converges
	w.joined(at(2), w.members[3])
	w.joined(at(3), w.members[2])
	w.joined(at(0), w.members[1])
	w.joined(at(1), w.members[0])
	for len(w.flying) > 0 {
		w.deliver(0, false)
	}
	w.tick(10 * time.Second)
	if len(w.commits) != 0 {
		t.Fatalf("half a world started: %v", w.commits)
	}
	w.calm()
	w.agreed(t, true)
	if len(w.commits) != 4 {
		t.Errorf("%d commits", len(w.commits))
	}
}

func TestAMemberOfAnOldGenerationStops(t *testing.T) {
	w := newWorld(3, 2, 2, func(i int, m *Member) {
		if i == 2 {
			m.Generation = 4
		}
	})
	w.calm()
	if f := w.fails[at(2)]; !strings.Contains(f.Cause, "has begun generation 5, this process belongs to generation 4") {
		t.Errorf("%v", f)
	}
	if len(w.commits) != 2 {
		t.Errorf("the others: %v %v", w.commits, w.fails)
	}
}

func TestTheUniqueIdIsMadeOnceByTheLeadAndReachesAll(t *testing.T) {
	w := newWorld(2, 2, 2, nil)
	for _, m := range w.members {
		w.states[m.Name] = New(Config{Self: m, NeedUnique: true}, w.now)
	}
	w.calm()
	if len(w.commits) != 0 {
		t.Fatal("committed without the unique id")
	}
	w.step(at(0), Unique{At: w.now, Blob: []byte("id")})
	w.calm()
	for _, name := range []string{at(0), at(1)} {
		if c := w.commits[name]; string(c.Unique) != "id" {
			t.Errorf("%s: %q", name, c.Unique)
		}
	}
}
