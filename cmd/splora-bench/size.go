package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/family"
)

// sizeRuns is what the size command runs unless told otherwise: shape, row length, rank, compute type, recomputation and memory vary.
var sizeRuns = []string{
	"512x512", "512x512:recompute=none:memory=reuse", "512x512:rank=128", "512x2048:recompute=none", "1024x512:dtype=bfloat16",
	"1024x512:dtype=bfloat16:recompute=none:rank=64", "1024x2048", "2048x512:memory=reuse", "2048x512:dtype=bfloat16:memory=reuse", "7bx256", "7bx256:dtype=bfloat16", "13bx256",
}

// sizeConfig is what the size command measures.
type sizeConfig struct {
	runs                   []string
	layers, vocab, threads int
	pattern, format        string
	splora, work, out      string
	keep, twin             bool
}

func newSize() *cobra.Command {
	var o sizeConfig
	c := &cobra.Command{
		Use:   "size",
		Short: "What splora plan says beforehand beside what splora train comes to need",
		Long: `size makes models of random weights, asks splora plan for their memory, trains each for two steps (one from 4096 hidden units on) in a
process of its own, and compares the plan with the largest resident set of that process. One runs at a time; a model's folder is
removed when its last run is over.

A run is SHAPE or SHAPE:key=value…: SHAPE is HIDDENxSEQ, 7bxSEQ or 13bxSEQ (LLaMA-2's), the keys are flags of splora train.

With --twin no memory is compared: for each run, loss and gradients of a step over the kept weights (--memory fused) are compared with those
through the dense slot (reuse), same model, tokens and adapters, whose A and B are random.`,
		Example: `  splora-bench size --runs 512x512,7bx256 --out size.jsonl
  splora-bench size --twin --runs 7bx256`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.runs, "runs", sizeRuns, "what to run, comma-separated")
	f.IntVar(&o.layers, "layers", 8, "blocks of a HIDDENxSEQ model")
	f.IntVar(&o.vocab, "vocab", 8192, "vocabulary of a HIDDENxSEQ model")
	f.IntVar(&o.threads, "threads", 0, "threads of the process (0: all it may use)")
	f.StringVar(&o.pattern, "pattern", "2:4", "n:m keeps n of m; a number is the fraction removed")
	f.StringVar(&o.format, "format", "packed", "form of the folders: packed or hf")
	f.StringVar(&o.splora, "splora", "", "the splora program (default: beside this one)")
	f.StringVar(&o.work, "work", "", "folder for the models; what it has already is used (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the models")
	f.BoolVar(&o.twin, "twin", false, "compare the numbers of fused with those of reuse, not the memory with the plan")
	f.StringVar(&o.out, "out", "", "file for the raw results, one JSON record a line")
	return c
}

// sizeRun is one of them.
type sizeRun struct {
	text  string
	shape shape
	flags []string // of train
	model string
}

// parse reads a run.
func (o *sizeConfig) parse(text string) (r sizeRun, err error) {
	parts := strings.Split(text, ":")
	name, seq, _ := strings.Cut(parts[0], "x")
	r = sizeRun{text: text}
	switch name {
	case "7b":
		r.shape, err = parseShape("4096x"+seq, 32, 32000, 1)
	case "13b":
		r.shape, err = parseShape("5120x"+seq, 40, 32000, 1)
		r.shape.Inter = 13824
	default:
		r.shape, err = parseShape(parts[0], o.layers, o.vocab, 1)
	}
	r.model = fmt.Sprintf("%d-%d-%d-%s-%s", r.shape.Hidden, r.shape.Layers, r.shape.Vocab, strings.ReplaceAll(o.pattern, ":", "of"), o.format)
	r.flags = []string{"--memory", "fused"}
	for _, p := range parts[1:] {
		r.flags = append(r.flags, "--"+p)
	}
	return r, err
}

// sizeRecord is a run as it was planned and as it came.
type sizeRecord struct {
	Kind  string          `json:"kind"`
	Run   string          `json:"run"`
	Shape shape           `json:"shape"`
	Flags []string        `json:"flags"`
	Load  string          `json:"load_average"`
	Plan  json.RawMessage `json:"plan,omitempty"`
	Steps []train.Record  `json:"steps,omitempty"`
	Total int             `json:"planned_bytes,omitempty"`
	Peak  int64           `json:"peak_rss_bytes,omitempty"`
	Twin  *twinResult     `json:"twin,omitempty"`
	TookS float64         `json:"took_s"`
}

func (o sizeConfig) run(c *cobra.Command) (err error) {
	if o.format != "packed" && o.format != "hf" {
		return usagef("--format %q: packed or hf", o.format)
	}
	var runs []sizeRun
	for _, text := range o.runs {
		r, err := o.parse(text)
		if err != nil {
			return fmt.Errorf("--runs %q: %w", text, err)
		}
		runs = append(runs, r)
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
	if err := record.write(newHeader(nil)); err != nil {
		return err
	}
	if o.work == "" {
		if o.work, err = os.MkdirTemp("", "splora-size-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.work)
	}
	var done []sizeRecord
	for i, r := range runs {
		rec, err := o.one(c.Context(), c.ErrOrStderr(), r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.text, err)
		}
		if err := record.write(rec); err != nil {
			return err
		}
		done = append(done, rec)
		if later := runs[i+1:]; !o.keep && !slices.ContainsFunc(later, func(l sizeRun) bool { return l.model == r.model }) {
			os.RemoveAll(filepath.Join(o.work, r.model))
		}
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), sizeTable(done))
	return err
}

