package decoder

import (
	"fmt"

	"github.com/splora/splora/model/tensor"
)

// Batch is B sequences of T tokens, row-major [B·T]; data.Batch has the same fields.
type Batch struct {
	B, T   int
	Tokens []int32
	// Targets[i] is the token that position i should predict, already shifted; < 0: no loss. nil: none has one.
	Targets []int32
	// Positions restart with every document; nil: 0 … T−1 in every sequence.
	Positions []int32
	// Docs separates documents packed into one sequence; −1 is padding. nil: each sequence is one document.
	Docs []int32
	// Rows are the numbers of the B sequences in their data set, and Step that of the optimizer step: what dropout's masks
	// depend on. nil: 0 … B−1.
	Rows []int
	Step int
}

// Active is the number of tokens with a loss.
func (b *Batch) Active() int {
	n := 0
	for _, t := range b.Targets {
		if t >= 0 {
			n++
		}
	}
	return n
}

// check reports what the model cannot run; positions lie in [0, table).
func (b *Batch) check(c *Config, o Options, table int) error {
	n := b.B * b.T
	switch {
	case b.B < 1 || b.T < 1:
		return fmt.Errorf("decoder: a batch of %d sequences of %d tokens", b.B, b.T)
	case b.T > c.MaxPositions:
		return fmt.Errorf("decoder: a sequence of %d tokens is longer than the model's max_position_embeddings %d; use a smaller --seq", b.T, c.MaxPositions)
	case b.B > o.Batch || b.T > o.Seq:
		return fmt.Errorf("decoder: a batch of %d×%d tokens; memory was planned for at most %d×%d", b.B, b.T, o.Batch, o.Seq)
	}
	for _, f := range []struct {
		name string
		v    []int32
		min  int32
		max  int
		must bool
	}{
		{"tokens", b.Tokens, 0, c.Vocab, true},
		{"targets", b.Targets, -1 << 31, c.Vocab, false},
		{"positions", b.Positions, 0, table, false},
		{"docs", b.Docs, -1, 1 << 31, false},
	} {
		if len(f.v) != n && (f.must || f.v != nil) {
			return fmt.Errorf("decoder: %d %s in a batch of %d×%d", len(f.v), f.name, b.B, b.T)
		}
		for i, x := range f.v {
			if x < f.min || int(x) >= f.max {
				return fmt.Errorf("decoder: %s: %d at sequence %d, position %d, is outside [%d, %d)", f.name, x, i/b.T, i%b.T, f.min, f.max)
			}
		}
	}
	if b.Rows != nil && len(b.Rows) != b.B {
		return fmt.Errorf("decoder: %d row numbers in a batch of %d sequences", len(b.Rows), b.B)
	}
	return nil
}

// pass is one run over a batch: its shape, what attention sees, and who watches.
type pass struct {
	B, T     int
	pos, doc tensor.Tensor // I32 [1,N]
	ids      tensor.Tensor // I32 [1,N], what dropout's masks depend on; absent: no dropout
	step     int
	cache    *Cache // nil: queries and keys are the same tokens
	in       func(linear int, x tensor.Tensor)
	out      func(module string, y tensor.Tensor)
}

func (p *pass) n() int { return p.B * p.T }

func (p *pass) saw(module string, y tensor.Tensor) {
	if p.out != nil {
		p.out(module, y)
	}
}

// begin uploads what every block needs of b.
func (m *Model) begin(b *Batch) *pass {
	p := &pass{B: b.B, T: b.T}
	pos, doc := b.Positions, b.Docs
	if pos == nil {
		pos = make([]int32, p.n())
		for i := range pos {
			pos[i] = int32(i % b.T)
		}
	}
	if doc == nil {
		doc = make([]int32, p.n())
	}
	p.pos, p.doc = m.upload(pos), m.upload(doc)
	return p
}

// dropout uploads the identity of every row of activations: its row in the data and its position there, whatever the padding.
func (m *Model) dropout(p *pass, b *Batch) {
	if m.Adapters.Config.Dropout == 0 {
		return
	}
	ids := make([]int32, p.n())
	for i := range ids {
		row := i / b.T
		if b.Rows != nil {
			row = b.Rows[row]
		}
		ids[i] = int32(uint32(row*m.Config.MaxPositions + i%b.T))
	}
	p.ids, p.step = m.upload(ids), b.Step
}

// upload pushes v as I32 [1,n].
func (m *Model) upload(v []int32) tensor.Tensor {
	t := m.Acts.Push(tensor.I32, 1, len(v))
	if len(v) > 0 {
		m.Upload(t, tensor.Of(v).Mem.Host)
	}
	return t
}

// push gives an activation, of the compute type.
func (m *Model) push(rows, cols int) tensor.Tensor { return m.Acts.Push(m.Options.DType, rows, cols) }

// pushFloat gives what is float32 whatever the compute type: rstd, lse, losses.
func (m *Model) pushFloat(rows, cols int) tensor.Tensor { return m.Acts.Push(tensor.F32, rows, cols) }
