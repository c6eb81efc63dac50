package rendezvous

import "fmt"

func (s *State) received(from string, m Message) {
	if s.gone[from] {
		return
	}
	switch m.Kind {
	case Register:
		if m.Member != nil && m.Member.Name == from {
			s.onRegister(*m.Member)
		}
	case Propose:
		if m.Assignment != nil && len(m.Assignment.Members) > 0 && m.Assignment.lead() == from {
			s.onPropose(from, m.Assignment)
		}
	case Ack:
		s.onAck(from, m.Attempt)
	case Refuse:
		if s.proposal != nil && s.proposal.Attempt == m.Attempt && s.proposal.Rank(from) > 0 {
			delete(s.registered, from)
			s.quiet = s.now
			s.abandon()
		}
	case Committed:
		if b := s.bound; b != nil && b.lead() == from && b.Attempt == m.Attempt && s.phase == forming {
			s.commit(b)
		}
	case Release:
		s.floor[from] = max(s.floor[from], m.Attempt)
		if b := s.bound; b != nil && b.lead() == from && b.Attempt <= m.Attempt {
			s.bound, s.following = nil, ""
		}
	case Reject:
		if s.phase == forming && s.bound == nil && s.proposal == nil {
			s.fail(Fail{Late: m.Late, Cause: m.Reason})
		}
	}
}

func (s *State) onRegister(m Member) {
	if m.Generation < s.self.Generation {
		s.out = append(s.out, Send{To: m.Name, Control: m.Control, Message: Message{Kind: Reject, Late: s.self.Generation,
			Reason: fmt.Sprintf("this process belongs to generation %d, the group to generation %d: it was replaced and must stop", m.Generation, s.self.Generation)}})
		return
	}
	s.joined(m)
	switch s.phase {
	case failed:
		s.out = append(s.out, Send{To: m.Name, Control: m.Control, Message: Message{Kind: Reject, Reason: s.cause}})
	case standing: // joined has turned it away
	case forming:
		if s.bound != nil || s.lead().Name != s.self.Name {
			return // it will register again, with whom it then sees
		}
		if _, known := s.registered[m.Name]; !known {
			s.quiet = s.now
		}
		s.registered[m.Name] = m
	}
}

func (s *State) onPropose(from string, a *Assignment) {
	if s.phase != forming || a.Attempt <= s.floor[from] || a.Generation != s.self.Generation || a.Rank(s.self.Name) < 0 {
		return
	}
	mine := s.bound != nil && s.bound.lead() == from
	switch {
	case mine && a.Attempt < s.bound.Attempt: // overtaken by a later one
	case mine, s.bound == nil && s.proposal == nil && s.lead().Name == from:
		s.bound, s.sent = a, s.now
		s.send(from, Message{Kind: Ack, Attempt: a.Attempt})
	default:
		s.send(from, Message{Kind: Refuse, Attempt: a.Attempt})
	}
}

// onAck counts the acknowledgement. One that fits nothing any more is released, so that its sender is free again.
func (s *State) onAck(from string, attempt int) {
	switch {
	case s.proposal != nil && s.proposal.Attempt == attempt && s.proposal.Rank(from) > 0:
		s.acks[from] = true
	case s.done != nil && s.done.lead() == s.self.Name && s.done.Attempt == attempt:
		s.send(from, Message{Kind: Committed, Attempt: attempt})
	default:
		s.send(from, Message{Kind: Release, Attempt: attempt})
	}
}
