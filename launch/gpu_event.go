package launch

import (
	"fmt"
	"time"
)

// EventKind is a sort of fault that the driver reports.
type EventKind string

// Kinds of faults.
const (
	EventXid         EventKind = "xid"                     // a numbered error of the driver
	EventDoubleBit   EventKind = "double-bit ECC error"    // memory that could not be corrected
	EventUnavailable EventKind = "GPU unavailable"         // the GPU cannot be used any more
	EventRecovery    EventKind = "recovery action changed" // the driver now asks for a reset or a reboot
)

// Event is a fault of one GPU.
type Event struct {
	UUID string    `json:"gpu"`
	Kind EventKind `json:"kind"`
	Xid  int       `json:"xid,omitempty"` // of EventXid
	When time.Time `json:"when"`
}

// verdict is what an Xid means for the ranks on its GPU.
type verdict struct {
	fatal bool // the attempt fails
	reset bool // the GPU is not to be used again before a reset
	app   bool // the program's fault: the GPU is well
	what  string
}

// The Xids of which NVIDIA's list says that the GPU or its memory failed, and those that an application causes.
func (e Event) verdict() verdict {
	switch e.Kind {
	case EventDoubleBit:
		return verdict{fatal: true, reset: true, what: "uncorrectable memory error"}
	case EventUnavailable:
		return verdict{fatal: true, reset: true, what: "the driver cannot use it any more"}
	case EventXid:
		return xid(e.Xid)
	}
	return verdict{what: "look at nvidia-smi -q"}
}

func xid(n int) verdict {
	switch n {
	case 48:
		return verdict{fatal: true, reset: true, what: "uncorrectable memory error"}
	case 63:
		return verdict{fatal: true, what: "a failing memory row is being remapped"}
	case 64:
		return verdict{fatal: true, reset: true, what: "a failing memory row could not be remapped"}
	case 74:
		return verdict{fatal: true, what: "NVLink error"}
	case 79:
		return verdict{fatal: true, reset: true, what: "the GPU has fallen off the bus"}
	case 94:
		return verdict{fatal: true, what: "contained memory error: what used that memory cannot go on"}
	case 95:
		return verdict{fatal: true, reset: true, what: "uncontained memory error"}
	case 119, 120:
		return verdict{fatal: true, reset: true, what: "its firmware (GSP) does not answer"}
	case 13:
		return verdict{app: true, what: "a kernel did something illegal"}
	case 31:
		return verdict{app: true, what: "a kernel touched memory that is not its own"}
	case 43:
		return verdict{app: true, what: "the GPU stopped working for a program"}
	case 45:
		return verdict{app: true, what: "the driver cleaned up after a program"}
	case 68:
		return verdict{app: true, what: "video decoder error"}
	}
	return verdict{what: "see NVIDIA's list of Xid errors"}
}

// Fatal tells a fault of the GPU from one of a program, and from a mere notice.
func (e Event) Fatal() bool { return e.verdict().fatal }

func (e Event) String() string {
	v := e.verdict()
	if e.Kind != EventXid {
		return fmt.Sprintf("%s: %s", e.Kind, v.what)
	}
	s := fmt.Sprintf("Xid %d: %s", e.Xid, v.what)
	if v.app {
		s += " (usually the program's fault, not the GPU's)"
	}
	return s
}
