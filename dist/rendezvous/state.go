package rendezvous

import (
	"fmt"
	"slices"
	"time"
)

// Config of one member's State.
type Config struct {
	Self       Member
	LastCall   time.Duration // how long registrations must be quiet before fewer than Max start; 0 = 3 s
	Resend     time.Duration // how often an unanswered message is repeated; 0 = 500 ms
	NeedUnique bool          // the lead asks for Assignment.Unique with MakeUnique
}

type phase int

const (
	forming phase = iota
	standing
	failed
)

// State of one member in one generation. Not safe for concurrent use: one goroutine owns it.
type State struct {
	cfg   Config
	self  Member
	now   time.Time
	phase phase
	out   []Action
	cause string // of the failure

	view map[string]Member // living members of this generation, self included
	gone map[string]bool   // lost and not revived: what they sent is ignored

	// as a member
	following string         // where the last Register went
	sent      time.Time      // when the last repeatable message went
	bound     *Assignment    // acknowledged, neither committed nor released
	floor     map[string]int // per lead: attempts up to this one are released

	// as the lead
	registered map[string]Member // self not included
	quiet      time.Time         // last change of registered
	proposal   *Assignment
	acks       map[string]bool
	attempt    int
	unique     []byte
	asked      bool

	done *Assignment // committed
}

// New state of a member that knows only itself. It panics if the limits make no sense.
func New(cfg Config, now time.Time) *State {
	m := cfg.Self
	if m.Name == "" || m.Min < 1 || m.Max < m.Min {
		panic(fmt.Sprintf("rendezvous: member %q with world %d:%d", m.Name, m.Min, m.Max))
	}
	if cfg.LastCall == 0 {
		cfg.LastCall = 3 * time.Second
	}
	if cfg.Resend == 0 {
		cfg.Resend = 500 * time.Millisecond
	}
	return &State{cfg: cfg, self: m, now: now, quiet: now,
		view: map[string]Member{m.Name: m}, gone: map[string]bool{}, floor: map[string]int{},
		registered: map[string]Member{}}
}

// Step takes in one event and returns what it makes necessary.
func (s *State) Step(e Event) []Action {
	if t := e.at(); t.After(s.now) {
		s.now = t
	}
	s.out = nil
	switch e := e.(type) {
	case Joined:
		s.joined(e.Member)
	case Lost:
		s.lost(e.Name, e.Reason)
	case Received:
		s.received(e.From, e.Message)
	case Unique:
		s.unique = e.Blob
	}
	s.advance()
	return s.out
}

func (s *State) joined(m Member) {
	if m.Name == s.self.Name || s.phase == failed {
		return
	}
	if m.Generation > s.self.Generation {
		s.fail(Fail{Lost: m.Name, Late: m.Generation, Cause: fmt.Sprintf("%s has begun generation %d, this process belongs to generation %d: it was replaced and must stop", m, m.Generation, s.self.Generation)})
		return
	}
	if m.Generation == s.self.Generation {
		delete(s.gone, m.Name)
		s.view[m.Name] = m
		s.turnAway(m)
	}
}

// turnAway tells one that comes after the commit, lest it wait for others to register with it.
func (s *State) turnAway(m Member) {
	if s.phase == standing && s.done.lead() == s.self.Name && s.done.Rank(m.Name) < 0 {
		s.send(m.Name, Message{Kind: Reject, Late: s.done.Generation, Reason: fmt.Sprintf("generation %d already stands with %d ranks (max %d): wait for the next generation", s.done.Generation, s.done.World(), s.self.Max)})
	}
}

func (s *State) lost(name, reason string) {
	m, ok := s.view[name]
	if !ok || name == s.self.Name {
		return
	}
	delete(s.view, name)
	s.gone[name] = true
	if _, ok := s.registered[name]; ok {
		delete(s.registered, name)
		s.quiet = s.now
	}
	if s.following == name {
		s.following = ""
	}
	switch {
	case s.phase == standing && s.done.Rank(name) >= 0:
		s.fail(Fail{Lost: name, Cause: fmt.Sprintf("lost %s/%d: %s", m.Host, s.done.Rank(name), reason)})
	case s.phase != forming:
	case s.bound != nil && s.bound.lead() == name:
		s.fail(Fail{Lost: name, Cause: fmt.Sprintf("lost %s, the coordinator, between acknowledgement and commit (%s): start again under the next generation", m, reason)})
	case s.proposal != nil && s.proposal.Rank(name) >= 0:
		s.abandon()
	}
}

