package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	CommBytes    int64   `json:"comm_bytes"` // written to data connections by this rank in this step
	Epoch        float64 `json:"epoch"`
	World        int     `json:"world"`
	Generation   int     `json:"generation"`

	EvalLoss *float64 `json:"eval_loss,omitempty"` // after this step, where an evaluation was due
}

// metrics appends records to metrics.jsonl.
type metrics struct{ f *os.File }

// openMetrics cuts the file back to the records of steps ≤ step and opens it for appending.
func openMetrics(path string, step int) (*metrics, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if keep := cutBack(b, step); len(keep) != len(b) {
		if err := publishFile(path, keep); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &metrics{f}, nil
}

// cutBack is the leading lines of b that are whole records of steps ≤ step.
func cutBack(b []byte, step int) []byte {
	n := 0
	for line := range bytes.Lines(b) {
		var r Record
		if line[len(line)-1] != '\n' || json.Unmarshal(line, &r) != nil || r.Step > step {
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

// ReadMetrics reads a metrics.jsonl; a half-written last line is left out.
func ReadMetrics(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Record
	for s := bufio.NewScanner(f); s.Scan(); {
		var r Record
		if json.Unmarshal(s.Bytes(), &r) != nil {
			break
		}
		out = append(out, r)
	}
	return out, nil
}
