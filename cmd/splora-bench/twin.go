package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/spf13/pflag"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// twinResult is how far a step over the kept weights is from the composed one: of losses |a−b|/|b|, of gradients ‖a−b‖₂/‖b‖₂.
type twinResult struct {
	LossFused float64 `json:"loss_fused"` // per token
	LossReuse float64 `json:"loss_reuse"`
	LossOff   float64 `json:"loss_off"`
	Worst     string  `json:"worst"` // the A or B that is furthest off
	WorstOff  float64 `json:"worst_off"`
	AllOff    float64 `json:"all_off"` // of all adapters' gradients as one vector
	Norm      float64 `json:"gradient_norm"`
	Walked    int     `json:"walked"`  // linears that went over the kept weights
	Tensors   int     `json:"tensors"` // compared
}

// compareTwin does the same step in both forms of memory, with the same model and adapters.
func (o *sizeConfig) compareTwin(args []string) (*twinResult, error) {
	cfg := train.Defaults()
	cfg.Data, cfg.Out = train.List{"-"}, "-"
	flags := pflag.NewFlagSet("train", pflag.ContinueOnError)
	train.Flags(flags, &cfg)
	if err := flags.Parse(args); err != nil {
		return nil, usage{err}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	folder, err := family.Open(cfg.Model)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	weights, err := folder.Load()
	if err != nil {
		return nil, err
	}
	lc, err := cfg.LoRA()
	if err != nil {
		return nil, err
	}
	shapes, err := decoder.Targets(folder.Config, weights, lc)
	if err != nil {
		return nil, err
	}
	be := cpu.New(cpu.Config{Threads: cfg.Threads})
	defer be.Close()
	ad := lora.New(be, lc, shapes, true)
	stir(ad, be)
	r := &twinResult{Tensors: 2 * len(ad.Windows)}
	var grads [2][]float32
	for i, memory := range []string{"fused", "reuse"} {
		cfg.Memory = memory
		m, err := decoder.New(be, folder.Config, weights, ad, cfg.Options(cfg.Seq))
		if err != nil {
			return nil, err
		}
		ad.ZeroGrads(be)
		sum, n, err := m.LossGrad(randomRows(rand.New(rand.NewPCG(cfg.Seed, 1)), folder.Config.Vocab, cfg.MicroBatch, cfg.Seq))
		if err != nil {
			return nil, err
		}
		grads[i] = append([]float32(nil), ad.Grads.Float32()...)
		*[]*float64{&r.LossFused, &r.LossReuse}[i] = sum / float64(n)
	}
	dt := tensor.F32
	if cfg.DType == "bfloat16" {
		dt = tensor.BF16
	}
	for _, b := range weights.Blocks {
		for _, l := range b.Linears {
			if be.WalksKept(l.W, dt, cfg.Seq*cfg.MicroBatch) {
				r.Walked++
			}
		}
	}
	r.compare(ad, grads[0], grads[1])
	return r, nil
}

// stir sets A as a run begins, and B to random numbers that change W̃ by a few per cent.
func stir(ad *lora.Adapters, be *cpu.Backend) {
	ad.Init(be, 1)
	rng := rand.New(rand.NewPCG(2, 3))
	for i := range ad.Windows {
		_, b := ad.Of(i, ad.Params)
		for k := range b.Float32() {
			b.Float32()[k] = float32(0.005 * rng.NormFloat64())
		}
	}
}

// compare the gradients tensor by tensor.
func (r *twinResult) compare(ad *lora.Adapters, fused, reuse []float32) {
	r.LossOff = math.Abs(r.LossFused-r.LossReuse) / math.Abs(r.LossReuse)
	for i, w := range ad.Windows {
		fa, fb := ad.Of(i, tensor.Of(fused))
		ra, rb := ad.Of(i, tensor.Of(reuse))
		for k, off := range []float64{offBy(fa.Float32(), ra.Float32()), offBy(fb.Float32(), rb.Float32())} {
			if !(off <= r.WorstOff) {
				r.Worst, r.WorstOff = fmt.Sprintf("%s.lora_%c", w.Name, "AB"[k]), off
			}
		}
	}
	r.AllOff = offBy(fused, reuse)
	for _, x := range reuse {
		r.Norm += float64(x) * float64(x)
	}
	r.Norm = math.Sqrt(r.Norm)
}

// offBy is ‖a−b‖₂/‖b‖₂.
func offBy(a, b []float32) float64 {
	d, n := 0.0, 0.0
	for i := range b {
		d, n = d+math.Pow(float64(a[i])-float64(b[i]), 2), n+float64(b[i])*float64(b[i])
	}
	return math.Sqrt(d / n)
}
