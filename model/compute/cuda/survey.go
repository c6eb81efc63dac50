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
	Processors int // multiprocessors of that GPU; 0: 132, an H100's or H200's
}

// Survey measures the scratch memory of operations.
func (p Planner) Survey() compute.Survey {
	if p.Processors == 0 {
		p.Processors = 132
	}
	return &survey{name: "cuda", processors: p.Processors, have: atLeast, reserve: func(int) {}}
}

// survey is a backend that only measures how much scratch memory the operations that it is given want, beyond what there is.
type survey struct {
	compute.Dry
	name       string
	processors int
	have       int // float32
	want       int
	reserve    func(floats int)
}

var (
	_ compute.Surveyor      = Planner{}
	_ compute.MaskedAdapter = (*survey)(nil)
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
