package rendezvous

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Member is what one process says of itself.
type Member struct {
	Name        string            `json:"name"`        // unique per incarnation
	Host        string            `json:"host"`        // for people and for the order of ranks
	Node        int               `json:"node"`        // node rank, from the launcher; −1 = unknown
	Local       int               `json:"local"`       // local rank on its node
	Control     string            `json:"control"`     // host:port that takes control connections
	Data        string            `json:"data"`        // host:port that takes data connections
	Generation  int               `json:"generation"`  // from the launcher; members of different generations never mix
	Min         int               `json:"min"`         // smallest world that may start
	Max         int               `json:"max"`         // largest; reached, the group forms at once
	Previous    int               `json:"previous"`    // last committed world, 0 = unknown
	Fingerprint map[string]string `json:"fingerprint"` // must be equal on all: "model" → hash, "config" → hash, …
}

// String is host/local: the name for people.
func (m Member) String() string { return fmt.Sprintf("%s/%d", m.Host, m.Local) }

// order of ranks; names break ties so that all members agree on it.
func order(a, b Member) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), strings.Compare(a.Host, b.Host),
		cmp.Compare(a.Local, b.Local), strings.Compare(a.Name, b.Name))
}

// seat tells whether two members claim the same place.
func sameSeat(a, b Member) bool { return a.Node == b.Node && a.Host == b.Host && a.Local == b.Local }

// Assignment is what all members agree on. The index in Members is the rank; rank 0 is the lead that proposed it.
type Assignment struct {
	Generation int      `json:"generation"`
	Attempt    int      `json:"attempt"`
	Members    []Member `json:"members"`
	Unique     []byte   `json:"unique,omitempty"` // opaque id made in rank 0's process (NCCL)
}

// World is the number of ranks.
func (a *Assignment) World() int { return len(a.Members) }

// Rank of the named member, −1 if it has none.
func (a *Assignment) Rank(name string) int {
	return slices.IndexFunc(a.Members, func(m Member) bool { return m.Name == name })
}

func (a *Assignment) lead() string { return a.Members[0].Name }

// parts are the fingerprint with the world's limits, which must be equal, too.
func parts(m Member) map[string]string {
	p := map[string]string{"world": fmt.Sprintf("%d:%d", m.Min, m.Max)}
	for k, v := range m.Fingerprint {
		p[k] = v
	}
	return p
}

// mismatch says which parts differ between whom, "" if none does. The text is the same for any order of ms.
func mismatch(ms []Member) string {
	names := map[string]bool{}
	for _, m := range ms {
		for k := range parts(m) {
			names[k] = true
		}
	}
	var out []string
	for _, k := range sortedKeys(names) {
		if d := differing(k, ms); d != "" {
			out = append(out, d)
		}
	}
	return strings.Join(out, "; ")
}

// differing is "model differs: 1f3a… on h0/0, h0/1, but 77b2… on h1/0", or "".
func differing(part string, ms []Member) string {
	who := map[string][]string{}
	for _, m := range ms {
		v := parts(m)[part]
		who[v] = append(who[v], m.String())
	}
	if len(who) < 2 {
		return ""
	}
	var sides []string
	for v, hs := range who {
		sort.Strings(hs)
		sides = append(sides, fmt.Sprintf("%s on %s", short(v), strings.Join(hs, ", ")))
	}
	sort.Strings(sides)
	return fmt.Sprintf("%s differs: %s", part, strings.Join(sides, ", but "))
}

func short(v string) string {
	if v == "" {
		return "none"
	}
	if len(v) > 16 {
		return v[:16] + "…"
	}
	return v
}

// doubled says which two members claim one seat, "" if none do. ms is in order.
func doubled(ms []Member) string {
	for i := 1; i < len(ms); i++ {
		if a, b := ms[i-1], ms[i]; sameSeat(a, b) {
			return fmt.Sprintf("two processes claim node rank %d, local rank %d: %s and %s; give each its own node rank", a.Node, a.Local, a.Name, b.Name)
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}
