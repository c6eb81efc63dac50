package optim

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// AdamW is the optimizer's settings.
type AdamW struct {
	Beta1 float64 // 0 means 0.9
	Beta2 float64 // 0 means 0.999
	Eps   float64 // 0 means 1e-8
	// WeightDecay is decoupled (p shrinks by lr·wd), default 0.
	WeightDecay float64
}

// Defaults fills in what is zero.
func (o AdamW) Defaults() AdamW {
	for _, f := range []struct {
		p *float64
		v float64
	}{{&o.Beta1, 0.9}, {&o.Beta2, 0.999}, {&o.Eps, 1e-8}} {
		if *f.p == 0 {
			*f.p = f.v
		}
	}
	return o
}

// Validate names the field that cannot be.
func (o AdamW) Validate() error {
	o = o.Defaults()
	switch {
	case !(o.Beta1 > 0 && o.Beta1 < 1):
		return fmt.Errorf("optim: beta1: %v; must be in (0, 1)", o.Beta1)
	case !(o.Beta2 > 0 && o.Beta2 < 1):
		return fmt.Errorf("optim: beta2: %v; must be in (0, 1)", o.Beta2)
	case !(o.Eps > 0):
		return fmt.Errorf("optim: eps: %v; must be greater than 0", o.Eps)
	case !(o.WeightDecay >= 0) || math.IsInf(o.WeightDecay, 1):
		return fmt.Errorf("optim: weight_decay: %v; must not be negative", o.WeightDecay)
	}
	return nil
}

// Step is optimizer step t = 1, 2, …: it updates p, m, v [1,P] in place by the gradient scale·g.
func (o AdamW) Step(be compute.Update, p, g, m, v tensor.Tensor, t int, lr, scale float64) {
	if t < 1 {
		panic(fmt.Sprintf("optim: step %d; the first is 1", t))
	}
	o = o.Defaults()
	be.AdamW(p, g, m, v, compute.AdamW{
		LR: float32(lr), Beta1: float32(o.Beta1), Beta2: float32(o.Beta2), Eps: float32(o.Eps), WeightDecay: float32(o.WeightDecay),
		Bias1: bias(o.Beta1, t), Bias2: bias(o.Beta2, t),
		Scale: float32(scale),
	})
}

// bias is 1 − β^t of the β that float32 holds, as the backend forms 1 − β from that: with 0.999 itself, v/(1 − β2^t) would be
// wrong by 1.3e-5 at every step.
func bias(beta float64, t int) float32 {
	return float32(1 - math.Pow(float64(float32(beta)), float64(t)))
}

// Norm is ‖scale·g‖₂. It waits for the device.
func Norm(be compute.Update, g tensor.Tensor, scale float64) float64 {
	return math.Abs(scale) * math.Sqrt(be.SumSquares(g))
}

// Clip is the factor that brings a gradient of the given norm to at most max: min(1, max/(norm + 1e-6)), as PyTorch's
// clip_grad_norm_. max 0: no clipping, 1. A norm that is NaN gives NaN.
func Clip(norm, max float64) float64 {
	if max == 0 {
		return 1
	}
	return math.Min(1, max/(norm+1e-6))
}
