package rendezvous

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a simulated network: members, messages under way, and one clock. Nothing happens by itself.
type world struct {
	now     time.Time
	members []Member
	states  map[string]*State
	dead    map[string]bool
	flying  []flight
	commits map[string]Assignment
	fails   map[string]Fail
}

type flight struct {
	from, to string
	message  Message
}

func at(i int) string { return fmt.Sprintf("m%d", i) }

func newWorld(n, lo, hi int, change func(i int, m *Member)) *world {
	w := &world{now: time.Unix(1000, 0), states: map[string]*State{}, dead: map[string]bool{}, commits: map[string]Assignment{}, fails: map[string]Fail{}}
	for i := range n {
		m := Member{Name: at(i), Host: fmt.Sprintf("h%d", i/2), Node: i / 2, Local: i % 2, Control: "addr-" + at(i), Generation: 5, Min: lo, Max: hi}
		if change != nil {
			change(i, &m)
		}
		w.members = append(w.members, m)
		w.states[m.Name] = New(Config{Self: m, LastCall: 3 * time.Second, Resend: time.Second}, w.now)
	}
	return w
}

// step feeds a living member and collects what it does. Messages cross the wire as JSON.
func (w *world) step(name string, e Event) {
	if w.dead[name] {
		return
	}
	for _, a := range w.states[name].Step(e) {
		switch a := a.(type) {
		case Send:
			if a.Control != "addr-"+a.To {
				panic("sent to the wrong address " + a.Control)
			}
			b, _ := json.Marshal(a.Message)
			f := flight{from: name, to: a.To}
			if err := json.Unmarshal(b, &f.message); err != nil {
				panic(err)
			}
			w.flying = append(w.flying, f)
		case Commit:
			if _, twice := w.commits[name]; twice {
				panic(name + " commits twice")
			}
			w.commits[name] = a.Assignment
		case Fail:
			if _, twice := w.fails[name]; twice {
				panic(name + " fails twice")
			}
			w.fails[name] = a
		}
	}
}

func (w *world) deliver(i int, keep bool) {
	f := w.flying[i]
	if !keep {
		w.flying = append(w.flying[:i], w.flying[i+1:]...)
	}
	w.step(f.to, Received{At: w.now, From: f.from, Message: f.message})
}

func (w *world) tick(d time.Duration) {
	w.now = w.now.Add(d)
	for _, m := range w.members {
		w.step(m.Name, Tick{At: w.now})
	}
}

func (w *world) joined(at string, m Member) { w.step(at, Joined{At: w.now, Member: m}) }
func (w *world) lost(at, name string)       { w.step(at, Lost{At: w.now, Name: name, Reason: "test"}) }

// calm: gossip tells the truth everywhere and messages flow in order, for 20 s.
func (w *world) calm() {
	for range 20 {
		for _, a := range w.members {
			for _, b := range w.members {
				switch {
				case a.Name == b.Name:
				case w.dead[b.Name]:
					w.lost(a.Name, b.Name)
				default:
					w.joined(a.Name, b)
				}
			}
		}
		for len(w.flying) > 0 {
			w.deliver(0, false)
		}
		w.tick(time.Second)
	}
}

// agreed fails unless any two commits with a common member are the same; all commits if global.
func (w *world) agreed(t interface{ Fatalf(string, ...any) }, global bool) {
	for a, x := range w.commits {
		if x.Rank(a) < 0 {
			t.Fatalf("%s commits an assignment that it is not in: %v", a, x)
		}
		for b, y := range w.commits {
			if shared := global || y.Rank(a) >= 0 || x.Rank(b) >= 0; shared && !reflect.DeepEqual(x, y) {
				t.Fatalf("%s commits %v\n%s commits %v", a, x, b, y)
			}
		}
	}
}

func (w *world) sorted(t interface{ Fatalf(string, ...any) }) {
	for name, a := range w.commits {
		if !sort.SliceIsSorted(a.Members, func(i, j int) bool { return order(a.Members[i], a.Members[j]) < 0 }) {
			t.Fatalf("%s: ranks are not in order: %v", name, a.Members)
		}
		if len(a.Members) < a.Members[0].Min || len(a.Members) > a.Members[0].Max || a.Generation != 5 {
			t.Fatalf("%s: %v", name, a)
		}
	}
}

