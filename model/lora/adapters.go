package lora

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

// Shape is one linear that is to be adapted.
type Shape struct {
	Name    string // module path, "model.layers.0.self_attn.q_proj"
	Out, In int
}

// Window says where a layer's adapter stands in the flat vectors: A [r,in] at At, and B [out,r] right behind it.
type Window struct {
	Shape
	At int
}

// Adapters are all adapters of a model as flat vectors: zeroing, clipping, AdamW, checkpoints and the all-reduce each touch
// one vector. Their order is the order of the shapes that they were made from.
type Adapters struct {
	Config Config // with the defaults filled in
	// Params are all A and B [1,P]. Grads, M, V [1,P] are their gradients and AdamW's moments; absent without training.
	Params, Grads, M, V tensor.Tensor
	// Half [1,P] is Params rounded to BF16, as Refresh left it; absent with F32 compute.
	Half    tensor.Tensor
	Windows []Window

	wire  tensor.Tensor // Grads and, behind them, the step's scalars [1, P+Tail]
	index map[string]int
}

// New allocates adapters for the given linears, all zero; Init or an adapter file gives them values. With train they get
// gradients and moments, too. Names must differ.
func New(mem compute.Memory, c Config, shapes []Shape, train bool) *Adapters {
	a := &Adapters{Config: c.Defaults(), index: make(map[string]int, len(shapes))}
	p := 0
	for i, s := range shapes {
		if _, twice := a.index[s.Name]; twice {
			panic(fmt.Sprintf("lora: two linears are named %s", s.Name))
		}
		a.index[s.Name] = i
		a.Windows = append(a.Windows, Window{s, p})
		p += a.Config.Rank * (s.In + s.Out)
	}
	a.Params = vector(mem, p)
	if train {
		a.wire = vector(mem, p+Tail)
		a.Grads = a.wire.Window(0, 1, p)
		a.M, a.V = vector(mem, p), vector(mem, p)
	}
	return a
}

func vector(mem compute.Memory, n int) tensor.Tensor {
	return tensor.Tensor{DType: tensor.F32, Rows: 1, Cols: n, Mem: mem.Alloc(4 * n)}
}

// Halve allocates Half, for BF16 compute, and fills it.
func (a *Adapters) Halve(mem compute.Memory) {
	if a.Half.Absent() {
		a.Half = tensor.Tensor{DType: tensor.BF16, Rows: 1, Cols: a.Len(), Mem: mem.Alloc(2 * a.Len())}
	}
	a.Refresh(mem)
}

// Refresh sets Half = Params, rounded. It is due whenever Params has changed: after an update, a load, a broadcast.
func (a *Adapters) Refresh(mem compute.Memory) {
	if !a.Half.Absent() {
		mem.Copy(a.Half, a.Params)
	}
}

// Len is P, the number of trained values.
func (a *Adapters) Len() int { return a.Params.Cols }

// Trains reports whether there are gradients.
func (a *Adapters) Trains() bool { return !a.Grads.Absent() }

// Find is the index in Windows of the linear of that name, or −1.
func (a *Adapters) Find(name string) int {
	if i, ok := a.index[name]; ok {
		return i
	}
	return -1
}

// Of gives layer i's A [r,in] and B [out,r] in flat, one of the four vectors or Half; absent in an absent vector.
func (a *Adapters) Of(i int, flat tensor.Tensor) (A, B tensor.Tensor) {
	if flat.Absent() {
		return
	}
	w, r := a.Windows[i], a.Config.Rank
	return flat.Window(w.At, r, w.In), flat.Window(w.At+r*w.In, w.Out, r)
}

// Linear is the adapter's part of the layer of that name; W and Bias are the caller's to add. Without an adapter of that
// name the layer is frozen only.
func (a *Adapters) Linear(name string) Linear {
	l := Linear{Name: name}
	if a == nil || a.Find(name) < 0 {
		return l
	}
	i := a.Find(name)
	l.Method, l.Scale = a.Config.Method, float32(a.Config.Scale())
	l.A, l.B = a.Of(i, a.Params)
	l.DA, l.DB = a.Of(i, a.Grads)
	l.A16, l.B16 = a.Of(i, a.Half)
	return l
}

// Init sets A ~ U(−1/√in, 1/√in) (kaiming_uniform with a = √5) and B = 0. A layer's values depend on the seed and its name
// only: not on the order of the layers, and not on the rank.
func (a *Adapters) Init(mem compute.Memory, seed uint64) {
	mem.Fill(a.Params, 0)
	for i, w := range a.Windows {
		A, _ := a.Of(i, a.Params)
		v := uniform(stream(seed, w.Name), A.Len(), 1/math.Sqrt(float64(w.In)))
		mem.Upload(A, tensor.Of(v).Mem.Host)
	}
	a.Refresh(mem)
}

// ZeroGrads sets the gradients, and the scalars behind them, to zero.
func (a *Adapters) ZeroGrads(mem compute.Memory) { mem.Fill(a.wire, 0) }

// FirstNonFinite is the first of the adapters' values in flat that is NaN or infinite, in the order in which a backward
// pass reaches the layers (the last first): "model.layers.1.mlp.down_proj.lora_B". It is empty when all are finite.
func (a *Adapters) FirstNonFinite(mem compute.Memory, flat tensor.Tensor) string {
	host := make([]float32, flat.Len())
	mem.Download(tensor.Of(host).Mem.Host, flat)
	for i := len(a.Windows) - 1; i >= 0; i-- {
		w := a.Windows[i]
		b, end := w.At+a.Config.Rank*w.In, w.At+a.Config.Rank*(w.In+w.Out)
		if !finite(host[b:end]) {
			return w.Name + ".lora_B"
		}
		if !finite(host[w.At:b]) {
			return w.Name + ".lora_A"
		}
	}
	return ""
}

func finite(v []float32) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}
