// Package model is the map of the model packages; it holds no code.
//
//	model/tensor       where numbers are: Tensor, DType, Mem; no arithmetic
//	model/sparse       packed frozen weights: kept values + one mask bit per weight
//	model/safetensors  Hugging Face folders: base weights, masks, adapters, merged models
//	model/compute      the closed set of operations (Backend), Device, Workspace
//	model/compute/cpu  the specification of every operation, and the default backend
//	model/compute/cuda the NVIDIA backend, with the cuda build tag
//	model/lora         the masked linear layer, the adapters as flat vectors, the merge
//	model/decoder      the transformer block, forward and backward by hand
//	model/family       config.json → decoder.Config, and the names of tensors
//	model/prune        magnitude and Wanda
//
// # Legend of symbols
//
//	B T N        batch, sequence length, N = B·T rows of activations
//	C F V        hidden size, intermediate size, vocabulary
//	Hq Hkv D     query heads, key/value heads, head dimension
//	r α s        rank, alpha, scale s = α/r (rsLoRA: α/√r)
//	W M W̃       frozen weight, mask, merged weight M ⊙ (W + s·B·A); all [out, in]
//	A B          adapters: A [r, in], B [out, r]
//	G            masked weight gradient M ⊙ (dyᵀ·x) [out, in]
//	d…           gradient of …
//	rstd lse     1/√(mean x² + ε) per row; log Σ exp of a softmax row
package model
