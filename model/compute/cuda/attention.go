//go:build cuda

package cuda

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/tensor"
)

// scratch is the backend's own device memory.
type scratch struct {
	parts, sum tensor.Tensor // float64, of SumSquares
	floats     tensor.Tensor // what an operation keeps while it runs: AttentionBackward's δ, AdapterGradient's parts
}

func newScratch(b *Backend) scratch {
	bytes := func(n int) tensor.Tensor { return tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: n, Mem: b.Alloc(n)} }
	floats := bytes(4 * atLeast)
	floats.DType, floats.Cols = tensor.F32, atLeast
	return scratch{parts: bytes(8 * kernels.SumSquaresBlocks), sum: bytes(8), floats: floats}
}

func heads(m compute.Attn, t tensor.Tensor) kernels.Heads {
	return kernels.Heads{BF16: t.DType == tensor.BF16, B: m.B, Tq: m.Tq, Tk: m.Tk, Hq: m.Hq, Hkv: m.Hkv, D: m.D}
}

// checkAttn checks the descriptor, and that the operands are as it says.
func checkAttn(op string, m compute.Attn, like tensor.Tensor, queries, keys []tensor.Tensor) {
	if m.Hkv <= 0 || m.Hq%m.Hkv != 0 {
		panic("cuda: " + op + ": query heads are not a multiple of key/value heads")
	}
	wantAct(op, "q", like)
	for _, t := range queries {
		want(op, "q, y or a gradient", t, like.DType, m.B*m.Tq, m.Hq*m.D)
	}
	for _, t := range keys {
		want(op, "k, v or a gradient", t, like.DType, m.B*m.Tk, m.Hkv*m.D)
	}
	want(op, "QPos", m.QPos, tensor.I32, m.B, m.Tq)
	want(op, "KPos", m.KPos, tensor.I32, m.B, m.Tk)
	want(op, "QDoc", m.QDoc, tensor.I32, m.B, m.Tq)
	want(op, "KDoc", m.KDoc, tensor.I32, m.B, m.Tk)
}

// tail is the last arguments of every attention kernel.
func tail(m compute.Attn, args ...uint64) []uint64 {
	return append(args, ptr(m.QPos), ptr(m.KPos), ptr(m.QDoc), ptr(m.KDoc), num(m.Tq), num(m.Tk), num(m.Hq), num(m.Hkv), num(m.D), f32(m.Scale), num(m.Window))
}

// Attention sets y = softmax(scale·q·kᵀ, masked)·v and lse.
func (b *Backend) Attention(y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	checkAttn("attention", m, q, []tensor.Tensor{q, y}, []tensor.Tensor{k, v})
	want("attention", "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	if m.B*m.Tq == 0 {
		return
	}
	b.attend(heads(m, q).Attention(), tail(m, ptr(y), ptr(lse), ptr(q), ptr(k), ptr(v))...)
}

func (b *Backend) attend(l kernels.Launch, args ...uint64) {
	b.launch(l.Module, kernelKey{op: l.Name}, l.Grid, l.Threads, l.Shared, args...)
}

// AttentionBackward sets dq, dk, dv: as many sequences at a time as there is room for δ.
func (b *Backend) AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	const op = "attentionbackward"
	checkAttn(op, m, q, []tensor.Tensor{q, y, dy, dq}, []tensor.Tensor{k, v, dk, dv})
	want(op, "lse", lse, tensor.F32, m.B*m.Hq, m.Tq)
	step := b.scratch.floats.Len() / max(1, m.Hq*m.Tq)
	if step == 0 {
		panic("cuda: attentionbackward: a sequence has more queries and heads than the scratch memory holds")
	}
	for i := 0; i < m.B; i += step {
		j := min(m.B, i+step)
		c := m
		c.B = j - i
		c.QPos, c.KPos, c.QDoc, c.KDoc = m.QPos.Slice(i, j), m.KPos.Slice(i, j), m.QDoc.Slice(i, j), m.KDoc.Slice(i, j)
		qs := func(t tensor.Tensor) tensor.Tensor { return t.Slice(i*m.Tq, j*m.Tq) }
		ks := func(t tensor.Tensor) tensor.Tensor { return t.Slice(i*m.Tk, j*m.Tk) }
		b.attendBackward(qs(dq), ks(dk), ks(dv), qs(dy), qs(y), lse.Slice(i*m.Hq, j*m.Hq), qs(q), ks(k), ks(v), c)
	}
}

func (b *Backend) attendBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m compute.Attn) {
	h, delta := heads(m, q), b.scratch.floats
	if m.Tq > 0 {
		b.attend(h.Delta(), ptr(delta), ptr(dy), ptr(y), num(m.B), num(m.Tq), num(m.Hq), num(m.D))
		b.attend(h.DQ(), tail(m, ptr(dq), ptr(dy), ptr(lse), ptr(delta), ptr(q), ptr(k), ptr(v))...)
	}
	if m.Tk > 0 {
		b.attend(h.DKV(), tail(m, ptr(dk), ptr(dv), ptr(dy), ptr(lse), ptr(delta), ptr(q), ptr(k), ptr(v))...)
	}
}
