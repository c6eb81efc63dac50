//go:build cuda

package cuda

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// survey is a backend that only measures how much scratch memory the operations that it is given want, beyond what the backend has.
type survey struct {
	compute.Dry
	b      *Backend
	floats int
}

var (
	_ compute.Surveyor      = (*Backend)(nil)
	_ compute.MaskedAdapter = (*Backend)(nil)
	_ compute.MaskedAdapter = (*survey)(nil)
)

// Survey is a twin that adds up this backend's scratch memory.
func (b *Backend) Survey() compute.Survey { return &survey{b: b} }

// Name is the backend's own.
func (s *survey) Name() string { return s.b.Name() }

// Scratch is what is missing, in bytes.
func (s *survey) Scratch() int {
	if s.floats <= s.b.scratch.floats.Len() {
		return 0
	}
	return 4 * s.floats
}

// Reserve makes the scratch memory as large as that.
func (s *survey) Reserve() {
	if n := s.Scratch(); n > 0 {
		s.b.scratch.floats = tensor.Tensor{DType: tensor.F32, Rows: 1, Cols: n / 4, Mem: s.b.Alloc(n)}
	}
}

// AttentionBackward keeps δ.
func (s *survey) AttentionBackward(_, _, _, _, _, _, _, _, _ tensor.Tensor, m compute.Attn) {
	s.floats = max(s.floats, m.B*m.Hq*m.Tq)
}

// AdapterGradient keeps the blocks' parts.
func (s *survey) AdapterGradient(_, _, g tensor.Tensor, w *sparse.Weight, _, a tensor.Tensor, _ float32) bool {
	l, ok := adapterGradient(g, w, a.Rows, s.b.number)
	s.floats = max(s.floats, l.PartA+l.PartB)
	return ok
}
