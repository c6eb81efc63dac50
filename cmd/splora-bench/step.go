package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/optim"
)

// Measurement is what one process says of its training steps. The peer prints the same fields, as far as it has them.
type Measurement struct {
	Steps     []float64 `json:"steps_s"`          // each step after the first
	Work      []float64 `json:"work_s"`           // the processor time of each, over all threads; a busy machine disturbs it less
	First     float64   `json:"first_step_s"`     // from the start of the process to the end of the first step
	Making    float64   `json:"making_s"`         // of that, spent on making random weights
	EmptyRSS  int64     `json:"empty_rss_bytes"`  // of the process before it has a model, its libraries loaded
	PeakRSS   int64     `json:"peak_rss_bytes"`   // of the process, at its end
	Loss      float64   `json:"loss"`             // of the last step, per token
	Trained   int       `json:"trained_values"`   // in A and B
	Planned   int       `json:"planned_bytes"`    // 0: this one does not plan
	Base      int       `json:"base_bytes"`       // of the plan: the frozen model as it stands in memory
	Stack     int       `json:"stack_bytes"`      // of the plan: activations
	Memory    string    `json:"memory,omitempty"` // --memory
	DType     string    `json:"compute"`
	Threads   int       `json:"threads"`
	Backend   string    `json:"backend"`
	Recompute string    `json:"recompute"`
	Others    float64   `json:"others_cores"`         // processors that other programs kept busy meanwhile; the parent's reading
	Peak      float64   `json:"peak_flops,omitempty"` // with --ops: of the vector units, over all threads
	Ops       []Op      `json:"ops,omitempty"`        // with --ops: where a step's time goes
}

// Step is the median over the steps after the first, in seconds.
func (m Measurement) Step() float64 { return median(m.Steps) }

// Worked is the median of the steps' processor time, in seconds.
func (m Measurement) Worked() float64 { return median(m.Work) }

// AboveEmpty is the peak without the process itself, in bytes.
func (m Measurement) AboveEmpty() int64 { return m.PeakRSS - m.EmptyRSS }

// stepFlags are train's settings that a step depends on.
var stepFlags = [...]string{"model", "method", "rank", "alpha", "targets", "seq", "micro-batch", "recompute", "memory", "dtype", "threads", "max-steps", "seed"}

func newStep() *cobra.Command {
	cfg := train.Defaults()
	cfg.Data, cfg.Out = train.List{"-"}, "-" // random tokens; nothing is written
	cfg.Seq, cfg.MaxSteps = 512, 6
	began, o := int64(0), observe{}
	c := &cobra.Command{
		Use:   "step",
		Short: "One measurement in this process: training steps of a model folder on random tokens",
		Long: `step trains a model for --max-steps steps on rows of random tokens, as splora train does, and prints one JSON line. The cpu command
starts it afresh for each of its measurements.`,
		Args: noArgs,
	}
	all := pflag.NewFlagSet("train", pflag.ContinueOnError)
	train.Flags(all, &cfg)
	for _, name := range stepFlags {
		c.Flags().AddFlag(all.Lookup(name))
	}
	c.Flags().BoolVar(&o.ops, "ops", false, "say how often each operation ran, how long it took, and how long the products take by themselves")
	c.Flags().StringVar(&o.profile, "profile", "", "file for a processor profile of the steps after the first (go tool pprof)")
	c.Flags().Int64Var(&began, "began", 0, "when the process was started, in nanoseconds since 1970 (0: now)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		start := time.Now()
		if began != 0 {
			start = time.Unix(0, began)
		}
		m, err := measure(cfg, start, o)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.OutOrStdout()).Encode(m)
	}
	return c
}

// measure trains cfg.MaxSteps steps. began is when the process did.
func measure(cfg train.Config, began time.Time, o observe) (m Measurement, err error) {
	m.EmptyRSS, _ = resident()
	if err := cfg.Validate(); err != nil {
		return m, err
	}
	if cfg.MaxSteps < 2 {
		return m, usagef("step: --max-steps %d: at least 2, the first of which is not timed", cfg.MaxSteps)
	}
	t := &trainer{cfg: cfg, ops: o.ops}
	defer t.close()
	if err := t.open(&m); err != nil {
		return m, fmt.Errorf("step: %w", err)
	}
	for k := range cfg.MaxSteps {
		at, worked := time.Now(), processorTime()
		if m.Loss, err = t.step(k); err != nil {
			return m, fmt.Errorf("step %d: %w", k+1, err)
		}
		if k == 0 {
			m.First = time.Since(began).Seconds()
			if err := t.observe(o); err != nil {
				return m, err
			}
		} else {
			m.Steps = append(m.Steps, time.Since(at).Seconds())
			m.Work = append(m.Work, (processorTime() - worked).Seconds())
		}
	}
	pprof.StopCPUProfile()
	_, m.PeakRSS = resident()
	if t.tally != nil {
		t.tally.alone()
		m.Ops, m.Peak = t.tally.steps(len(m.Steps)), t.tally.Peak(20)
	}
	return m, nil
}

