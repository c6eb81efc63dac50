package rendezvous

import "time"

// Event is something that happened to this member. At carries the time; it must not run backwards by much (an
// earlier At is taken as the latest seen).
type Event interface{ at() time.Time }

type (
	// Joined: gossip says that this member lives. Repeat it at will.
	Joined struct {
		At     time.Time
		Member Member
	}
	// Lost: the member is dead (gossip) or its control connection broke. A later Joined revives it.
	Lost struct {
		At     time.Time
		Name   string
		Reason string
	}
	// Received: a message came in from an authenticated member.
	Received struct {
		At      time.Time
		From    string
		Message Message
	}
	// Tick: time passed. Once or more per Config.Resend.
	Tick struct{ At time.Time }
	// Unique answers MakeUnique.
	Unique struct {
		At   time.Time
		Blob []byte
	}
)

func (e Joined) at() time.Time   { return e.At }
func (e Lost) at() time.Time     { return e.At }
func (e Received) at() time.Time { return e.At }
func (e Tick) at() time.Time     { return e.At }
func (e Unique) at() time.Time   { return e.At }

// Action is something that the caller must do, in the order given.
type Action interface{ action() }

type (
	// Send the message to the member at address Control. It may be lost: it is sent again while it matters.
	Send struct {
		To      string
		Control string
		Message Message
	}
	// Commit: the group stands. At most once per State.
	Commit struct{ Assignment Assignment }
	// Fail: it never will, or no longer does. At most once per State.
	Fail struct {
		Lost  string // name of the member whose loss is the cause, "" if there is none
		Late  int    // the generation under way that this member has no part in, 0 if that is not the cause
		Cause string
	}
	// MakeUnique: answer with Unique. Only on the lead, and only with Config.NeedUnique.
	MakeUnique struct{}
)

func (Send) action()       {}
func (Commit) action()     {}
func (Fail) action()       {}
func (MakeUnique) action() {}

// Kind of a message.
type Kind string

const (
	Register  Kind = "register"  // Member
	Propose   Kind = "propose"   // Assignment
	Ack       Kind = "ack"       // Attempt
	Refuse    Kind = "refuse"    // Attempt: bound to, or following, another lead
	Committed Kind = "committed" // Attempt
	Release   Kind = "release"   // Attempt and all before it are never committed
	Reject    Kind = "reject"    // Reason: you cannot be in this group; Late: because that generation is under way
)

// Message between members. Only the fields that its Kind names are set.
type Message struct {
	Kind       Kind        `json:"kind"`
	Attempt    int         `json:"attempt,omitempty"`
	Reason     string      `json:"reason,omitempty"`
	Late       int         `json:"late,omitempty"`
	Member     *Member     `json:"member,omitempty"`
	Assignment *Assignment `json:"assignment,omitempty"`
}
