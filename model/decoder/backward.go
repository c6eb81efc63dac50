package decoder

import (
	"github.com/splora/splora/model/tensor"
)

// stage is a step of a block in forward order; the backward goes down to the lowest one that holds an adapter.
type stage int

const (
	below stage = iota - 1 // further down: a block before this one
	stageQKV
	stageO
	stageGateUp
	stageDown
)

func stageOf(linear int) stage {
	return [...]stage{stageQKV, stageQKV, stageQKV, stageO, stageGateUp, stageGateUp, stageDown}[linear]
}

// last is the stage after which the backward of block i ends.
func (m *Model) last(i int) stage {
	if i > m.first {
		return below
	}
	return m.lowest
}

// pushIf pushes a gradient that somebody further down wants; absent otherwise.
func (m *Model) pushIf(wanted bool, rows, cols int) tensor.Tensor {
	if !wanted {
		return tensor.Tensor{}
	}
	return m.push(rows, cols)
}

// feedBackward differentiates out = h + Down·a, a = act(g) ⊙ u, g, u = Gate·n2, Up·n2, n2 = RMSNorm(h):  d, the gradient of out,
// becomes that of h. It overwrites s.g.
func (m *Model) feedBackward(p *pass, l *layer, s *acts, d tensor.Tensor) {
	c, n, last := &m.Config, p.n(), m.last(l.i)
	da := m.pushIf(last < stageDown, n, c.Inter)
	l.lin[Down].Backward(m.Device, da, d, s.a, 0)
	if last == stageDown {
		return
	}
	dg, du := s.g, da
	m.GateBackward(dg, du, da, s.g, s.u, c.Act)
	dn := m.pushIf(last < stageGateUp, n, c.Hidden)
	l.lin[Gate].Backward(m.Device, dn, dg, s.n2, 0)
	l.lin[Up].Backward(m.Device, dn, du, s.n2, 1)
	if last < stageGateUp {
		m.RMSNormBackward(d, dn, s.h, l.MLPNorm, s.rstd2, 1)
	}
}

// attendBackward differentiates h = x + O·att, att = attn(q, k, v), q, k, v of n = RMSNorm(x):  d, the gradient of h, becomes that
// of x.
func (m *Model) attendBackward(p *pass, l *layer, s *acts, d tensor.Tensor) {
	c, n, last := &m.Config, p.n(), m.last(l.i)
	datt := m.pushIf(last < stageO, n, c.Heads*c.HeadDim)
	l.lin[O].Backward(m.Device, datt, d, s.att, 0)
	if last == stageO {
		return
	}
	dq := m.push(n, c.Heads*c.HeadDim)
	dk, dv := m.push(n, c.KVHeads*c.HeadDim), m.push(n, c.KVHeads*c.HeadDim)
	k, v, att := m.visible(p, l.i, s)
	m.AttentionBackward(dq, dk, dv, datt, s.att, s.lse, s.q, k, v, att)
	dq, dk = m.queryKeyBackward(p, l, s, dq, dk)
	dn := m.pushIf(last < stageQKV, n, c.Hidden)
	l.lin[Q].Backward(m.Device, dn, dq, s.n, 0)
	l.lin[K].Backward(m.Device, dn, dk, s.n, 1)
	l.lin[V].Backward(m.Device, dn, dv, s.n, 1)
	if last < stageQKV {
		m.RMSNormBackward(d, dn, s.x, l.AttnNorm, s.rstd, 1)
	}
}

// queryKeyBackward rotates dq, dk back and differentiates qk-norm; it then overwrites s.q, s.k.
func (m *Model) queryKeyBackward(p *pass, l *layer, s *acts, dq, dk tensor.Tensor) (tensor.Tensor, tensor.Tensor) {
	c := &m.Config
	m.Rope(dq, m.cos, m.sin, p.pos, c.Heads, -1)
	m.Rope(dk, m.cos, m.sin, p.pos, c.KVHeads, -1)
	if !c.QKNorm {
		return dq, dk
	}
	d := c.HeadDim
	m.RMSNormBackward(heads(s.q, d), heads(dq, d), heads(s.qr, d), l.QNorm, s.qs, 0)
	m.RMSNormBackward(heads(s.k, d), heads(dk, d), heads(s.kr, d), l.KNorm, s.ks, 0)
	return s.q, s.k
}

// blockBackward takes d from block i's output to its input and adds to the block's adapter gradients. With recomputation s
// holds the block's input only.
func (m *Model) blockBackward(p *pass, i int, s *acts, d tensor.Tensor) {
	l := m.lease(p, i)
	defer m.Weights.Release(i)
	if i > m.first {
		m.Weights.Prefetch(i - 1)
	}
	defer m.Acts.Reset(m.Acts.Mark())
	recompute := s.h.Absent()
	if recompute {
		m.attend(p, l, s, s.x, m.push(p.n(), m.Config.Hidden))
	}
	mid := m.Acts.Mark()
	if recompute {
		m.feed(p, l, s, tensor.Tensor{})
	}
	m.feedBackward(p, l, s, d)
	m.Acts.Reset(mid)
	if m.last(i) <= stageO {
		m.attendBackward(p, l, s, d)
	}
}
