package decoder

import (
	"math"
	"strings"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// acts are one block's activations; N = B·T rows.
type acts struct {
	x, n, rstd tensor.Tensor // n = RMSNorm(x), the one input of q, k, v
	q, k, v    tensor.Tensor // q [N,Hq·D], k [N,Hkv·D], after the rotation
	qr, kr     tensor.Tensor // before qk-norm
	qs, ks     tensor.Tensor // its rstd, [1,N·Hq], [1,N·Hkv]
	att, lse   tensor.Tensor
	h          tensor.Tensor // x + O·att
	n2, rstd2  tensor.Tensor // n2 = RMSNorm(h), the one input of gate, up
	g, u, a    tensor.Tensor // a = act(g) ⊙ u
}

// prefix is "model.layers.0.".
func (b *Block) prefix() string { return strings.TrimSuffix(b.Linears[Q].Name, "self_attn.q_proj") }

// forward sets y = Linear_j·x + β·y.
func (m *Model) forward(p *pass, l *layer, j int, y, x tensor.Tensor, beta float32) {
	if p.in != nil {
		p.in(j, x)
	}
	l.lin[j].Forward(m.Device, y, x, beta)
	p.saw(l.lin[j].Name, y)
}

// attend pushes the attention half's activations and sets h = x + O·attn(rope(Q·n), rope(K·n), V·n), n = RMSNorm(x). h may be x.
func (m *Model) attend(p *pass, l *layer, s *acts, x, h tensor.Tensor) {
	c, n := &m.Config, p.n()
	s.x, s.h, s.n, s.rstd = x, h, m.push(n, c.Hidden), m.pushFloat(1, n)
	m.RMSNorm(s.n, s.rstd, x, l.AttnNorm, c.Eps)
	p.saw(l.prefix()+"input_layernorm", s.n)
	s.q = m.push(n, c.Heads*c.HeadDim)
	s.k, s.v = m.keyValue(p, l.i)
	m.queryKey(p, l, s)
	m.forward(p, l, V, s.v, s.n, 0)
	s.att, s.lse = m.push(n, c.Heads*c.HeadDim), m.pushFloat(p.B*c.Heads, p.T)
	k, v, att := m.visible(p, l.i, s)
	m.Attention(s.att, s.lse, s.q, k, v, att)
	p.saw(l.prefix()+"self_attn", s.att)
	if !same(h, x) {
		m.Copy(h, x)
	}
	m.forward(p, l, O, h, s.att, 1)
}

// queryKey sets q = rope(norm(Q·n)), k = rope(norm(K·n)); norm, over each head, only with qk-norm.
func (m *Model) queryKey(p *pass, l *layer, s *acts) {
	c, n := &m.Config, p.n()
	s.qr, s.kr = s.q, s.k
	if c.QKNorm {
		s.qr, s.qs = m.push(n, c.Heads*c.HeadDim), m.pushFloat(1, n*c.Heads)
		s.kr, s.ks = m.push(n, c.KVHeads*c.HeadDim), m.pushFloat(1, n*c.KVHeads)
	}
	m.forward(p, l, Q, s.qr, s.n, 0)
	m.forward(p, l, K, s.kr, s.n, 0)
	if c.QKNorm {
		m.RMSNorm(heads(s.q, c.HeadDim), s.qs, heads(s.qr, c.HeadDim), l.QNorm, c.Eps)
		m.RMSNorm(heads(s.k, c.HeadDim), s.ks, heads(s.kr, c.HeadDim), l.KNorm, c.Eps)
		p.saw(l.prefix()+"self_attn.q_norm", s.q)
		p.saw(l.prefix()+"self_attn.k_norm", s.k)
	}
	m.Rope(s.q, m.cos, m.sin, p.pos, c.Heads, 1)
	m.Rope(s.k, m.cos, m.sin, p.pos, c.KVHeads, 1)
}

// heads gives t [N, heads·D] as [N·heads, D].
func heads(t tensor.Tensor, d int) tensor.Tensor { return t.Reshape(t.Len()/d, d) }

// keyValue is where this pass's keys and values go: onto the stack, or behind the cached ones.
func (m *Model) keyValue(p *pass, i int) (k, v tensor.Tensor) {
	if p.cache != nil {
		return p.cache.next(i, p.T)
	}
	d := m.Config.KVHeads * m.Config.HeadDim
	return m.push(p.n(), d), m.push(p.n(), d)
}

// visible is all keys and values that layer i's queries may see, and the shape of that call.
func (m *Model) visible(p *pass, i int, s *acts) (k, v tensor.Tensor, a compute.Attn) {
	c := &m.Config
	a = compute.Attn{
		B: p.B, Tq: p.T, Tk: p.T, Hq: c.Heads, Hkv: c.KVHeads, D: c.HeadDim,
		Scale: float32(1 / math.Sqrt(float64(c.HeadDim))), Window: c.window(i),
		QPos: p.pos.Reshape(p.B, p.T), QDoc: p.doc.Reshape(p.B, p.T),
	}
	a.KPos, a.KDoc = a.QPos, a.QDoc
	if p.cache == nil {
		return s.k, s.v, a
	}
	return p.cache.upTo(i, p.T, a)
}

// feed pushes the MLP half's activations and, after attend, sets out = h + Down·(act(Gate·n2) ⊙ Up·n2), n2 = RMSNorm(h). out may be h; absent:
// the last product is not formed, as a recomputation does not need it.
func (m *Model) feed(p *pass, l *layer, s *acts, out tensor.Tensor) {
	c, n, h := &m.Config, p.n(), s.h
	s.n2, s.rstd2 = m.push(n, c.Hidden), m.pushFloat(1, n)
	m.RMSNorm(s.n2, s.rstd2, h, l.MLPNorm, c.Eps)
	p.saw(l.prefix()+"post_attention_layernorm", s.n2)
	s.g, s.u, s.a = m.push(n, c.Inter), m.push(n, c.Inter), m.push(n, c.Inter)
	m.forward(p, l, Gate, s.g, s.n2, 0)
	m.forward(p, l, Up, s.u, s.n2, 0)
	m.Gate(s.a, s.g, s.u, c.Act)
	p.saw(l.prefix()+"mlp.act_fn", s.a)
	if out.Absent() {
		return
	}
	if !same(out, h) {
		m.Copy(out, h)
	}
	m.forward(p, l, Down, out, s.a, 1)
}

// through runs a block in place, x = block(x), and keeps nothing.
func (m *Model) through(p *pass, l *layer, x tensor.Tensor) {
	var s acts
	mark := m.Acts.Mark()
	m.attend(p, l, &s, x, x)
	m.Acts.Reset(mark)
	m.feed(p, l, &s, x)
	m.Acts.Reset(mark)
}

// same reports whether two tensors are the same memory.
func same(a, b tensor.Tensor) bool {
	if a.Mem.Host != nil && b.Mem.Host != nil {
		return &a.Mem.Host[0] == &b.Mem.Host[0]
	}
	return a.Mem.Device == b.Mem.Device
}
