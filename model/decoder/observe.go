package decoder

import (
	"github.com/splora/splora/model/tensor"
)

// Hidden allocates hidden states [B·T, C] outside the scratch memory, for Embed and BlockForward.
func (m *Model) Hidden(b Batch) tensor.Tensor { return m.act(b.B*b.T, m.Config.Hidden) }

// Embed sets x [N,C] to the batch's embeddings.
func (m *Model) Embed(x tensor.Tensor, b Batch) error {
	if err := m.check(&b); err != nil {
		return err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	m.Gather(x, m.Weights.Embed(), m.upload(b.Tokens))
	return m.Sync()
}

// BlockForward sets x = block_i(x), with blk in the place of block i unless it is nil. Unless observe is nil, it is called with the
// input [N,in] of each linear (an index of Linears) before that runs; q, k, v share one input, gate and up another.
func (m *Model) BlockForward(i int, blk *Block, x tensor.Tensor, b Batch, observe func(linear int, x tensor.Tensor)) error {
	if err := m.check(&b); err != nil {
		return err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	p := m.begin(&b)
	p.in = observe
	if blk != nil {
		m.through(p, m.bind(p, i, blk), x)
		return m.Sync()
	}
	m.step(p, i, func(l *layer) { m.through(p, l, x) })
	return m.Sync()
}

// NonFinite is the first place where a forward leaves the finite numbers.
type NonFinite struct {
	Module        string // "model.layers.3.mlp.down_proj"
	Sequence, Pos int    // in the batch
}

// FindNonFinite runs the batch again and looks at the output of every module; nil when all are finite.
func (m *Model) FindNonFinite(b Batch) (*NonFinite, error) {
	if err := m.check(&b); err != nil {
		return nil, err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	var found *NonFinite
	p := m.begin(&b)
	p.out = func(module string, y tensor.Tensor) {
		if found == nil {
			if row := m.firstNonFinite(y); row >= 0 {
				found = &NonFinite{module, row / b.T, row % b.T}
			}
		}
	}
	x := m.embed(p, &b)
	m.run(p, x)
	for i := 0; i < p.n() && found == nil; i += m.Options.ChunkRows {
		if row := m.nonFiniteLogits(x, count(p.n())[i:min(i+m.Options.ChunkRows, p.n())]); row >= 0 {
			found = &NonFinite{"lm_head", (i + row) / b.T, (i + row) % b.T}
		}
	}
	return found, m.Sync()
}

func (m *Model) nonFiniteLogits(x tensor.Tensor, rows []int32) int {
	defer m.Acts.Reset(m.Acts.Mark())
	_, _, logits := m.logits(x, m.upload(rows))
	return m.firstNonFinite(logits)
}

// firstNonFinite is the first row of y that holds a NaN or an infinity, or −1.
func (m *Model) firstNonFinite(y tensor.Tensor) int {
	host := make([]float32, y.Len())
	m.downloadWide(host, y)
	for i, v := range host {
		if v-v != 0 {
			return i / y.Cols
		}
	}
	return -1
}
