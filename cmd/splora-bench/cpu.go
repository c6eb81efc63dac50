package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/sparse"
)

// cpuConfig is what the cpu command compares.
type cpuConfig struct {
	shapes, recompute, methods, peers []string
	dtypes, patterns                  []string
	threads                           []int
	layers, vocab, batch, rank        int
	storage                           string
	steps, rounds                     int
	ops                               bool
	python, out                       string
	calm                              float64
}

func newCPU() *cobra.Command {
	var o cpuConfig
	c := &cobra.Command{
		Use:   "cpu",
		Short: "A training step on the CPU, beside PyTorch",
		Long: `cpu measures one training step of a pruned LLaMA of random weights by each method, and the same in PyTorch where python3 with
torch, transformers and peft is there. Every measurement is a fresh process; the methods take turns, --rounds times, with equal
threads. A ratio is taken between two measurements of one round; the table shows its median.

Behind the table stands where the time of a step goes, measured once more for the first method (--ops=false: not): the share of each
kind of operation, its rate, that of the vector units' multiply-adds at most, and the share that the products would have if each ran as
fast as it does by itself.

The speed is the median of the steps after the first. Memory is the peak of the resident set: of the whole process, and above the
same process before it had a model. The first step counts from the start of the process, without the making of random weights.

A method may carry settings of the step command, each behind a colon: splora:rank=8:alpha=16.`,
		Example: `  splora-bench cpu --shapes 512x512,1024x512 --out results.jsonl
  splora-bench cpu --shapes 512x2048 --recompute block --peers lora --threads 1,2
  splora-bench cpu --shapes 1024x512 --dtypes bfloat16 --patterns 2:4,0.7
  splora-bench cpu --shapes 512x512 --peers "" --methods splora:rank=8,splora:rank=64`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := o.bench(c)
			if err != nil {
				return err
			}
			return b.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.shapes, "shapes", []string{"512x512", "1024x512"}, "HIDDENxSEQ, comma-separated; the inner size is 2.6875 x hidden, heads have 64 inputs")
	f.StringSliceVar(&o.recompute, "recompute", []string{"none", "block"}, "none, block; the peer's block checkpointing")
	f.StringSliceVar(&o.methods, "methods", []string{"splora", "lora"}, "methods of splora train, each with :key=value settings if wanted")
	f.StringSliceVar(&o.peers, "peers", []string{"lora", "splora-naive", "splora-recompute"}, "methods of the PyTorch peer; empty: none")
	f.IntSliceVar(&o.threads, "threads", []int{runtime.GOMAXPROCS(0)}, "threads of each process, comma-separated")
	f.IntVar(&o.layers, "layers", 8, "blocks")
	f.IntVar(&o.vocab, "vocab", 8192, "vocabulary")
	f.IntVar(&o.batch, "batch", 1, "rows of a step")
	f.IntVar(&o.rank, "rank", 16, "adapter rank")
	f.StringSliceVar(&o.patterns, "patterns", []string{"2:4"}, "n:m keeps n of m; a number is the fraction removed; comma-separated")
	f.StringSliceVar(&o.dtypes, "dtypes", []string{"float32"}, "float32, bfloat16: the type that both compute in, and that the peer stores its base in")
	f.StringVar(&o.storage, "storage", "bfloat16", "type that splora's frozen base is stored in: float32, bfloat16 or float16")
	f.BoolVar(&o.ops, "ops", true, "measure also where the time goes")
	f.IntVar(&o.steps, "steps", 5, "timed steps of a measurement")
	f.IntVar(&o.rounds, "rounds", 3, "measurements of each method")
	f.Float64Var(&o.calm, "calm", 0, "before a measurement, wait up to two minutes until other programs keep fewer than so many cores busy, and measure again, at most twice, when they did not stay so (0: do neither)")
	f.StringVar(&o.python, "python", "python3", "interpreter that has torch, transformers and peft")
	f.StringVar(&o.out, "out", "", "file for the raw results, one JSON record a line")
	return c
}

