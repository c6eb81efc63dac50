// Package optim is what happens to the flat vectors once per step: a learning rate, a clip, AdamW.
//
//	ĝ = c·g/n                     n = active tokens of the global batch, c = min(1, max/(‖g/n‖₂ + 1e-6))
//	m = β1·m + (1−β1)·ĝ           v = β2·v + (1−β2)·ĝ²
//	p = p·(1 − lr·wd) − lr·(m/(1−β1^t)) / (√(v/(1−β2^t)) + ε)
package optim

import (
	"fmt"
	"math"
)

// Kind is the course of the learning rate after the warm-up.
type Kind string

// Kinds.
const (
	Constant Kind = "constant"
	Linear   Kind = "linear"
	Cosine   Kind = "cosine"
)

// Schedule is the learning rate over steps, as transformers' get_scheduler has it, ending at MinLR instead of 0.
type Schedule struct {
	Kind          Kind // "" means Cosine
	LR, MinLR     float64
	Warmup, Total int // optimizer steps; Total includes the warm-up
}

// Validate names the field that cannot be.
func (s Schedule) Validate() error {
	switch {
	case s.Kind != "" && s.Kind != Constant && s.Kind != Linear && s.Kind != Cosine:
		return fmt.Errorf("optim: schedule: unknown %q; use %s, %s or %s", s.Kind, Constant, Linear, Cosine)
	case !(s.LR > 0) || math.IsInf(s.LR, 1):
		return fmt.Errorf("optim: lr: %v; must be greater than 0", s.LR)
	case !(s.MinLR >= 0 && s.MinLR <= s.LR):
		return fmt.Errorf("optim: min_lr: %v; must be in [0, lr = %v]", s.MinLR, s.LR)
	case s.Warmup < 0:
		return fmt.Errorf("optim: warmup_steps: %d; must not be negative", s.Warmup)
	case s.Total < 1:
		return fmt.Errorf("optim: %d steps in all; must be at least 1", s.Total)
	}
	return nil
}

// At is the learning rate of optimizer step 1, 2, … Total. Step 1 has 0 when there is a warm-up.
func (s Schedule) At(step int) float64 {
	done, warm := float64(step-1), float64(s.Warmup)
	if done < warm {
		return s.LR * done / math.Max(1, warm)
	}
	return s.MinLR + (s.LR-s.MinLR)*s.share((done-warm)/math.Max(1, float64(s.Total)-warm))
}

// share of LR − MinLR that is left at progress 0 … 1; after the end it stays.
func (s Schedule) share(progress float64) float64 {
	progress = math.Min(1, progress)
	switch s.Kind {
	case Constant:
		return 1
	case Linear:
		return 1 - progress
	}
	return 0.5 * (1 + math.Cos(math.Pi*progress))
}
