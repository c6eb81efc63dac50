package decoder

import (
	"fmt"
	"slices"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// Recompute says what a training forward keeps for the backward.
type Recompute uint8

// What is kept.
const (
	RecomputeBlock Recompute = iota // the input of each block; a block's inside is computed again in backward
	RecomputeNone                   // every activation
)

// Memory says in which form a masked linear is computed.
type Memory uint8

// Forms of W̃ and G.
const (
	MemoryReuse Memory = iota // dense, in the one weight slot
	MemoryFused               // as the backend's masked linear has it, wherever it expects that to be faster
	MemoryAuto                // as MemoryFused on a backend that has a masked linear, else as MemoryReuse
)

// Options size a model's scratch memory, and choose how it is used.
type Options struct {
	// Batch and Seq are the most sequences, and the longest, of one call; 0 means 1 and the model's MaxPositions.
	Batch, Seq int
	Recompute  Recompute
	Memory     Memory
	// DType is the compute type, F32 or BF16: that of activations, their gradients, the weight slot, logits and the cache. Sums,
	// adapters and what the optimizer holds are float32 in any case.
	DType tensor.DType
	// ChunkRows is the number of tokens whose logits stand at a time; 0: the power of two next to N/⌈V/C⌉, so that a chunk of logits is about
	// as large as one activation [N,C], but at least 256: for each chunk the head is packed anew.
	ChunkRows int
	// Cache is the most positions that a generation holds (NewCache); 0: none.
	Cache int
}

func (o Options) defaults(c *Config) Options {
	if o.Batch == 0 {
		o.Batch = 1
	}
	if o.Seq == 0 {
		o.Seq = c.MaxPositions
	}
	n := o.Batch * o.Seq
	if o.ChunkRows == 0 {
		o.ChunkRows = 256
		for share := n / ((c.Vocab + c.Hidden - 1) / c.Hidden); 2*o.ChunkRows <= share; {
			o.ChunkRows *= 2
		}
	}
	o.ChunkRows = min(o.ChunkRows, n)
	return o
}

// Model is a decoder on one device. One goroutine owns it.
type Model struct {
	compute.Device
	Config   Config
	Options  Options // with the defaults filled in
	Plan     Plan
	Weights  Weights
	Adapters *lora.Adapters // nil: none

	cos, sin tensor.Tensor // [positions, D/2]
	linears  [][7]lora.Linear
	// The backward ends in block first (Layers when nothing is adapted), after its stage lowest.
	first  int
	lowest stage
}

// New allocates a device's scratch memory for a model over w, and checks that w has the shapes that c says. Adapters may be nil.
func New(be compute.Backend, c Config, w Weights, a *lora.Adapters, o Options) (*Model, error) {
	o = o.defaults(&c)
	if err := c.fits(w, o); err != nil {
		return nil, err
	}
	if o.DType == tensor.BF16 && a != nil {
		a.Halve(be)
	}
	if _, ok := be.(compute.SparseLinear); o.Memory == MemoryFused && !ok {
		return nil, fmt.Errorf("decoder: %s has no products over kept weights only; use --memory reuse", be.Name())
	}
	survey := compute.SurveyOf(be)
	p := plan(survey, &c, w, a, o)
	survey.Reserve()
	ws := &compute.Workspace{
		Weight: compute.NewSlot(be.Alloc(p.Slot), p.Slot),
		Acts:   compute.NewStack(be.Alloc(p.Stack), p.Stack),
	}
	m := build(compute.Device{Backend: be, Workspace: ws}, c, w, a, o)
	m.Plan = p
	cos, sin := c.ropeTables(m.cos.Rows)
	be.Upload(m.cos, tensor.Of(cos).Mem.Host)
	be.Upload(m.sin, tensor.Of(sin).Mem.Host)
	return m, be.Sync()
}

// build is New on memory that exists.
func build(dev compute.Device, c Config, w Weights, a *lora.Adapters, o Options) *Model {
	m := &Model{Device: dev, Config: c, Options: o, Weights: w, Adapters: a, first: c.Layers, lowest: stageDown}
	rows := max(o.Seq, o.Cache)
	m.cos = tensor.Tensor{Rows: rows, Cols: c.HeadDim / 2, Mem: dev.Alloc(rows * c.HeadDim / 2 * 4)}
	m.sin = tensor.Tensor{Rows: rows, Cols: c.HeadDim / 2, Mem: dev.Alloc(rows * c.HeadDim / 2 * 4)}
	m.linears = make([][7]lora.Linear, c.Layers)
	for i := range m.linears {
		blk := w.Acquire(i)
		for j := range m.linears[i] {
			l := a.Linear(blk.Linears[j].Name)
			l.Kept = o.Memory != MemoryReuse
			m.linears[i][j] = l
			if l.Adapted() && m.first >= i {
				m.first, m.lowest = i, min(m.lowest, stageOf(j))
			}
		}
		w.Release(i)
	}
	return m
}

// Targets are the shapes of the linears that lc adapts, in the order of blocks and of Linears.
func Targets(c Config, w Weights, lc lora.Config) ([]lora.Shape, error) {
	if err := lc.Validate(Linears[:]); err != nil {
		return nil, err
	}
	var s []lora.Shape
	for i := range c.Layers {
		blk := w.Acquire(i)
		for j, name := range Linears {
			if out, in := c.Shape(j); lc.Adapts(name) {
				s = append(s, lora.Shape{Name: blk.Linears[j].Name, Out: out, In: in})
			}
		}
		w.Release(i)
	}
	return s, nil
}

// Shape is [out, in] of a block's linear.
func (c *Config) Shape(linear int) (out, in int) {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	s := [...][2]int{{q, c.Hidden}, {kv, c.Hidden}, {kv, c.Hidden}, {c.Hidden, q}, {c.Inter, c.Hidden}, {c.Inter, c.Hidden}, {c.Hidden, c.Inter}}[linear]
	return s[0], s[1]
}

// layer is a block as one pass uses it: leased weights, bound to their adapters.
type layer struct {
	*Block
	i   int
	lin [7]lora.Linear
}

func (m *Model) lease(p *pass, i int) *layer { return m.bind(p, i, m.Weights.Acquire(i)) }

func (m *Model) bind(p *pass, i int, blk *Block) *layer {
	l := &layer{Block: blk, i: i, lin: m.linears[i]}
	for j := range l.lin {
		t := &l.lin[j]
		t.W, t.Bias = blk.Linears[j].W, blk.Linears[j].Bias
		if t.Adapted() && !p.ids.Absent() {
			t.Drop = m.Adapters.Config.DropoutAt(t.Name, p.step, p.ids)
		}
	}
	return l
}

// window is layer i's sliding window, 0 for none.
func (c *Config) window(i int) int {
	if c.Windows == nil {
		return 0
	}
	return c.Windows[i]
}

// fits checks the configuration and that the weights have its shapes.
func (c *Config) fits(w Weights, o Options) error {
	switch {
	case o.DType != tensor.F32 && o.DType != tensor.BF16:
		return fmt.Errorf("decoder: computing in %s; there are float32 and bfloat16", o.DType)
	case c.Layers < 1 || c.Hidden < 1 || c.Inter < 1 || c.Vocab < 1 || c.Heads < 1:
		return fmt.Errorf("decoder: config: layers %d, hidden %d, intermediate %d, vocabulary %d, heads %d must all be at least 1", c.Layers, c.Hidden, c.Inter, c.Vocab, c.Heads)
	case c.KVHeads < 1 || c.Heads%c.KVHeads != 0:
		return fmt.Errorf("decoder: config: %d heads do not share %d key/value heads evenly", c.Heads, c.KVHeads)
	case c.HeadDim < 2 || c.HeadDim%2 != 0:
		return fmt.Errorf("decoder: config: head_dim %d must be even", c.HeadDim)
	case c.Windows != nil && len(c.Windows) != c.Layers:
		return fmt.Errorf("decoder: config: %d sliding windows for %d layers", len(c.Windows), c.Layers)
	case max(o.Seq, o.Cache) > c.MaxPositions:
		return fmt.Errorf("decoder: a sequence of %d tokens is longer than the model's max_position_embeddings %d; use a smaller --seq", max(o.Seq, o.Cache), c.MaxPositions)
	}
	if err := c.Rope.check(); err != nil {
		return err
	}
	err := fitAll(
		fit("model.embed_tokens.weight", w.Embed(), c.Vocab, c.Hidden),
		fit("lm_head.weight", w.Head(), c.Vocab, c.Hidden),
		fit("model.norm.weight", w.FinalNorm(), 1, c.Hidden))
	for i := 0; i < c.Layers && err == nil; i++ {
		err = c.blockFits(w.Acquire(i))
		w.Release(i)
	}
	return err
}

func (c *Config) blockFits(b *Block) error {
	prefix := b.prefix()
	errs := []error{
		fit(prefix+"input_layernorm.weight", b.AttnNorm, 1, c.Hidden),
		fit(prefix+"post_attention_layernorm.weight", b.MLPNorm, 1, c.Hidden),
	}
	if c.QKNorm {
		errs = append(errs,
			fit(prefix+"self_attn.q_norm.weight", b.QNorm, 1, c.HeadDim),
			fit(prefix+"self_attn.k_norm.weight", b.KNorm, 1, c.HeadDim))
	}
	for j, l := range b.Linears {
		out, in := c.Shape(j)
		if l.W == nil {
			return fmt.Errorf("decoder: %s.weight is missing", l.Name)
		}
		errs = append(errs, fit(l.Name+".weight", tensor.Tensor{Rows: l.W.Out, Cols: l.W.In}, out, in))
		if !l.Bias.Absent() {
			errs = append(errs, fit(l.Name+".bias", l.Bias, 1, out))
		}
	}
	return fitAll(errs...)
}

func fit(name string, t tensor.Tensor, rows, cols int) error {
	if t.Rows == rows && t.Cols == cols {
		return nil
	}
	return fmt.Errorf("decoder: %s is [%d, %d], config.json says [%d, %d]", name, t.Rows, t.Cols, rows, cols)
}

func fitAll(errs ...error) error {
	if i := slices.IndexFunc(errs, func(e error) bool { return e != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}
