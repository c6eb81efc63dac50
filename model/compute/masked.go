package compute

import (
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// MaskedAdapter is what a Backend may offer instead of Mask and two products, where G stands dense in the slot: the gradients of an
// adapter in one reading of it.
type MaskedAdapter interface {
	// AdapterGradient adds to da [r,in] += s·Bᵀ·(M ⊙ G) and db [out,r] += s·(M ⊙ G)·Aᵀ, b [out,r], a [r,in], g [out,in]; it reports
	// false, and has done nothing, where it does not offer that: for a type, a rank, a size. da, db, b and a are F32; with g BF16, b and
	// a are rounded to BF16 first. Mask and Gemm are its twin.
	AdapterGradient(da, db, g tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32) bool
}
