// Package lora is the masked linear layer and its adapters.
//
//	W̃ = M ⊙ (W + s·B·A)      y = x·W̃ᵀ + bias          s = α/r   (rsLoRA: α/√r)
//	dx = dy·W̃      G = M ⊙ (dyᵀ·x)      dA = s·Bᵀ·G      dB = s·G·Aᵀ
//	x [N,in]  y [N,out]  W, M, W̃, G [out,in]  A [r,in]  B [out,r]
//
// W is immutable, M is data, W̃ is scratch: it stands in the one weight slot of the device only while it is used.
package lora

import (
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Method says how an adapter enters a layer.
type Method uint8

// Methods.
const (
	SPLoRA Method = iota // y = x·(M ⊙ (W + s·B·A))ᵀ: the exact masked merge
	LoRA                 // y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ: the merged model is dense
)

// Linear is one frozen linear layer, with an adapter if A is present.
type Linear struct {
	Name   string // "model.layers.0.self_attn.q_proj"
	W      *sparse.Weight
	Bias   tensor.Tensor // F32 [1,out] or absent
	Method Method
	Scale  float32
	// A [r,in], B [out,r] and their gradients are windows into the flat vectors of Adapters; absent: frozen only.
	A, B, DA, DB tensor.Tensor
}