// check reports what was wrongly written.
func (o cpuConfig) check() error {
	for _, r := range o.recompute {
		if r != "none" && r != "block" {
			return usagef("--recompute %q: none or block", r)
		}
	}
	for _, m := range o.methods {
		if name, _, _ := strings.Cut(m, ":"); name != "splora" && name != "lora" {
			return usagef("--methods %q: splora or lora", m)
		}
	}
	for _, p := range o.peers {
		if !slices.Contains(peerMethods[:], p) {
			return usagef("--peers %q: %s", p, strings.Join(peerMethods[:], ", "))
		}
	}
	for _, p := range o.patterns {
		if _, _, err := sparse.ParsePattern(p); err != nil {
			return usage{err}
		}
	}
	for _, d := range o.dtypes {
		if d != "float32" && d != "bfloat16" {
			return usagef("--dtypes %q: float32 or bfloat16", d)
		}
	}
	if _, err := family.ParseDType(o.storage); err != nil {
		return usage{err}
	}
	if min(o.layers, o.vocab, o.batch, o.rank, o.steps, o.rounds, slices.Min(append(o.threads, 1))) < 1 {
		return usagef("--layers, --vocab, --batch, --rank, --steps, --rounds, --threads: at least 1")
	}
	if len(o.shapes)*len(o.recompute)*len(o.threads)*len(o.dtypes)*len(o.patterns)*(len(o.methods)+len(o.peers)) == 0 {
		return usagef("nothing to measure: --shapes, --dtypes, --patterns, --recompute, --threads, and --methods or --peers need a value")
	}
	return nil
}

// bench is a run of the cpu command.
type bench struct {
	cpuConfig
	self       string // the program that is started as a child
	shapes     []shape
	record     *recorder
	out, notes io.Writer
	peer       *peer // nil: there is none
}

// setting is what is compared like for like: within it only the method differs.
type setting struct {
	Shape     shape  `json:"shape"`
	Recompute string `json:"recompute"`
	Threads   int    `json:"threads"`
	DType     string `json:"compute"`
	Pattern   string `json:"pattern"`
}

func (o cpuConfig) bench(c *cobra.Command) (*bench, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b := &bench{cpuConfig: o, out: c.OutOrStdout(), notes: c.ErrOrStderr()}
	for _, text := range o.shapes {
		s, err := parseShape(text, o.layers, o.vocab, o.batch)
		if err != nil {
			return nil, fmt.Errorf("--shapes: %w", err)
		}
		b.shapes = append(b.shapes, s)
	}
	var err error
	b.self, err = os.Executable()
	return b, err
}

