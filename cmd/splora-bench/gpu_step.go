package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
	"github.com/splora/splora/optim"
)

// GPUMeasurement is what one process says of its training steps on a GPU. The peer prints the same fields, as far as it has them.
type GPUMeasurement struct {
	Steps     []float64   `json:"steps_s"`              // each step after the first
	First     float64     `json:"first_step_s"`         // from the start of the process to the end of the first step
	Making    float64     `json:"making_s"`             // of that, spent on making random weights
	Loss      float64     `json:"loss"`                 // of the last step, per token
	Trained   int         `json:"trained_values"`       // in A and B
	Linears   int         `json:"linear_weights"`       // zeros included
	Used      int         `json:"device_used_bytes"`    // of the whole GPU at the end: context, libraries, everything
	Planned   int         `json:"device_planned_bytes"` // what was said of that before the first step; 0: this one does not plan
	Device    string      `json:"device"`
	DType     string      `json:"compute"`
	Backend   string      `json:"backend"`
	Recompute string      `json:"recompute"`
	Memory    string      `json:"memory,omitempty"` // --memory
	Ops       []cuda.Time `json:"ops,omitempty"`    // device time of each operation in one step
	Product   float64     `json:"product_flops,omitempty"`
}

// Step is the median over the steps after the first, in seconds.
func (m GPUMeasurement) Step() float64 { return median(m.Steps) }

// gpuStep is one measurement on a GPU as it was asked for.
type gpuStep struct {
	train.Config
	shape, pattern string
	device         int
	ops, product   bool
}

// gpuStepFlags are train's settings that a step depends on.
var gpuStepFlags = [...]string{"method", "rank", "alpha", "targets", "seq", "micro-batch", "recompute", "memory", "dtype", "max-steps", "seed"}

func newGPUStep() *cobra.Command {
	o, began := gpuStep{Config: train.Defaults()}, int64(0)
	o.Model, o.Data, o.Out = "-", train.List{"-"}, "-" // random weights and tokens; nothing is written
	o.Seq, o.MaxSteps, o.DType = 2048, 6, "bfloat16"
	c := &cobra.Command{
		Use:   "gpu-step",
		Short: "One measurement in this process: training steps on a GPU of a published shape with random weights",
		Long: `gpu-step makes random pruned weights of a published shape on the GPU, trains adapters for --max-steps steps on random tokens, and
prints one JSON line. The gpu command starts it afresh for each of its measurements.`,
		Args: noArgs,
	}
	all := pflag.NewFlagSet("train", pflag.ContinueOnError)
	train.Flags(all, &o.Config)
	for _, name := range gpuStepFlags {
		c.Flags().AddFlag(all.Lookup(name))
	}
	c.Flags().StringVar(&o.shape, "shape", "7b", "tiny, 7b, 13b, 32b (Qwen2.5), 70b")
	c.Flags().StringVar(&o.pattern, "pattern", "2:4", "n:m keeps n of m; m a power of two up to 64")
	c.Flags().IntVar(&o.device, "device", 0, "the GPU's number among those visible")
	c.Flags().BoolVar(&o.ops, "ops", false, "one step more, with the device time of each operation")
	c.Flags().BoolVar(&o.product, "product", false, "and at the end the rate of a bfloat16 product of 8192 x 8192 x 8192, what a step's use of the device is measured by")
	c.Flags().Int64Var(&began, "began", 0, "when the process was started, in nanoseconds since 1970 (0: now)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		start := time.Now()
		if began != 0 {
			start = time.Unix(0, began)
		}
		m, err := o.measure(start)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.OutOrStdout()).Encode(m)
	}
	return c
}

// measure trains o.MaxSteps steps.
func (o *gpuStep) measure(began time.Time) (m GPUMeasurement, err error) {
	if err := o.Validate(); err != nil {
		return m, err
	}
	if o.MaxSteps < 2 {
		return m, usagef("gpu-step: --max-steps %d: at least 2, the first of which is not timed", o.MaxSteps)
	}
	be, err := cuda.Open(cuda.Config{Device: o.device, SparseCores: o.Memory == "fused"})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, be.Close()) }()
	t, err := o.open(be, &m)
	if err != nil {
		return m, err
	}
	for k := range o.MaxSteps {
		at := time.Now()
		if m.Loss, err = t.step(k); err != nil {
			return m, fmt.Errorf("step %d: %w", k+1, err)
		}
		if k == 0 {
			m.First = time.Since(began).Seconds()
		} else {
			m.Steps = append(m.Steps, time.Since(at).Seconds())
		}
	}
	return m, o.after(t, be, &m)
}

// after reads the memory, and does what was asked for besides.
func (o *gpuStep) after(t *trainer, be *cuda.Backend, m *GPUMeasurement) error {
	u, err := usageOf(be)
	if err != nil {
		return err
	}
	m.Used = u.Total - u.Free
	if o.ops {
		if m.Ops, err = t.profile(o.MaxSteps); err != nil {
			return err
		}
	}
	if o.product {
		m.Product, err = t.product()
	}
	return err
}

