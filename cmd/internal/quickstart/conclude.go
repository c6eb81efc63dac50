package quickstart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

// conclude prints the table and holds the promises against what was seen.
func (s *story) conclude() error {
	gap := s.PrunedPPL - s.DensePPL
	s.Closed, s.ClosedBy = (s.PrunedPPL-s.SPLoRAPPL)/gap, (s.PrunedPPL-s.LoRAPPL)/gap
	s.Merged = s.path("merged")
	s.title("What it was worth")
	s.table()
	fmt.Fprintf(s.Stdout, "\n%s tokens/s on %d ranks, peak memory %s per rank, %s sent per step and rank; %.0f s in all, %.0f s of it the SP-LoRA run\n",
		humanize.Comma(int64(s.TokensPerS)), s.Ranks, humanize.Bytes(uint64(s.PeakRSSBytes)), humanize.Bytes(uint64(s.CommBytes)), s.Seconds, s.TrainS)
	s.Promises = s.promises()
	var broken error
	for _, p := range s.Promises {
		mark := "kept  "
		if !p.Kept {
			mark, broken = "BROKEN", errors.New("quickstart: a promise was not kept")
		}
		fmt.Fprintf(s.Stdout, "%s  %s: %s\n", mark, p.Claim, p.Seen)
	}
	if err := errors.Join(broken, s.record()); err != nil {
		return err
	}
	fmt.Fprintf(s.Stdout, "\nThe merged model is an ordinary Hugging Face folder: %s\nTry: splora generate --model %s --prompt 'func (r *Reader) Read('\n", s.Merged, s.Merged)
	return nil
}

// table prints the models side by side.
func (s *story) table() {
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "model\theld-out perplexity\tnon-zero weights\tgap closed\n")
	fmt.Fprintf(w, "dense\t%.3f\t100 %%\t\n", s.DensePPL)
	fmt.Fprintf(w, "pruned (Wanda 2:4)\t%.3f\t50 %%\t\n", s.PrunedPPL)
	fmt.Fprintf(w, "pruned + SP-LoRA, merged\t%.3f\t%.0f %%\t%.0f %%\n", s.SPLoRAPPL, 100*s.Density, 100*s.Closed)
	fmt.Fprintf(w, "pruned + plain LoRA, merged\t%.3f\t%.0f %%\t%.0f %%\n", s.LoRAPPL, 100*s.DensityLoRA, 100*s.ClosedBy)
	fmt.Fprintf(w, "dense + LoRA (control)\t%.3f\t100 %%\t\n", s.ControlPPL)
	w.Flush()
}

// record writes quickstart.json.
func (s *story) record() error {
	b, err := json.MarshalIndent(s.Result, "", "  ")
	if err == nil {
		err = os.WriteFile(s.path("quickstart.json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("quickstart: quickstart.json: %w", err)
	}
	return nil
}

// promises are what the README says of the quick start, but for its time, which depends on the machine.
func (s *story) promises() []Claim {
	hurt := s.PrunedPPL/s.DensePPL - 1
	return []Claim{
		{"pruning hurts visibly (perplexity at least 10 % above dense)", fmt.Sprintf("%.1f %%", 100*hurt), hurt >= 0.10},
		{"SP-LoRA closes at least 60 % of the gap", fmt.Sprintf("%.1f %%", 100*s.Closed), s.Closed >= 0.60},
		{"every pruned weight is still exactly zero", fmt.Sprintf("%d of %d are not", s.Extra, s.PrunedWeights), s.Extra == 0 && s.PrunedWeights > 0},
		{"plain LoRA with the same budget merges to a dense model", fmt.Sprintf("density %.2f %%", 100*s.DensityLoRA), s.DensityLoRA > 0.99},
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// lines passes on whole lines that keep wants.
type lines struct {
	w    io.Writer
	keep func(line string) bool
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := string(l.rest[:i])
		l.rest = l.rest[i+1:]
		if l.keep(line) {
			if _, err := fmt.Fprintln(l.w, strings.TrimRight(line, "\r")); err != nil {
				return 0, err
			}
		}
	}
}
