package compute

import (
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// SparseLinear is what a Backend may offer besides Dense: the products of one masked linear, over its kept weights only, or masked where
// W̃ and G pass by.
//
//	W̃ = M ⊙ (W + s·B·A)      G = M ⊙ (dyᵀ·x)
//
// Merge, Gemm and Mask through the slot are their twin, which a backend may take for those that it has no better way for. slot, KeptSlot elements or
// more in the type of x, is scratch memory for W̃ or G; its content is unspecified before and after. b [out,r] and a [r,in] are F32 and may be absent where W̃ is read: W̃ = W. x, dx are [N,in], y, dy
// [N,out], all F32 or all BF16; W̃ is then rounded to BF16, as in the slot, and G, and A and B where they meet it, may be.
type SparseLinear interface {
	// WalksKept reports whether these are there, and expected to be faster than their twin, for n rows of type x. It depends on the shape, the
	// density and the backend, not on the number of threads.
	WalksKept(w *sparse.Weight, x tensor.DType, n int) bool
	// KeptSlot is the number of elements of the slot that these use for activations of type x: the kept weights, none where W̃ and G
	// stand nowhere, or all where one of them stands there whole.
	KeptSlot(w *sparse.Weight, x tensor.DType) int
	// KeptForward sets y = x·W̃ᵀ + β·y. β = 0 does not read y.
	KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s, beta float32)
	// KeptInput sets dx = dy·W̃ + β·dx.
	KeptInput(dx, dy, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s, beta float32)
	// KeptAdapter adds to da += s·Bᵀ·G and db += s·G·Aᵀ.
	KeptAdapter(da, db, dy, x, slot tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32)
}
