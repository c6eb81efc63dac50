package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrStopped is returned by Run when the ranks stopped on a signal, with a checkpoint published unless it came before the first step.
var ErrStopped = errors.New("launch: stopped on a signal: run again to go on")

// Report is what happened, from the first start to the last exit. It holds no key.
type Report struct {
	Job      string    `json:"job"`
	Host     string    `json:"host"`
	NodeRank int       `json:"node_rank"`
	Program  string    `json:"program"`
	Args     []string  `json:"args"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exit_code"`       // ExitDone, ExitFailed, ExitUsage or ExitStopped
	Reason   string    `json:"reason"`          // one line: why it ended, and why it was not tried again
	First    *Failure  `json:"first,omitempty"` // the last attempt's first failure
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one start of all ranks.
type Attempt struct {
	Number     int       `json:"attempt"` // 1, 2, …
	Generation int       `json:"generation"`
	Start      time.Time `json:"start"`
	End        time.Time `json:"end"`
	Step       int       `json:"step"`           // largest step that a rank reported; −1 = none
	Late       int       `json:"late,omitempty"` // the generation under way that had no place for a rank; 0 = none
	Ranks      []Exit    `json:"ranks"`
	First      *Failure  `json:"first,omitempty"`
	Events     []Event   `json:"gpu_events,omitempty"` // faults that the driver reported of the ranks' GPUs
}

// Exit is how one rank process ended.
type Exit struct {
	Rank      int       `json:"rank"` // global rank; −1 = never known here
	LocalRank int       `json:"local_rank"`
	GPU       string    `json:"gpu,omitempty"` // UUID
	PID       int       `json:"pid"`
	Code      int       `json:"code"`             // exit code; −1 when a signal ended it
	Signal    string    `json:"signal,omitempty"` // SIGKILL, …
	ByUs      bool      `json:"by_us,omitempty"`  // the launcher had asked it to end
	MaxRSS    int64     `json:"max_rss_bytes,omitempty"`
	When      time.Time `json:"when"`
	Orphans   int       `json:"orphans,omitempty"` // processes that it left behind and that were killed
}

// Failure is why an attempt failed.
type Failure struct {
	Exit
	Step   int      `json:"step"`             // −1 = not reported
	Reason string   `json:"reason"`           // the rank's own error, or what its exit code or signal says
	Stderr []string `json:"stderr,omitempty"` // its last lines

	GPUFault string `json:"gpu_fault,omitempty"` // the fault of its GPU that ended the attempt

	crash bool // a panic, or a crash of the runtime or of C code
}

// Error is one line: which rank, where, how, why.
func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString("launch: ")
	if f.Rank >= 0 {
		fmt.Fprintf(&b, "rank %d", f.Rank)
	} else {
		fmt.Fprintf(&b, "local rank %d", f.LocalRank)
	}
	if f.PID > 0 {
		fmt.Fprintf(&b, " (pid %d)", f.PID)
	}
	b.WriteString(" failed")
	if f.Step >= 0 {
		fmt.Fprintf(&b, " at step %d", f.Step)
	}
	if f.PID > 0 {
		fmt.Fprintf(&b, ": %s", f.how())
	}
	return b.String() + ": " + f.Reason
}

func (f *Failure) how() string {
	if f.Signal != "" {
		return f.Signal
	}
	return fmt.Sprintf("exit code %d", f.Code)
}

// failed tells an exit that is neither done nor stopped.
func (e Exit) failed() bool { return e.Code != ExitDone && e.Code != ExitStopped }

// stopped tells whether a rank of an attempt without failures stopped on a signal.
func (a Attempt) stopped() bool {
	return slices.ContainsFunc(a.Ranks, func(e Exit) bool { return e.Code == ExitStopped })
}

// step is the largest that a rank reported, each with a checkpoint.
func (r *Report) step() int {
	return slices.MaxFunc(r.Attempts, func(a, b Attempt) int { return a.Step - b.Step }).Step
}

// usage: the rank's exit code says that trying again is of no use. Go's panics and crashes in C code end
// with that code, too, and are told apart by what they print.
func usage(f *Failure) bool { return f.Code == ExitUsage && !f.crash }

// publish writes exit-report.json if there is a LogDir.
func (l *launcher) publish() error {
	if l.LogDir == "" {
		return nil
	}
	b, err := json.MarshalIndent(l.report, "", "  ")
	if err != nil {
		return fmt.Errorf("launch: exit report: %w", err)
	}
	return writeAtomic(filepath.Join(l.dir, "exit-report.json"), append(b, '\n'), true)
}