// one makes the model if need be, and does the run.
func (o *sizeConfig) one(ctx context.Context, notes io.Writer, r sizeRun) (rec sizeRecord, err error) {
	at := time.Now()
	model := filepath.Join(o.work, r.model)
	if _, err := os.Stat(filepath.Join(model, "config.json")); err != nil {
		fmt.Fprintf(notes, "%s: making the model\n", r.text)
		if err := family.Init(ctx, model, family.InitConfig{Config: r.shape.config(), Pattern: o.pattern, Packed: o.format == "packed", DType: "bfloat16", Seed: 1}); err != nil {
			return rec, err
		}
	}
	rec = sizeRecord{Kind: "size", Run: r.text, Shape: r.shape, Flags: r.flags, Load: load()}
	flags := append([]string{"--model", model, "--seq", fmt.Sprint(r.shape.Seq), "--threads", fmt.Sprint(o.threads)}, r.flags...)
	if o.twin {
		rec.Twin, err = o.compareTwin(flags)
		rec.Kind, rec.TookS = "twin", time.Since(at).Seconds()
		return rec, err
	}
	if rec.Plan, err = o.call(ctx, append([]string{"plan", "--json"}, flags...)); err != nil {
		return rec, err
	}
	var said struct {
		Total int `json:"total_bytes"`
	}
	if err := json.Unmarshal(rec.Plan, &said); err != nil {
		return rec, err
	}
	rec.Total = said.Total
	if err := o.train(ctx, r, flags, &rec); err != nil {
		return rec, err
	}
	rec.TookS = time.Since(at).Seconds()
	fmt.Fprintf(notes, "%s: planned %.1f MB, peak %.1f MB\n", r.text, float64(rec.Total)/1e6, float64(rec.Peak)/1e6)
	return rec, nil
}

// train runs the steps on rows of random tokens.
func (o *sizeConfig) train(ctx context.Context, r sizeRun, flags []string, rec *sizeRecord) error {
	dir, err := os.MkdirTemp(o.work, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var rows bytes.Buffer
	for row := range 4 {
		ids := make([]int, r.shape.Seq)
		for i := range ids {
			ids[i] = (i*i*31 + row*1009 + i*7) % r.shape.Vocab
		}
		if err := json.NewEncoder(&rows).Encode(map[string]any{"input_ids": ids, "labels": ids}); err != nil {
			return err
		}
	}
	data, steps := filepath.Join(dir, "rows.jsonl"), "2"
	if r.shape.Hidden >= 4096 {
		steps = "1"
	}
	if err := os.WriteFile(data, rows.Bytes(), 0o644); err != nil {
		return err
	}
	out := filepath.Join(dir, "out")
	if _, err := o.call(ctx, append([]string{"train", "--data", data, "--out", out, "--cache-dir", dir, "--max-steps", steps, "--save-every", "1"}, flags...)); err != nil {
		return err
	}
	rec.Steps, err = train.ReadMetrics(filepath.Join(out, "metrics.jsonl"))
	if err == nil && len(rec.Steps) > 0 {
		rec.Peak = rec.Steps[len(rec.Steps)-1].PeakRSSBytes
	}
	return err
}

// call runs splora and gives what it prints.
func (o *sizeConfig) call(ctx context.Context, args []string) ([]byte, error) {
	c := exec.CommandContext(ctx, o.splora, args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(o.splora), args[0], err, lastLine(errs.String()))
	}
	return bytes.TrimSpace(out), nil
}

// sizeTable is plan beside peak, or the twins' distances.
func sizeTable(all []sizeRecord) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(all) > 0 && all[0].Twin != nil {
		fmt.Fprintln(w, "run\tloss fused\tloss reuse\trelative\tworst gradient\trelative\tall gradients\t")
	} else {
		fmt.Fprintln(w, "run\tplanned MB\tpeak MB\tplan / peak\tstep s\t")
	}
	worst := 0.0
	for _, r := range all {
		if t := r.Twin; t != nil {
			fmt.Fprintf(w, "%s\t%.7f\t%.7f\t%.1e\t%s\t%.1e\t%.1e\t\n", r.Run, t.LossFused, t.LossReuse, t.LossOff, t.Worst, t.WorstOff, t.AllOff)
			continue
		}
		ratio, step := float64(r.Total)/float64(r.Peak), math.NaN()
		if n := len(r.Steps); n > 0 {
			step = r.Steps[n-1].StepS
		}
		worst = max(worst, math.Abs(ratio-1))
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.3f\t%.2f\t\n", r.Run, float64(r.Total)/1e6, float64(r.Peak)/1e6, ratio, step)
	}
	w.Flush()
	if worst > 0 {
		fmt.Fprintf(&b, "the plan is off by at most %.1f %%", 100*worst)
	}
	return strings.TrimRight(b.String(), "\n")
}
