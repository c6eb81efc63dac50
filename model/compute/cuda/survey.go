package cuda

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// atLeast is the number of float32 of scratch memory that a backend begins with; a survey may make it more.
const atLeast = 1 << 20

// Own is the device memory, in bytes, that a backend takes for itself when it opens: cuBLAS's workspace, and scratch memory.
func (c Config) Own() (n int) {
	for _, k := range []int{c.workspace(), 4 * atLeast, 8 * kernels.SumSquaresBlocks, 8} {
		n += (k + align - 1) &^ (align - 1)
	}
	return n
}

func (c Config) workspace() int {
	if c.Workspace == 0 {
		return 32 << 20
	}
	return c.Workspace
}

// Planner is a backend that computes nothing and needs no GPU: it says what one would take.
type Planner struct {
	compute.Dry
	Processors  int  // multiprocessors of that GPU; 0: 132, an H100's or H200's
	SparseCores bool // as Config has it
}

// Survey measures the scratch memory of operations.
func (p Planner) Survey() compute.Survey {
	if p.Processors == 0 {
		p.Processors = 132
	}
	return &survey{name: "cuda", processors: p.Processors, sparse: p.SparseCores, have: atLeast, reserve: func(int) {}}
}

// survey is a backend that only measures how much scratch memory the operations that it is given want, beyond what there is.
type survey struct {
	compute.Dry
	name       string
	processors int
	sparse     bool
	have       int // float32
	want       int
	reserve    func(floats int)
}

var (
	_ compute.Surveyor      = Planner{}
	_ compute.MaskedAdapter = (*survey)(nil)
	_ compute.SparseLinear  = (*survey)(nil)
)

// Name is the backend's own.
func (s *survey) Name() string { return s.name }

// Scratch is what is missing, in bytes.
func (s *survey) Scratch() int {
	if s.want <= s.have {
		return 0
	}
	return 4 * s.want
}

// Reserve makes the scratch memory as large as that.
func (s *survey) Reserve() {
	if s.want > s.have {
		s.reserve(s.want)
	}
}

// AttentionBackward keeps δ.
func (s *survey) AttentionBackward(_, _, _, _, _, _, _, _, _ tensor.Tensor, m compute.Attn) {
	s.want = max(s.want, m.B*m.Hq*m.Tq)
}

// AdapterGradient keeps the blocks' parts.
func (s *survey) AdapterGradient(_, _, g tensor.Tensor, w *sparse.Weight, _, a tensor.Tensor, _ float32) bool {
	l, ok := adapterGradient(g, w, a.Rows, s.processors)
	s.want = max(s.want, l.PartA+l.PartB)
	return ok
}

func adapterGradient(g tensor.Tensor, w *sparse.Weight, r, processors int) (kernels.Adapter, bool) {
	if g.DType != tensor.BF16 || r == 0 || w.In%8 != 0 { // rows are read 16 bytes at a time
		return kernels.Adapter{}, false
	}
	return kernels.AdapterGradient(w.Out, w.In, r, processors)
}

// WalksKept is the backend's.
func (s *survey) WalksKept(w *sparse.Weight, x tensor.DType, _ int) bool {
	return s.sparse && twoOfFour(w, x)
}

// KeptSlot is the backend's.
func (s *survey) KeptSlot(w *sparse.Weight, x tensor.DType) int { return keptSlot(w, x, s.sparse) }

// KeptForward needs the slot alone.
func (s *survey) KeptForward(_, _, _ tensor.Tensor, _ *sparse.Weight, _, _ tensor.Tensor, _, _ float32) {
}

// KeptInput needs the slot alone.
func (s *survey) KeptInput(_, _, _ tensor.Tensor, _ *sparse.Weight, _, _ tensor.Tensor, _, _ float32) {
}

// KeptAdapter keeps what AdapterGradient does, or copies of A and B.
func (s *survey) KeptAdapter(da, db, _, x, _ tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, scale float32) {
	g := tensor.Tensor{DType: x.DType, Rows: w.Out, Cols: w.In}
	if !s.AdapterGradient(da, db, g, w, b, a, scale) && x.DType != tensor.F32 {
		s.want = max(s.want, halves(b, a))
	}
}

// twoOfFour reports whether the sparse tensor cores take W̃ of this weight: 2:4, in tiles of 64 inputs, against bfloat16.
func twoOfFour(w *sparse.Weight, x tensor.DType) bool {
	return x == tensor.BF16 && !w.Dense() && w.Pattern == sparse.Pattern{N: 2, M: 4} && w.In > 0 && w.In%64 == 0
}

// keptSlot is the number of elements of W̃ whole, or of what compress leaves of a few rows, if that is more.
func keptSlot(w *sparse.Weight, x tensor.DType, cores bool) int {
	n := w.Out * w.In
	if cores && twoOfFour(w, x) {
		n = max(n, kernels.Compressed(w.Out, w.In)/2)
	}
	return n
}

// halves is the number of float32 that copies of B and A in 16 bits take.
func halves(b, a tensor.Tensor) int { return (even(b.Len()) + even(a.Len())) / 2 }

func even(n int) int { return n + n%2 }