// advance does what the present state allows without any further event.
func (s *State) advance() {
	if s.phase != forming {
		return
	}
	if s.bound != nil {
		if s.due() {
			s.send(s.bound.lead(), Message{Kind: Ack, Attempt: s.bound.Attempt})
		}
		return
	}
	if lead := s.lead(); lead.Name != s.self.Name {
		s.follow(lead)
		return
	}
	s.following = ""
	if s.proposal == nil {
		s.propose()
	}
	if s.proposal != nil {
		s.press()
	}
}

// lead is the lowest living member.
func (s *State) lead() Member {
	low := s.self
	for _, m := range s.view {
		if order(m, low) < 0 {
			low = m
		}
	}
	return low
}

// follow registers with the lead, at once if it is new and again every Resend.
func (s *State) follow(lead Member) {
	if s.proposal != nil {
		s.abandon()
	}
	clear(s.registered)
	if s.following != lead.Name || s.due() {
		s.following = lead.Name
		me := s.self
		s.send(lead.Name, Message{Kind: Register, Member: &me})
	}
}

// propose makes a proposal if enough members have registered, or fails all if they can never be a group.
func (s *State) propose() {
	ms := s.candidates()
	full := len(ms) >= s.self.Max
	settled := s.now.Sub(s.quiet) >= s.cfg.LastCall
	if !full && !settled {
		return
	}
	if why := mismatch(ms); why != "" {
		s.failAll("the ranks do not belong together: " + why)
		return
	}
	if why := doubled(ms); why != "" {
		if settled {
			s.failAll(why)
		}
		return
	}
	if !s.enough(ms) || !s.haveUnique() {
		return
	}
	s.attempt++
	s.proposal = &Assignment{Generation: s.self.Generation, Attempt: s.attempt, Unique: s.unique, Members: ms[:min(len(ms), s.self.Max)]}
	s.acks = map[string]bool{s.self.Name: true}
	s.sent = time.Time{}
}

// candidates are the registered and self, in order of rank.
func (s *State) candidates() []Member {
	ms := []Member{s.self}
	for _, m := range s.registered {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, order)
	return ms
}

// enough: world ≥ min and more than half of the last committed world, so that two halves of a split never both start.
func (s *State) enough(ms []Member) bool {
	previous := 0
	for _, m := range ms {
		previous = max(previous, m.Previous)
	}
	n := min(len(ms), s.self.Max)
	return n >= s.self.Min && 2*n > previous
}

func (s *State) haveUnique() bool {
	if !s.cfg.NeedUnique || s.unique != nil {
		return true
	}
	if !s.asked {
		s.asked = true
		s.out = append(s.out, MakeUnique{})
	}
	return false
}

// press repeats the proposal to those who have not acknowledged it, and commits when none is left.
func (s *State) press() {
	p := s.proposal
	if len(s.acks) < p.World() {
		if s.due() {
			for _, m := range p.Members {
				if !s.acks[m.Name] {
					s.send(m.Name, Message{Kind: Propose, Attempt: p.Attempt, Assignment: p})
				}
			}
		}
		return
	}
	for _, m := range p.Members[1:] {
		s.send(m.Name, Message{Kind: Committed, Attempt: p.Attempt})
	}
	s.proposal = nil
	s.commit(p)
}

func (s *State) commit(a *Assignment) {
	s.phase, s.done, s.bound = standing, a, nil
	s.out = append(s.out, Commit{Assignment: *a})
}

// abandon gives up the proposal for good and tells so.
func (s *State) abandon() {
	p := s.proposal
	s.proposal = nil
	for _, m := range p.Members {
		if m.Name != s.self.Name {
			s.send(m.Name, Message{Kind: Release, Attempt: p.Attempt})
		}
	}
}

func (s *State) fail(f Fail) {
	if s.phase != failed {
		s.phase, s.cause = failed, f.Cause
		s.out = append(s.out, f)
	}
}

// failAll fails every registered member with the same words.
func (s *State) failAll(cause string) {
	for _, name := range sortedKeys(s.registered) {
		s.send(name, Message{Kind: Reject, Reason: cause})
	}
	s.fail(Fail{Cause: cause})
}

// send addresses a living member; what would go to a dead one is dropped.
func (s *State) send(to string, m Message) {
	if peer, ok := s.view[to]; ok {
		s.out = append(s.out, Send{To: to, Control: peer.Control, Message: m})
	}
}

// due says once per Resend that an unanswered message should be repeated.
func (s *State) due() bool {
	if s.now.Sub(s.sent) < s.cfg.Resend {
		return false
	}
	s.sent = s.now
	return true
}
