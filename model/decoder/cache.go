package decoder

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// Cache is the keys and values of one sequence that grows: generation, and any forward in pieces.
type Cache struct {
	m        *Model
	k, v     []tensor.Tensor // per layer [max, Hkv·D]
	pos, doc tensor.Tensor   // I32 [1,max]
	n        int
}

// NewCache allocates room for Options.Cache positions.
func (m *Model) NewCache() *Cache {
	if m.Options.Cache < 1 {
		panic("decoder: NewCache without Options.Cache")
	}
	c := &Cache{m: m, pos: m.ints(count(m.Options.Cache)), doc: m.ints(make([]int32, m.Options.Cache))}
	d := m.Config.KVHeads * m.Config.HeadDim
	for range m.Config.Layers {
		c.k, c.v = append(c.k, m.act(m.Options.Cache, d)), append(c.v, m.act(m.Options.Cache, d))
	}
	return c
}

// act allocates an activation outside the scratch memory.
func (m *Model) act(rows, cols int) tensor.Tensor {
	dt := m.Options.DType
	return tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: m.Alloc(rows * cols * dt.Size())}
}

func (m *Model) ints(v []int32) tensor.Tensor {
	t := tensor.Tensor{DType: tensor.I32, Rows: 1, Cols: len(v), Mem: m.Alloc(len(v) * 4)}
	m.Upload(t, tensor.Of(v).Mem.Host)
	return t
}

// Len is the number of tokens held.
func (c *Cache) Len() int { return c.n }

// Cut forgets all but the first n tokens.
func (c *Cache) Cut(n int) { c.n = min(c.n, n) }

// Next appends tokens and gives the logits [V] after the last of them. With an error none of them is appended.
func (c *Cache) Next(tokens []int32) (logits []float32, err error) {
	defer func(n int) {
		if err != nil {
			c.Cut(n)
		}
	}(c.n)
	if len(tokens) == 0 {
		return nil, fmt.Errorf("decoder: no token to go on from")
	}
	if c.n+len(tokens) > c.m.Options.Cache {
		return nil, fmt.Errorf("decoder: %d tokens, the cache has room for %d", c.n+len(tokens), c.m.Options.Cache)
	}
	for ; len(tokens) > c.m.Options.Seq; tokens = tokens[c.m.Options.Seq:] {
		if _, err := c.piece(tokens[:c.m.Options.Seq], false); err != nil {
			return nil, err
		}
	}
	return c.piece(tokens, true)
}

func (c *Cache) piece(tokens []int32, logits bool) (out []float32, err error) {
	m, b := c.m, Batch{B: 1, T: len(tokens), Tokens: tokens}
	if err := m.check(&b); err != nil {
		return nil, err
	}
	defer m.Acts.Reset(m.Acts.Mark())
	p := &pass{B: 1, T: b.T, pos: c.pos.Window(c.n, 1, b.T), doc: c.doc.Window(c.n, 1, b.T), cache: c}
	x := m.embed(p, &b)
	m.run(p, x)
	if logits {
		out = m.download(x, []int32{int32(b.T - 1)})
	}
	c.n += b.T
	return out, m.Sync()
}

// next is where layer i's keys and values of the next t tokens go.
func (c *Cache) next(i, t int) (k, v tensor.Tensor) {
	return c.k[i].Slice(c.n, c.n+t), c.v[i].Slice(c.n, c.n+t)
}

// upTo is layer i's keys and values, those of the t tokens under way among them, and a with their positions.
func (c *Cache) upTo(i, t int, a compute.Attn) (k, v tensor.Tensor, _ compute.Attn) {
	a.Tk = c.n + t
	a.KPos, a.KDoc = c.pos.Window(0, 1, a.Tk), c.doc.Window(0, 1, a.Tk)
	return c.k[i].Slice(0, a.Tk), c.v[i].Slice(0, a.Tk), a
}