// observe is what is watched while the steps after the first run.
type observe struct {
	ops     bool
	profile string // a file; "": none
}

// observe begins to watch.
func (t *trainer) observe(o observe) error {
	if t.tally != nil {
		t.tally.reset()
	}
	if o.profile == "" {
		return nil
	}
	f, err := os.Create(o.profile)
	if err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	return pprof.StartCPUProfile(f)
}

// trainer is one rank's step, with random rows and without its files.
type trainer struct {
	cfg    train.Config
	ops    bool
	vocab  int
	folder *family.Folder // of the cpu's step
	be     compute.Backend
	tally  *tally // what be is, with --ops; else nil
	ad     *lora.Adapters
	model  *decoder.Model
	adam   optim.AdamW
	rng    *rand.Rand
}

// open makes the model, and says in m what it is going to need.
func (t *trainer) open(m *Measurement) (err error) {
	if t.folder, err = family.Open(t.cfg.Model); err != nil {
		return err
	}
	weights, err := t.folder.Load()
	if err != nil {
		return err
	}
	lc, err := t.cfg.LoRA()
	if err != nil {
		return err
	}
	arch := t.folder.Config
	t.vocab = arch.Vocab
	shapes, err := decoder.Targets(arch, weights, lc)
	if err != nil {
		return err
	}
	be := cpu.New(cpu.Config{Threads: t.cfg.Threads})
	if t.be = be; t.ops {
		t.tally = newTally(be)
		t.be = t.tally
	}
	t.ad = lora.New(t.be, lc, shapes, true)
	t.ad.Init(t.be, t.cfg.Seed)
	if t.model, err = decoder.New(t.be, arch, weights, t.ad, t.cfg.Options(t.cfg.Seq)); err != nil {
		return err
	}
	t.adam = optim.AdamW{Beta1: t.cfg.Beta1, Beta2: t.cfg.Beta2, Eps: t.cfg.Eps, WeightDecay: t.cfg.WeightDecay}
	t.rng = rand.New(rand.NewPCG(t.cfg.Seed, 1))
	f := train.Measure(weights, arch, t.model.Plan)
	m.Planned, m.Base, m.Stack, m.Trained = f.Total(), f.Linears+f.Tables, f.Plan.Stack, t.ad.Len()
	m.Memory, m.DType, m.Threads, m.Backend, m.Recompute = t.cfg.Memory, t.cfg.DType, t.cfg.Threads, t.be.Name(), t.cfg.Recompute
	return nil
}

func (t *trainer) close() {
	if t.be != nil {
		t.be.Close()
	}
	if t.folder != nil {
		t.folder.Close()
	}
}

// step is optimizer step k, from 0; it gives the mean loss.
func (t *trainer) step(k int) (float64, error) {
	t.ad.ZeroGrads(t.be)
	sum, tokens, err := t.model.LossGrad(t.rows())
	if err != nil {
		return 0, err
	}
	n := float64(tokens)
	norm := math.Sqrt(t.be.SumSquares(t.ad.Grads)) / n
	if norm-norm != 0 {
		return 0, fmt.Errorf("the gradient's norm is %v", norm)
	}
	t.adam.Step(t.be, t.ad.Params, t.ad.Grads, t.ad.M, t.ad.V, k+1, t.cfg.LR, optim.Clip(norm, t.cfg.Clip)/n)
	t.ad.Refresh(t.be)
	return sum / n, t.be.Sync()
}

// rows is the next batch.
func (t *trainer) rows() decoder.Batch {
	return randomRows(t.rng, t.vocab, t.cfg.MicroBatch, t.cfg.Seq)
}

// randomRows is a batch of random tokens, each of which predicts the next.
func randomRows(rng *rand.Rand, vocab, rows, seq int) decoder.Batch {
	b := decoder.Batch{B: rows, T: seq}
	b.Tokens, b.Targets = make([]int32, b.B*b.T), make([]int32, b.B*b.T)
	for i := range b.Tokens {
		b.Tokens[i] = rng.Int32N(int32(vocab))
	}
	copy(b.Targets, b.Tokens[1:])
	for i := b.T - 1; i < len(b.Targets); i += b.T {
		b.Targets[i] = -1
	}
	return b
}
