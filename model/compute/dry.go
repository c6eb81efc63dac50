package compute

import (
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Surveyor is what a Backend may offer besides its operations: to say beforehand how much memory of its own they take.
type Surveyor interface {
	// Survey is a backend that computes nothing, and adds up the memory that this one would come to hold for the operations that it is
	// given, beside their operands.
	Survey() Survey
}

// Survey is a Surveyor's twin that only measures.
type Survey interface {
	Backend
	// Scratch is the sum so far, in bytes.
	Scratch() int
	// Reserve makes the surveyed backend take it now, before the first step.
	Reserve()
}

// Nowhere is memory that must not be touched.
var Nowhere = tensor.Mem{Device: 64}

// Dry is a backend that does nothing, with memory that is nowhere: a step that runs on it measures its own stack.
type Dry struct{}

var _ Backend = Dry{}

// SurveyOf is be's survey, or, where it offers none, a backend that needs nothing of its own.
func SurveyOf(be Backend) Survey {
	if s, ok := be.(Surveyor); ok {
		return s.Survey()
	}
	return Dry{}
}

func (Dry) Reserve()                       {}
func (Dry) Scratch() int                   { return 0 }
func (Dry) Name() string                   { return "dry" }
func (Dry) Close() error                   { return nil }
func (Dry) Alloc(int) tensor.Mem           { return Nowhere }
func (Dry) Sync() error                    { return nil }
func (Dry) Upload(tensor.Tensor, []byte)   {}
func (Dry) Download([]byte, tensor.Tensor) {}
func (Dry) Copy(_, _ tensor.Tensor)        {}
func (Dry) Fill(tensor.Tensor, float32)    {}
func (Dry) Gemm(_ tensor.Tensor, _ float32, _ tensor.Tensor, _ bool, _ tensor.Tensor, _ bool, _ float32) {
}
func (Dry) Merge(_ tensor.Tensor, _ *sparse.Weight, _, _ tensor.Tensor, _ float32) {}
func (Dry) Mask(tensor.Tensor, *sparse.Weight)                                     {}
func (Dry) AddBias(_, _ tensor.Tensor)                                             {}
func (Dry) Add(_, _ tensor.Tensor)                                                 {}
func (Dry) Dropout(_, _, _ tensor.Tensor, _ uint64, _ float32)                     {}
func (Dry) Gather(_, _, _ tensor.Tensor)                                           {}
func (Dry) Scatter(_, _, _ tensor.Tensor)                                          {}
func (Dry) RMSNorm(_, _, _, _ tensor.Tensor, _ float32)                            {}
func (Dry) RMSNormBackward(_, _, _, _, _ tensor.Tensor, _ float32)                 {}
func (Dry) Rope(_, _, _, _ tensor.Tensor, _ int, _ float32)                        {}
func (Dry) Gate(_, _, _ tensor.Tensor, _ Act)                                      {}
func (Dry) GateBackward(_, _, _, _, _ tensor.Tensor, _ Act)                        {}
func (Dry) Attention(_, _, _, _, _ tensor.Tensor, _ Attn)                          {}
func (Dry) AttentionBackward(_, _, _, _, _, _, _, _, _ tensor.Tensor, _ Attn)      {}
func (Dry) CrossEntropy(_, _, _ tensor.Tensor, _ bool)                             {}
func (Dry) AdamW(_, _, _, _ tensor.Tensor, _ AdamW)                                {}
func (Dry) SumSquares(tensor.Tensor) float64                                       { return 0 }
