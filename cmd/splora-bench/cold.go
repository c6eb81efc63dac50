package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/quickstart"
	"github.com/splora/splora/cmd/internal/train"
)

// coldConfig is what the cold command measures.
type coldConfig struct {
	rounds, threads     int
	splora, python, out string
}

func newCold() *cobra.Command {
	var o coldConfig
	c := &cobra.Command{
		Use:   "cold",
		Short: "From the start of the program to the end of its first training step",
		Long: `cold starts splora train on the model that comes with the program, pruned 2:4, with 2 rows of 256 tokens a step, and takes the time from
the start of the process to the end of the first step, and the processor time of the whole process, its end included. Before it,
PyTorch's LoRA of the same shape, where python3 has torch, transformers and peft: from the start of the interpreter to the end of the
first step, the making of random weights left out. Both take turns. The rows are tokenised anew in the first round only.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.IntVar(&o.rounds, "rounds", 7, "measurements of each")
	f.IntVar(&o.threads, "threads", runtime.GOMAXPROCS(0), "threads of each process")
	f.StringVar(&o.splora, "splora", "", "the splora program (default: beside this one)")
	f.StringVar(&o.python, "python", "python3", "interpreter that has torch, transformers and peft")
	f.StringVar(&o.out, "out", "", "file for the raw results, one JSON record a line")
	return c
}

// coldRecord is one start.
type coldRecord struct {
	Kind   string  `json:"kind"`
	Who    string  `json:"who"`
	Round  int     `json:"round"`
	Load   string  `json:"load_average"`
	FirstS float64 `json:"first_step_s"`          // from the start to the end of the first step
	StepS  float64 `json:"step_s,omitempty"`      // of it, the step itself
	WorkS  float64 `json:"processor_s,omitempty"` // processor time of the whole process
}

func (o coldConfig) run(c *cobra.Command) (err error) {
	if o.rounds < 1 || o.threads < 1 {
		return usagef("--rounds, --threads: at least 1")
	}
	if o.splora == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.splora = filepath.Join(filepath.Dir(self), "splora")
	}
	record, err := newRecorder(o.out)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, record.Close()) }()
	p, versions, why := findPeer(c.Context(), o.python)
	if p == nil {
		fmt.Fprintf(c.OutOrStdout(), "no PyTorch beside it: %s\n", why)
	}
	if err := record.write(newHeader(versions)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "splora-cold-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := o.prepare(c.Context(), dir); err != nil {
		return err
	}
	var all []coldRecord
	for round := range o.rounds {
		for _, start := range []func(context.Context, string, *coldRecord) error{o.peerStart(p), o.start} {
			rec := coldRecord{Kind: "cold", Round: round + 1, Load: load()}
			if start == nil {
				continue
			}
			if err := start(c.Context(), dir, &rec); err != nil {
				return err
			}
			all = append(all, rec)
			if err := record.write(rec); err != nil {
				return err
			}
		}
	}
	tellCold(c.OutOrStdout(), all)
	return nil
}

// prepare writes the model, pruned, and a text.
func (o *coldConfig) prepare(ctx context.Context, dir string) error {
	if err := quickstart.WriteModel(filepath.Join(dir, "dense")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "text.txt"), []byte(strings.Repeat("func (r *Reader) Read(b []byte) (n int, err error) {\n", 2000)), 0o644); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, o.splora, "prune", "--model", filepath.Join(dir, "dense"), "--out", filepath.Join(dir, "model"), "--pattern", "2:4", "--pruner", "magnitude").CombinedOutput()
	if err != nil {
		return fmt.Errorf("splora prune: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// start is one of ours.
func (o *coldConfig) start(ctx context.Context, dir string, rec *coldRecord) error {
	rec.Who = whoSplora
	run := filepath.Join(dir, fmt.Sprint("run-", rec.Round))
	c := exec.CommandContext(ctx, o.splora, "train", "--model", filepath.Join(dir, "model"), "--data", filepath.Join(dir, "text.txt"), "--out", run,
		"--cache-dir", filepath.Join(dir, "cache"), "--seq", "256", "--packing", "--too-long", "split", "--micro-batch", "2", "--max-steps", "1", "--threads", fmt.Sprint(o.threads))
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("splora train: %w: %s", err, lastLine(string(out)))
	}
	steps, err := train.ReadMetrics(filepath.Join(run, "metrics.jsonl"))
	if err != nil || len(steps) != 1 {
		return fmt.Errorf("splora train wrote %d steps: %w", len(steps), err)
	}
	rec.FirstS, rec.StepS, rec.WorkS = steps[0].FirstStepS, steps[0].StepS, (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
	return nil
}

// peerStart is one of the peer's, on a shape of the model's size; nil: there is none.
func (o *coldConfig) peerStart(p *peer) func(context.Context, string, *coldRecord) error {
	if p == nil {
		return nil
	}
	return func(ctx context.Context, _ string, rec *coldRecord) error {
		rec.Who = whoTorch
		s := setting{Shape: shape{Hidden: 256, Inter: 704, Layers: 4, Heads: 8, Vocab: 4096, Seq: 256, Batch: 2}, Recompute: "block", Threads: o.threads, Pattern: "2:4", DType: "float32"}
		m, err := p.measure(ctx, s, "lora", cpuConfig{rank: 16, steps: 1})
		rec.FirstS = m.First - m.Making
		return err
	}
}

// tellCold prints least and median of each.
func tellCold(w io.Writer, all []coldRecord) {
	for _, who := range []string{whoTorch, whoSplora} {
		var first, work []float64
		for _, r := range all {
			if r.Who == who {
				first, work = append(first, r.FirstS), append(work, r.WorkS)
			}
		}
		if len(first) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s: the first step is done after %.2f s at least, %.2f s in the median of %d starts", who, slices.Min(first), median(first), len(first))
		if who == whoSplora {
			fmt.Fprintf(w, "; the whole process takes %.2f s of processor time", median(work))
		}
		fmt.Fprintln(w)
	}
}
