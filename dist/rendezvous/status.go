package rendezvous

import (
	"fmt"
	"slices"
	"strings"
)

// Status is one line for an error that says how far this member got.
func (s *State) Status() string {
	lead := s.lead()
	var b strings.Builder
	switch {
	case s.phase == failed:
		return s.cause
	case s.phase == standing:
		return fmt.Sprintf("generation %d stands with %d ranks", s.done.Generation, s.done.World())
	case s.bound != nil:
		fmt.Fprintf(&b, "%d of %d members acknowledged to %s, which did not commit yet", s.bound.World(), s.self.Max, s.view[s.bound.lead()])
	case s.proposal != nil:
		fmt.Fprintf(&b, "%d of %d members have acknowledged", len(s.acks), s.proposal.World())
	case lead.Name == s.self.Name:
		ms := s.candidates()
		fmt.Fprintf(&b, "%d of %s members have registered: %s", len(ms), s.want(), join(ms))
		if why := mismatch(ms); why != "" {
			fmt.Fprintf(&b, "; %s", why)
		}
		if len(ms) >= s.self.Min && !s.enough(ms) {
			b.WriteString("; not more than half of the last world, so the other half could start, too")
		}
	default:
		fmt.Fprintf(&b, "%d of %s members seen: %s; registered with %s, which waits for the others", len(s.view), s.want(), join(s.living()), lead)
	}
	return b.String()
}

func (s *State) want() string {
	if s.self.Min == s.self.Max {
		return fmt.Sprint(s.self.Max)
	}
	return fmt.Sprintf("%d to %d", s.self.Min, s.self.Max)
}

func (s *State) living() []Member {
	var ms []Member
	for _, m := range s.view {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, order)
	return ms
}

func join(ms []Member) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.String())
	}
	return strings.Join(out, ", ")
}
