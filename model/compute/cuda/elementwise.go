//go:build cuda

package cuda

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// Fill sets every element of dst, F32 or BF16, to v.
func (b *Backend) Fill(dst tensor.Tensor, v float32) {
	wantAct("fill", "dst", dst)
	wantLen("fill", "dst", dst, dst.DType, dst.Len())
	if dst.Len() == 0 {
		return
	}
	bits := math.Float32bits(v)
	if dst.DType == tensor.BF16 {
		bits = uint32(tensor.ToBF16(v))
	}
	b.queue("fill", func() error { return b.q.Set(dst.Mem.Device, bits, dst.DType.Size(), dst.Len()) })
}

// Copy sets dst = src, converting between F32, BF16 and F16.
func (b *Backend) Copy(dst, src tensor.Tensor) {
	if dst.Len() != src.Len() {
		panic(fmt.Sprintf("cuda: copy of %s to %s", src, dst))
	}
	switch {
	case dst.Len() == 0:
	case dst.DType == src.DType:
		b.queue("copy", func() error { return b.q.Copy(dst.Mem.Device, src.Mem.Device, dst.Bytes()) })
	default:
		wantFloat("copy", "dst", dst, dst.Rows, dst.Cols)
		wantFloat("copy", "src", src, src.Rows, src.Cols)
		b.sweep("elementwise", op2("copy", dst, src), dst.Len(), ptr(dst), ptr(src), num(dst.Len()))
	}
}

// Add adds x to y, elementwise.
func (b *Backend) Add(y, x tensor.Tensor) {
	wantAct("add", "y", y)
	wantLen("add", "y", y, y.DType, x.Len())
	wantLen("add", "x", x, y.DType, x.Len())
	b.sweep("elementwise", op1("add", y), x.Len(), ptr(y), ptr(x), num(x.Len()))
}

// AddBias adds bias [1,n] to every row of y [m,n].
func (b *Backend) AddBias(y, bias tensor.Tensor) {
	wantAct("addbias", "y", y)
	want("addbias", "y", y, y.DType, y.Rows, bias.Len())
	wantLen("addbias", "bias", bias, tensor.F32, bias.Len())
	b.sweep("elementwise", op1("addbias", y), y.Len(), ptr(y), ptr(bias), num(y.Rows), num(y.Cols))
}

// Dropout sets y = x ⊙ m/(1−p).
func (b *Backend) Dropout(y, x, ids tensor.Tensor, seed uint64, p float32) {
	wantAct("dropout", "x", x)
	want("dropout", "x", x, x.DType, x.Rows, x.Cols)
	want("dropout", "y", y, x.DType, x.Rows, x.Cols)
	wantLen("dropout", "ids", ids, tensor.I32, x.Rows)
	b.sweep("elementwise", op1("dropout", y), y.Len(), ptr(y), ptr(x), ptr(ids), num(x.Rows), num(x.Cols), seed,
		uint64(float64(p)*(1<<24)), f32(1/(1-p)))
}

func wantSiLU(act compute.Act) {
	if act != compute.SiLU {
		panic(fmt.Sprintf("cuda: unknown activation %d", act))
	}
}

// Gate sets h = act(g) ⊙ u.
func (b *Backend) Gate(h, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	wantAct("gate", "h", h)
	for _, t := range [...]tensor.Tensor{h, g, u} {
		wantLen("gate", "operand", t, h.DType, h.Len())
	}
	b.sweep("elementwise", op1("silu", h), h.Len(), ptr(h), ptr(g), ptr(u), num(h.Len()))
}

// GateBackward sets dg = dh ⊙ u ⊙ act'(g), du = dh ⊙ act(g).
func (b *Backend) GateBackward(dg, du, dh, g, u tensor.Tensor, act compute.Act) {
	wantSiLU(act)
	wantAct("gatebackward", "dg", dg)
	for _, t := range [...]tensor.Tensor{dg, du, dh, g, u} {
		wantLen("gatebackward", "operand", t, dg.DType, dg.Len())
	}
	b.sweep("elementwise", op1("silu_back", dg), dg.Len(), ptr(dg), ptr(du), ptr(dh), ptr(g), ptr(u), num(dg.Len()))
}
