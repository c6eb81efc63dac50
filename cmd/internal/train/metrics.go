package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Record is one line of metrics.jsonl: one optimizer step.
type Record struct {
	Step         int     `json:"step"`
	Loss         float64 `json:"loss"`      // Σ over the active tokens of the global batch / their number
	GradNorm     float64 `json:"grad_norm"` // before clipping
	LR           float64 `json:"lr"`
	Tokens       int64   `json:"tokens"` // active, all ranks
	StepS        float64 `json:"step_s"`
	TokensPerS   float64 `json:"tokens_per_s"` // active, all ranks
	PeakRSSBytes int64   `json:"peak_rss_bytes"`
	CommBytes    int64   `json:"comm_bytes"` // written to data connections by this rank in this step, and the bytes of vectors that NCCL reduced
	Epoch        float64 `json:"epoch"`
	World        int     `json:"world"`
	Generation   int     `json:"generation"`

	FirstStepS float64 `json:"first_step_s,omitempty"` // of a process's first step: from the start of the process to its end

	EvalLoss *float64 `json:"eval_loss,omitempty"` // after this step, where an evaluation was due

	*GPU // absent on a CPU
}

// metrics appends records to metrics.jsonl. Its lock, which the kernel frees when the process ends, keeps a second run out.
type metrics struct{ f *os.File }

// lockLease is how long a network file system may keep the lock of a host that died.
const lockLease = 2 * time.Minute

// openMetrics opens the file for appending, and waits so long for a run that has it open already.
func openMetrics(path string, patience time.Duration) (*metrics, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		// Any other error: a file system without locks.
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return &metrics{f}, nil
		}
		if time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("another run is writing to %s: wait for its end, or choose another --out", filepath.Dir(path))
		}
	}
}

// cut drops what follows the records of steps ≤ step.
func (m *metrics) cut(step int) error {
	b, err := io.ReadAll(m.f)
	if err != nil {
		return err
	}
	return m.f.Truncate(int64(len(cutBack(b, step))))
}

// cutBack is the lines of b before the first record of a step > step, without a torn last line. A line that is no record stays: the
// records behind it are still this run's.
func cutBack(b []byte, step int) []byte {
	n := 0
	for line := range bytes.Lines(b) {
		var r Record
		if line[len(line)-1] != '\n' || json.Unmarshal(line, &r) == nil && r.Step > step {
			break
		}
		n += len(line)
	}
	return b[:n]
}

func (m *metrics) append(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("metrics.jsonl: step %d: %w", r.Step, err)
	}
	if _, err = m.f.Write(append(b, '\n')); err != nil {
		return explain(err)
	}
	return nil
}

func (m *metrics) Close() error { return m.f.Close() }

// ReadMetrics reads a metrics.jsonl; lines that are no whole records are left out.
func ReadMetrics(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Record
	for line := range bytes.Lines(b) {
		var r Record
		if json.Unmarshal(line, &r) == nil {
			out = append(out, r)
		}
	}
	return out, nil
}
