//go:build cuda

package cuda

import (
	"encoding/binary"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/tensor"
)

// AdamW sets m = β1·m + (1−β1)·ĝ, v = β2·v + (1−β2)·ĝ², p = p·(1 − lr·wd) − lr·(m/Bias1)/(√(v/Bias2)+eps), ĝ = Scale·g.
func (b *Backend) AdamW(p, g, m, v tensor.Tensor, o compute.AdamW) {
	for _, t := range [...]tensor.Tensor{p, g, m, v} {
		wantLen("adamw", "operand", t, tensor.F32, p.Len())
	}
	b.sweep("update", op1("adamw", p), p.Len(), ptr(p), ptr(g), ptr(m), ptr(v), num(p.Len()), f32(o.LR), f32(o.Beta1), f32(o.Beta2), f32(o.Eps),
		f32(o.WeightDecay), f32(o.Bias1), f32(o.Bias2), f32(o.Scale))
}

// SumSquares is Σ x² in float64: of a fixed number of pieces, then of the pieces in order.
func (b *Backend) SumSquares(x tensor.Tensor) float64 {
	wantLen("sumsquares", "x", x, tensor.F32, x.Len())
	if x.Len() == 0 {
		return 0
	}
	part, sum := b.scratch.parts, b.scratch.sum
	b.rows("update", op1("sumsquares", x), kernels.SumSquaresBlocks, kernels.Threads, ptr(part), ptr(x), num(x.Len()))
	b.rows("update", kernelKey{op: "sumsquares_final"}, 1, kernels.Threads, ptr(sum), ptr(part))
	var host [8]byte
	b.Download(host[:], sum)
	if b.err != nil {
		return math.NaN() // Sync reports why
	}
	return math.Float64frombits(binary.NativeEndian.Uint64(host[:]))
}
