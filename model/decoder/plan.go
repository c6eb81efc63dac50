package decoder

import (
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Plan is the memory of a rank beside the frozen base, in bytes. A step, run on a backend that does nothing, measures its own
// stack, exactly, and what the real one would take for itself, as far as that one tells (compute.Surveyor).
type Plan struct {
	Slot      int // the weight slot: the largest linear in the compute type, dense or packed as its products go
	Stack     int // activations at their peak, with a chunk of logits
	Rope      int // cos and sin
	Cache     int // keys and values of a generation
	Adapters  int // A and B, and their copy in BF16 where that is the compute type
	Gradients int // and the step's scalars
	Moments   int // AdamW's m and v
	Scratch   int // of the backend itself
	// Logits is the chunk of logits that Stack includes, ChunkRows·V.
	Logits, ChunkRows int
}

// Total is all of it.
func (p Plan) Total() int {
	return p.Slot + p.Stack + p.Rope + p.Cache + p.Adapters + p.Gradients + p.Moments + p.Scratch
}

// Estimate is the plan of a model on be, before anything is allocated: with adapters unless lc is nil, for training or not. w may be a
// Sketch. be may be nil: then Scratch is not known, and 0.
func Estimate(be compute.Backend, c Config, w Weights, lc *lora.Config, train bool, o Options) (Plan, error) {
	o = o.defaults(&c)
	if err := c.fits(w, o); err != nil {
		return Plan{}, err
	}
	var a *lora.Adapters
	if lc != nil {
		shapes, err := Targets(c, w, *lc)
		if err != nil {
			return Plan{}, err
		}
		a = lora.New(compute.Dry{}, *lc, shapes, train)
		if o.DType == tensor.BF16 {
			a.Halve(compute.Dry{})
		}
	}
	return plan(compute.SurveyOf(be), &c, w, a, o), nil
}

// plan runs the largest batch of o on nothing.
func plan(survey compute.Survey, c *Config, w Weights, a *lora.Adapters, o Options) Plan {
	var p Plan
	ws := &compute.Workspace{Weight: compute.NewSlot(compute.Nowhere, 1<<62), Acts: compute.NewStack(compute.Nowhere, 1<<62)}
	m := build(compute.Device{Backend: survey, Workspace: ws}, *c, w, a, o)
	n := o.Batch * o.Seq
	b := Batch{B: o.Batch, T: o.Seq, Tokens: make([]int32, n), Targets: make([]int32, n)}
	if a != nil && a.Trains() {
		m.LossGrad(b)
		m.SumSquares(a.Grads)
	}
	m.Losses(b)
	p.Slot, p.Stack, p.Scratch = ws.Weight.Peak(), ws.Acts.Peak(), survey.Scratch()
	p.Rope = m.cos.Bytes() + m.sin.Bytes()
	p.Cache = o.Cache * (8 + 2*o.DType.Size()*c.Layers*c.KVHeads*c.HeadDim)
	p.ChunkRows, p.Logits = o.ChunkRows, o.DType.Size()*o.ChunkRows*c.Vocab
	if a != nil {
		p.Adapters, p.Gradients, p.Moments = a.Params.Bytes()+a.Half.Bytes(), a.Wire().Bytes(), a.M.Bytes()+a.V.Bytes()
	}
	return p
}

// Sketch is weights without memory: shapes, types and counts of a model that is not there, its linears pruned to the pattern p or,
// where that is unstructured, by the fraction removed. What is not a linear is stored as dt, norms and biases as F32.
func Sketch(c Config, dt tensor.DType, p sparse.Pattern, removed float64) *Resident {
	norm := func(n int) tensor.Tensor { return tensor.Tensor{Rows: 1, Cols: n, Mem: compute.Nowhere} }
	table := tensor.Tensor{DType: dt, Rows: c.Vocab, Cols: c.Hidden, Mem: compute.Nowhere}
	r := &Resident{EmbedTable: table, HeadTable: table, Norm: norm(c.Hidden), Blocks: make([]Block, c.Layers)}
	for i := range r.Blocks {
		b := &r.Blocks[i]
		b.AttnNorm, b.MLPNorm = norm(c.Hidden), norm(c.Hidden)
		if c.QKNorm {
			b.QNorm, b.KNorm = norm(c.HeadDim), norm(c.HeadDim)
		}
		for j, name := range Linears {
			out, in := c.Shape(j)
			b.Linears[j] = Base{Name: fmt.Sprintf("model.layers.%d.%s", i, name), W: sparse.Sketch(out, in, dt, p, removed)}
			if c.Bias[j] {
				b.Linears[j].Bias = norm(out)
			}
		}
	}
	return r
}
