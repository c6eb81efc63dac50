package lora

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// Scalars ride at the end of the gradient vector, so that one all-reduce (a sum) carries all that a step exchanges and
// every rank then holds the same numbers.
type Scalars struct {
	// Loss is Σ loss over active tokens. On the wire it is a multiple of 2⁻²⁴ below 2⁴⁰, so that the sum over ranks is exact
	// and does not depend on their order; a value that is not finite, negative or too large arrives as NaN.
	Loss float64
	// Tokens is Σ active tokens, below 2⁴⁸, exact.
	Tokens int64
	// Stop is the number of ranks that want to stop.
	Stop int
}

// Numbers travel in limbs of 16 bits, least first, one float32 each: the sum of 256 ranks' limbs is below 2²⁴, exact.
const (
	limbBits  = 16
	lossAt    = 0
	lossLimbs = 4
	lossUnit  = 1 << 24
	tokensAt  = lossAt + lossLimbs
	tokLimbs  = 3
	stopAt    = tokensAt + tokLimbs
	// MaxRanks is how many ranks' scalars add up exactly.
	MaxRanks = 1 << (24 - limbBits)
	// Tail is the number of float32 that Wire holds behind the gradients.
	Tail = stopAt + 1
)

// Wire is the gradients and, behind them, the scalars [1, P+Tail]: the vector to all-reduce by sum.
func (a *Adapters) Wire() tensor.Tensor { return a.wire }

// PutScalars sets this rank's scalars, before the all-reduce.
func (a *Adapters) PutScalars(mem compute.Memory, s Scalars) {
	if s.Tokens < 0 || s.Tokens >= 1<<(limbBits*tokLimbs) {
		panic(fmt.Sprintf("lora: %d tokens do not fit the wire", s.Tokens))
	}
	var t [Tail]float32
	if s.Loss >= 0 && s.Loss < 1<<40 {
		put(t[lossAt:tokensAt], uint64(math.Round(s.Loss*lossUnit)))
	} else {
		t[lossAt] = float32(math.NaN())
	}
	put(t[tokensAt:stopAt], uint64(s.Tokens))
	t[stopAt] = float32(s.Stop)
	mem.Upload(a.tail(), tensor.Of(t[:]).Mem.Host)
}

// Scalars reads them, after the all-reduce: the sums over ranks.
func (a *Adapters) Scalars(mem compute.Memory) Scalars {
	var t [Tail]float32
	mem.Download(tensor.Of(t[:]).Mem.Host, a.tail())
	return Scalars{
		Loss:   get(t[lossAt:tokensAt]) / lossUnit,
		Tokens: int64(get(t[tokensAt:stopAt])),
		Stop:   int(t[stopAt]),
	}
}

func (a *Adapters) tail() tensor.Tensor { return a.wire.Window(a.Len(), 1, Tail) }

func put(limbs []float32, n uint64) {
	for i := range limbs {
		limbs[i] = float32(n >> (limbBits * i) & (1<<limbBits - 1))
	}
}

func get(limbs []float32) float64 {
	sum := 0.0
	for i := len(limbs) - 1; i >= 0; i-- {
		sum = sum*(1<<limbBits) + float64(limbs[i])
	}
	return sum
}
