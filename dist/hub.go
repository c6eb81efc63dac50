package dist

import (
	"encoding/json"
	"fmt"
)

// Control frames of a standing group: rank 0 is the hub, it compares and gathers what the others say and passes it on.

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