// chaos draws events: any message next, twice or never; gossip late, false or true; deaths; time.
func (w *world) chaos(t *rapid.T, deaths, lies bool) {
	pick := func(what string) Member { return w.members[rapid.IntRange(0, len(w.members)-1).Draw(t, what)] }
	for range rapid.IntRange(0, 120).Draw(t, "events") {
		switch kind := rapid.IntRange(0, 11).Draw(t, "kind"); {
		case kind <= 5 && len(w.flying) > 0:
			w.deliver(rapid.IntRange(0, len(w.flying)-1).Draw(t, "message"), rapid.IntRange(0, 4).Draw(t, "again") == 0)
		case kind == 6 && len(w.flying) > 0:
			i := rapid.IntRange(0, len(w.flying)-1).Draw(t, "dropped")
			w.flying = append(w.flying[:i], w.flying[i+1:]...)
		case kind <= 8:
			if a, b := pick("who"), pick("sees"); a.Name != b.Name {
				w.joined(a.Name, b)
			}
		case kind == 9:
			w.tick(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
		case kind == 10 && deaths && rapid.IntRange(0, 3).Draw(t, "die") == 0:
			w.dead[pick("dies").Name] = true
		case kind == 11:
			if a, b := pick("who"), pick("misses"); a.Name != b.Name && (lies || w.dead[b.Name]) {
				w.lost(a.Name, b.Name)
			}
		}
	}
}

// check draws 500 runs; the rarest known mistakes show once in a few hundred.
func check(t *testing.T, f func(*rapid.T)) {
	for range 5 {
		rapid.Check(t, f)
	}
}

func TestNoTwoMembersEverCommitDifferentAssignments(t *testing.T) {
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		hi := rapid.IntRange(1, n+1).Draw(t, "max")
		lo := rapid.IntRange(min(n/2+1, hi), hi).Draw(t, "min") // more than half of all that exist
		w := newWorld(n, lo, hi, nil)
		global := 2*lo > n
		w.chaos(t, true, true)
		w.agreed(t, global)
		w.calm()
		w.agreed(t, global)
		w.sorted(t)
	})
}

func TestTwoHalvesOfASplitWorldNeverBothStart(t *testing.T) {
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "n")
		w := newWorld(n, 1, n, func(_ int, m *Member) { m.Previous = n }) // min 1, but n were there
		w.chaos(t, true, true)
		w.agreed(t, true)
		w.calm()
		w.agreed(t, true)
	})
}

func TestWhateverHappenedBeforeALivingQuorumFormsOrSaysWhyNot(t *testing.T) {
	formed := 0
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "n")
		w := newWorld(n, n/2+1, n, nil)
		w.chaos(t, true, false)
		w.calm()
		living := 0
		for _, m := range w.members {
			if !w.dead[m.Name] {
				living++
			}
		}
		for name, f := range w.fails {
			if !w.dead[name] && len(w.commits) == 0 && !w.causedByDeath(f) {
				t.Fatalf("%s failed without a death: %v", name, f)
			}
		}
		if len(w.fails) > 0 || living < n/2+1 {
			return
		}
		formed++
		for _, m := range w.members {
			if c, ok := w.commits[m.Name]; !w.dead[m.Name] && (!ok || c.World() < n/2+1) {
				t.Fatalf("%s of %d living did not commit: %s", m.Name, living, w.states[m.Name].Status())
			}
		}
	})
	if formed == 0 {
		t.Fatal("no run ever formed a group: the test proves nothing")
	}
}

// causedByDeath: of its own knowledge, or told by one that failed of it.
func (w *world) causedByDeath(f Fail) bool {
	for _, g := range w.fails {
		if g.Cause == f.Cause && w.dead[g.Lost] {
			return true
		}
	}
	return false
}

func TestWithoutDeathsAllMembersAlwaysFormTheFullWorld(t *testing.T) {
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "n")
		w := newWorld(n, n, n, nil)
		w.chaos(t, false, false)
		w.calm()
		w.agreed(t, true)
		for i, m := range w.members {
			if c, ok := w.commits[m.Name]; !ok || c.World() != n || c.Rank(m.Name) != i {
				t.Fatalf("%s: %v, %s", m.Name, c, w.states[m.Name].Status())
			}
		}
	})
}
