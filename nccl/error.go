package nccl

import "fmt"

// Error of a call, with what NCCL itself says of it.
type Error struct {
	Call   string // "ncclAllReduce"
	Result Result
	Text   string // ncclGetLastError's, "" if it has none
	About  string // ncclGetErrorString's
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = "NCCL gives no detail; NCCL_DEBUG=WARN makes it write one"
	}
	return fmt.Sprintf("nccl: %s: %s (%s): %s", e.Call, e.About, e.Result, text)
}

// Unwrap gives the Result.
func (e *Error) Unwrap() error { return e.Result }

// MissingError: the library does not have an optional call.
type MissingError struct {
	Symbol  string
	Since   Version // the first that has it
	Library string  // path
	Version Version // of the library
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("nccl: %s is NCCL %s, which has no %s: that came with %s", e.Library, e.Version, e.Symbol, e.Since)
}

// HungError: ncclCommAbort did not return within its budget. A thread is stuck in it: only the end of the process helps.
type HungError struct{ Call string }

func (e *HungError) Error() string {
	return fmt.Sprintf("nccl: %s hangs: the process must be ended", e.Call)
}