// run measures everything, one setting after the other, and prints a table for each when it is complete.
func (b *bench) run(ctx context.Context) (err error) {
	versions := map[string]string{}
	if len(b.peers) > 0 {
		var why string
		if b.peer, versions, why = findPeer(ctx, b.python); b.peer == nil {
			fmt.Fprintf(b.out, "no PyTorch beside it: %s\n\n", why)
			b.peers = nil
		}
	}
	if b.record, err = newRecorder(b.cpuConfig.out); err != nil {
		return err
	}
	defer func() { err = firstError(err, b.record.Close()) }()
	if err := b.record.write(newHeader(versions)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "splora-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, s := range b.settings() {
		if err := b.compare(ctx, dir, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) settings() (all []setting) {
	for _, s := range b.shapes {
		for _, t := range b.threads {
			for _, d := range b.dtypes {
				for _, p := range b.patterns {
					for _, r := range b.recompute {
						all = append(all, setting{s, r, t, d, p})
					}
				}
			}
		}
	}
	return all
}

// compare measures all methods in turns.
func (b *bench) compare(ctx context.Context, dir string, s setting) error {
	model, err := s.Shape.model(ctx, dir, s.Pattern, b.storage)
	if err != nil {
		return err
	}
	g := newGroup(s, b.methods, b.peers)
	for round := range b.rounds {
		for i := range g.rows {
			if err := b.one(ctx, g, i, round, model); err != nil {
				return err
			}
		}
	}
	if _, err = fmt.Fprintln(b.out, g); err != nil || !b.ops || len(b.methods) == 0 {
		return err
	}
	return b.breakdown(ctx, g, model)
}

// breakdown measures our first method once more and shows where its time goes.
func (b *bench) breakdown(ctx context.Context, g *group, model string) error {
	m, err := b.inPeace(ctx, func() (Measurement, error) {
		return child(ctx, b.self, nil, nil, append(b.stepArgs(g.setting, b.methods[0], model), "--ops")...)
	})
	if err != nil {
		return fmt.Errorf("splora %s --ops: %w", b.methods[0], err)
	}
	rec := record{Kind: "ops", Who: whoSplora, Method: b.methods[0], Setting: g.setting, Rank: b.rank, Storage: b.storage, Load: load(), Measurement: &m}
	if err := b.record.write(rec); err != nil {
		return err
	}
	_, err = fmt.Fprintln(b.out, breakdown(m))
	return err
}

// one is a measurement by one method. A peer that fails is noted, and has no figures.
func (b *bench) one(ctx context.Context, g *group, i, round int, model string) error {
	row := &g.rows[i]
	rec := record{Kind: "run", Who: row.who, Method: row.method, Setting: g.setting, Rank: b.rank, Round: round + 1, Load: load()}
	if row.who == whoSplora {
		rec.Storage = b.storage
	} else {
		rec.Storage = g.DType
	}
	m, err := b.inPeace(ctx, func() (Measurement, error) { return b.start(ctx, g.setting, row, model) })
	if err == nil {
		rec.Measurement = &m
		fmt.Fprintf(b.notes, "hidden %d seq %d %s %s %s, %d threads, round %d: %s %.3f s, %.0f MB (others: %.2f cores)\n",
			g.Shape.Hidden, g.Shape.Seq, g.DType, g.Pattern, g.Recompute, g.Threads, round+1, row.name(), m.Step(), float64(m.PeakRSS)/1e6, m.Others)
	} else if rec.Error = err.Error(); row.who == whoSplora || ctx.Err() != nil {
		return fmt.Errorf("%s: %w", row.name(), err)
	} else {
		fmt.Fprintf(b.out, "%s failed: %v\n", row.name(), err)
	}
	row.runs = append(row.runs, rec.Measurement)
	return b.record.write(rec)
}

// inPeace measures while other programs do little, as far as --calm asks for that and three attempts go.
func (b *bench) inPeace(ctx context.Context, measure func() (Measurement, error)) (m Measurement, err error) {
	for range 3 {
		if b.calm > 0 {
			waitForCalm(ctx, b.calm, 2*time.Minute)
		}
		if m, err = measure(); err != nil || ctx.Err() != nil || !(b.calm > 0 && m.Others > b.calm) {
			break
		}
	}
	return m, err
}

func (b *bench) start(ctx context.Context, s setting, row *row, model string) (Measurement, error) {
	if row.who == whoTorch {
		return b.peer.measure(ctx, s, row.method, b.cpuConfig)
	}
	return child(ctx, b.self, nil, nil, b.stepArgs(s, row.method, model)...)
}

// stepArgs is the command line of a measurement of ours; the method's own settings come last and win.
func (b *bench) stepArgs(s setting, method, model string) []string {
	parts := strings.Split(method, ":")
	args := []string{"step", "--model", model, "--method", parts[0], "--recompute", s.Recompute, "--dtype", s.DType, "--threads", fmt.Sprint(s.Threads), "--rank", fmt.Sprint(b.rank),
		"--alpha", fmt.Sprint(train.Defaults().Alpha), "--micro-batch", fmt.Sprint(s.Shape.Batch), "--seq", fmt.Sprint(s.Shape.Seq), "--max-steps", fmt.Sprint(b.steps + 1)}
	for _, p := range parts[1:] {
		args = append(args, "--"+p)
	}
	return args
}
