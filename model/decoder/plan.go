package decoder

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Plan is the memory of a rank beside the frozen base, in bytes. It is exact: a step, run on a backend that does nothing,
// measures its own stack.
type Plan struct {
	Slot      int // the weight slot: the largest linear in the compute type
	Stack     int // activations at their peak, with a chunk of logits
	Rope      int // cos and sin
	Cache     int // keys and values of a generation
	Adapters  int // A and B, and their copy in BF16 where that is the compute type
	Gradients int // and the step's scalars
	Moments   int // AdamW's m and v
	// Logits is the chunk of logits that Stack includes, ChunkRows·V.
	Logits, ChunkRows int
}

// Total is all of it.
func (p Plan) Total() int {
	return p.Slot + p.Stack + p.Rope + p.Cache + p.Adapters + p.Gradients + p.Moments
}

// Estimate is the plan of a model that is not there: with adapters unless lc is nil, for training or not.
func Estimate(c Config, lc *lora.Config, train bool, o Options) (Plan, error) {
	o = o.defaults(&c)
	w := imagined(c)
	if err := c.fits(w, o); err != nil {
		return Plan{}, err
	}
	if lc == nil {
		return plan(&c, w, nil, o), nil
	}
	shapes, err := Targets(c, w, *lc)
	if err != nil {
		return Plan{}, err
	}
	a := lora.New(dry{}, *lc, shapes, train)
	if o.DType == tensor.BF16 {
		a.Halve(dry{})
	}
	return plan(&c, w, a, o), nil
}

// plan runs the largest batch of o on nothing.
func plan(c *Config, w Weights, a *lora.Adapters, o Options) Plan {
	var p Plan
	for j := range Linears {
		out, in := c.Shape(j)
		p.Slot = max(p.Slot, o.DType.Size()*out*in)
	}
	ws := &compute.Workspace{Weight: compute.NewSlot(nowhere, p.Slot), Acts: compute.NewStack(nowhere, 1<<62)}
	m := build(compute.Device{Backend: dry{}, Workspace: ws}, *c, w, a, o)
	n := o.Batch * o.Seq
	b := Batch{B: o.Batch, T: o.Seq, Tokens: make([]int32, n), Targets: make([]int32, n)}
	if a != nil && a.Trains() {
		m.LossGrad(b)
	}
	m.Losses(b)
	p.Stack = ws.Acts.Peak()
	p.Rope = m.cos.Bytes() + m.sin.Bytes()
	p.Cache = o.Cache * (8 + 2*o.DType.Size()*c.Layers*c.KVHeads*c.HeadDim)
	p.ChunkRows, p.Logits = o.ChunkRows, o.DType.Size()*o.ChunkRows*c.Vocab
	if a != nil {
		p.Adapters, p.Gradients, p.Moments = a.Params.Bytes()+a.Half.Bytes(), a.Wire().Bytes(), a.M.Bytes()+a.V.Bytes()
	}
	return p
}

// imagined are weights that have shapes only.
func imagined(c Config) *Resident {
	norm := func(n int) tensor.Tensor { return tensor.Tensor{Rows: 1, Cols: n, Mem: nowhere} }
	table := tensor.Tensor{Rows: c.Vocab, Cols: c.Hidden, Mem: nowhere}
	r := &Resident{EmbedTable: table, HeadTable: table, Norm: norm(c.Hidden), Blocks: make([]Block, c.Layers)}
	for i := range r.Blocks {
		b := &r.Blocks[i]
		b.AttnNorm, b.MLPNorm, b.QNorm, b.KNorm = norm(c.Hidden), norm(c.Hidden), norm(c.HeadDim), norm(c.HeadDim)
		for j, name := range Linears {
			out, in := c.Shape(j)
			b.Linears[j] = Base{Name: fmt.Sprintf("model.layers.%d.%s", i, name), W: &sparse.Weight{Out: out, In: in}}
		}
	}
	return r
}

// nowhere is memory that must not be touched.
var nowhere = tensor.Mem{Device: 64}

// dry is a backend that does nothing.
type dry struct{ compute.Backend }

func (dry) Alloc(int) tensor.Mem                                                           { return nowhere }
func (dry) Sync() error                                                                    { return nil }
func (dry) Upload(tensor.Tensor, []byte)                                                   {}
func (dry) Download([]byte, tensor.Tensor)                                                 {}
func (dry) Copy(_, _ tensor.Tensor)                                                        {}
func (dry) Fill(tensor.Tensor, float32)                                                    {}
func (dry) Gemm(tensor.Tensor, float32, tensor.Tensor, bool, tensor.Tensor, bool, float32) {}
func (dry) Merge(_ tensor.Tensor, _ *sparse.Weight, _, _ tensor.Tensor, _ float32)         {}
func (dry) Mask(tensor.Tensor, *sparse.Weight)                                             {}
func (dry) AddBias(_, _ tensor.Tensor)                                                     {}
func (dry) Add(_, _ tensor.Tensor)                                                         {}
func (dry) Dropout(_, _, _ tensor.Tensor, _ uint64, _ float32)                             {}
func (dry) Gather(_, _, _ tensor.Tensor)                                                   {}
func (dry) Scatter(_, _, _ tensor.Tensor)                                                  {}
func (dry) RMSNorm(_, _, _, _ tensor.Tensor, _ float32)                                    {}
func (dry) RMSNormBackward(_, _, _, _, _ tensor.Tensor, _ float32)                         {}
func (dry) Rope(_, _, _, _ tensor.Tensor, _ int, _ float32)                                {}
func (dry) Gate(_, _, _ tensor.Tensor, _ compute.Act)                                      {}
func (dry) GateBackward(_, _, _, _, _ tensor.Tensor, _ compute.Act)                        {}
func (dry) Attention(_, _, _, _, _ tensor.Tensor, _ compute.Attn)                          {}
func (dry) AttentionBackward(_, _, _, _, _, _, _, _, _ tensor.Tensor, _ compute.Attn)      {}
func (dry) CrossEntropy(_, _, _ tensor.Tensor, _ bool)                                     {}