// usageOf is the memory of a device that tells it.
func usageOf(be compute.Backend) (compute.Usage, error) {
	p, ok := be.(compute.Planned)
	if !ok {
		return compute.Usage{}, fmt.Errorf("%s does not tell its memory", be.Name())
	}
	return p.Usage()
}

// open makes weights, adapters and model in one allocation, whose size is known before.
func (o *gpuStep) open(be compute.Backend, m *GPUMeasurement) (*trainer, error) {
	f, err := formNamed(o.shape)
	if err != nil {
		return nil, err
	}
	arch, err := f.config(o.Seq)
	if err != nil {
		return nil, err
	}
	pattern, _, err := sparse.ParsePattern(o.pattern)
	if err != nil {
		return nil, usage{err}
	}
	lc, err := o.LoRA()
	if err != nil {
		return nil, err
	}
	options := o.Options(o.Seq)
	at := time.Now()
	base, err := o.reserve(be, arch, pattern, lc, options, m)
	if err != nil {
		return nil, err
	}
	weights, err := base.model(arch)
	if err != nil {
		return nil, err
	}
	if err := be.Sync(); err != nil {
		return nil, err
	}
	m.Making = time.Since(at).Seconds()
	m.Linears, m.DType, m.Backend, m.Recompute, m.Memory = linearWeights(arch), o.DType, be.Name(), o.Recompute, o.Memory
	m.Device = be.Name()
	return o.trainer(be, arch, weights, lc, options, m)
}

// slack is for the rounding of a run's few allocations.
const slack = 1 << 20

// reserve counts what the weights and the plan take, says in m what the device will hold then, and allocates that.
func (o *gpuStep) reserve(be compute.Backend, arch decoder.Config, p sparse.Pattern, lc lora.Config, options decoder.Options, m *GPUMeasurement) (*maker, error) {
	base, err := newMaker(be, p, o.Seed)
	if err != nil {
		return nil, err
	}
	planned, ok := be.(compute.Planned)
	if !ok {
		return base, nil
	}
	count := &counter{align: planned.Align()}
	dry := *base
	dry.Memory = count
	sketch, err := dry.model(arch)
	if err != nil {
		return nil, err
	}
	plan, err := decoder.Estimate(be, arch, sketch, &lc, true, options)
	if err != nil {
		return nil, err
	}
	u, err := planned.Usage()
	if err != nil {
		return nil, err
	}
	n := (count.n + plan.Total() + slack) / count.align * count.align
	m.Planned = u.Total - u.Free + n
	return base, planned.Reserve(n)
}

func (o *gpuStep) trainer(be compute.Backend, arch decoder.Config, w decoder.Weights, lc lora.Config, options decoder.Options, m *GPUMeasurement) (*trainer, error) {
	shapes, err := decoder.Targets(arch, w, lc)
	if err != nil {
		return nil, err
	}
	t := &trainer{be: be, cfg: o.Config, vocab: arch.Vocab, rng: rand.New(rand.NewPCG(o.Seed, 1))}
	t.ad = lora.New(be, lc, shapes, true)
	t.ad.Init(be, o.Seed)
	if t.model, err = decoder.New(be, arch, w, t.ad, options); err != nil {
		return nil, err
	}
	if p, ok := be.(compute.Planned); ok {
		p.Seal()
	}
	t.adam = optim.AdamW{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}
	m.Trained = t.ad.Len()
	return t, be.Sync()
}

// profiler is a backend that times its operations.
type profiler interface {
	Profile() error
	Times() ([]cuda.Time, error)
}

func (t *trainer) profile(k int) ([]cuda.Time, error) {
	p, ok := t.be.(profiler)
	if !ok {
		return nil, fmt.Errorf("%s does not time its operations", t.be.Name())
	}
	if err := p.Profile(); err != nil {
		return nil, err
	}
	if _, err := t.step(k); err != nil {
		return nil, err
	}
	return p.Times()
}

// product is the rate of the largest square bfloat16 product up to 8192 that the activations' memory has room for, in FLOP/s: the best of
// eight.
func (t *trainer) product() (float64, error) {
	defer t.model.Acts.Reset(t.model.Acts.Mark())
	n := 8192
	for 6*n*n > t.model.Plan.Stack {
		n /= 2
	}
	a, b, c := t.model.Acts.Push(tensor.BF16, n, n), t.model.Acts.Push(tensor.BF16, n, n), t.model.Acts.Push(tensor.BF16, n, n)
	best := math.Inf(1)
	for range 8 {
		at := time.Now()
		t.be.Gemm(c, 1, a, false, b, true, 0)
		if err := t.be.Sync(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(at).Seconds())
	}
	return 2 * float64(n) * float64(n) * float64(n) / best, nil
}
