package decoder

import (
	"github.com/splora/splora/model/tensor"
)

// Loss gives Σ loss over the batch's active tokens, and their number. Nothing is kept for a backward.
func (m *Model) Loss(b Batch) (sum float64, tokens int, err error) {
	per, counts, err := m.Losses(b)
	for i := range per {
		sum, tokens = sum+per[i], tokens+counts[i]
	}
	return sum, tokens, err
}

// Losses gives Σ loss and the number of active tokens of every sequence.
func (m *Model) Losses(b Batch) (sums []float64, tokens []int, err error) {
	if err := m.check(&b); err != nil {
		return nil, nil, err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	p := m.begin(&b)
	x := m.embed(p, &b)
	m.run(p, x)
	loss, rows := m.head(p, x, tensor.Tensor{}, &b)
	sums, tokens = make([]float64, b.B), make([]int, b.B)
	for i, r := range rows {
		sums[int(r)/b.T] += float64(loss[i])
		tokens[int(r)/b.T]++
	}
	return sums, tokens, m.Sync()
}

// LossGrad is Loss, and adds the gradient of Σ loss, not normalised, to the adapters' gradients.
func (m *Model) LossGrad(b Batch) (sum float64, tokens int, err error) {
	if m.Adapters == nil || !m.Adapters.Trains() {
		panic("decoder: LossGrad without adapters that train")
	}
	if err := m.check(&b); err != nil {
		return 0, 0, err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	p := m.begin(&b)
	m.dropout(p, &b)
	x, d := m.embed(p, &b), m.push(p.n(), m.Config.Hidden)
	kept, x := m.runKeeping(p, x)
	loss, rows := m.head(p, x, d, &b)
	for _, v := range loss {
		sum += float64(v)
	}
	for i := m.Config.Layers - 1; i >= m.first && len(rows) > 0; i-- {
		k := &kept[i-m.first]
		m.Acts.Reset(k.top)
		m.blockBackward(p, i, &k.acts, d)
	}
	return sum, len(rows), m.Sync()
}

func (m *Model) check(b *Batch) error { return b.check(&m.Config, m.Options, m.cos.Rows) }

// embed pushes x [N,C], the rows of the embedding table.
func (m *Model) embed(p *pass, b *Batch) tensor.Tensor {
	x := m.push(p.n(), m.Config.Hidden)
	m.Gather(x, m.Weights.Embed(), m.upload(b.Tokens))
	p.saw("model.embed_tokens", x)
	return x
}

// run takes x through all blocks in place.
func (m *Model) run(p *pass, x tensor.Tensor) {
	for i := range m.Config.Layers {
		m.step(p, i, func(l *layer) { m.through(p, l, x) })
	}
}

// step runs f with block i leased and the next one on its way.
func (m *Model) step(p *pass, i int, f func(l *layer)) {
	l := m.lease(p, i)
	if i+1 < m.Config.Layers {
		m.Weights.Prefetch(i + 1)
	}
	f(l)
	m.Weights.Release(i)
}

// kept is what one block's backward finds: its activations and the height of the stack above them.
type kept struct {
	acts
	top int
}

// runKeeping takes x through all blocks and keeps what the backward of blocks first … needs. It gives the last block's output.
func (m *Model) runKeeping(p *pass, x tensor.Tensor) ([]kept, tensor.Tensor) {
	var all []kept
	for i := range m.Config.Layers {
		m.step(p, i, func(l *layer) {
			if i < m.first {
				m.through(p, l, x)
				return
			}
			var k kept
			k, x = m.keep(p, l, x)
			all = append(all, k)
		})
	}
	return all, x
}

// keep runs one block and leaves on the stack what its backward needs, and the block's output. The last block keeps all in any
// case: its backward comes next.
func (m *Model) keep(p *pass, l *layer, x tensor.Tensor) (k kept, out tensor.Tensor) {
	n, c := p.n(), m.Config.Hidden
	if m.Options.Recompute == RecomputeBlock && l.i+1 < m.Config.Layers {
		k.x, out = x, m.push(n, c)
		k.top = m.Acts.Mark()
		m.Copy(out, x)
		m.through(p, l, out)
		return k, out
	}
	h := m.push(n, c)
	m.attend(p, l, &k.acts, x, h)
	out = m.push(n, c)
	m.feed(p, l, &k.acts, out)
	k.top = m.Acts.Mark()
	return k, out
}
