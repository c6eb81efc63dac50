// Package decoder is the transformer, forward and backward by hand, once for every family; the variants are data.
//
//	h = x + O·attn(rope(q), rope(k), v)      q, k, v = Q·n, K·n, V·n      n = RMSNorm(x)
//	y = h + Down·(act(Gate·n') ⊙ Up·n')                                   n' = RMSNorm(h)
//	logits = Head·RMSNorm(y_L)
package decoder

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Config is the architecture. Package family makes it from config.json.
type Config struct {
	Vocab, Hidden, Inter, Layers int
	Heads, KVHeads, HeadDim      int
	Eps                          float32
	Act                          compute.Act
	// Windows[i] is layer i's sliding window in tokens, 0 for full attention; nil: full everywhere.
	Windows []int
	// QKNorm normalises every head of q and k by RMSNorm before the rotation (Qwen3).
	QKNorm bool
	// Bias[i] says that the linear Linears[i] of every block has a bias.
	Bias [7]bool
	Tied bool // the head is the embedding table
	// MaxPositions is max_position_embeddings; longer sequences are refused.
	MaxPositions int
	Rope         Rope
}

// Rope is the rotary embedding's frequencies.
type Rope struct {
	Theta float64
	// Scaling is "" or "default", "linear", "llama3"; anything else is refused by family.
	Scaling string
	Factor  float64
	// llama3 only (Grattafiori et al. 2024; transformers' _compute_llama3_parameters).
	LowFreqFactor, HighFreqFactor float64
	OriginalMaxPositions          int
}

// Linears names a block's linear layers, in the order of Block.Linears, as PEFT's target_modules name them.
var Linears = [...]string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// Indices into Block.Linears.
const (
	Q = iota
	K
	V
	O
	Gate
	Up
	Down
)

// Base is one frozen linear: packed weight and bias (F32 [1,out], or absent).
type Base struct {
	Name string // full module path, "model.layers.0.self_attn.q_proj"
	W    *sparse.Weight
	Bias tensor.Tensor
}

// Block is the frozen weights of one transformer block. Norms are F32 [1,C]; QNorm, KNorm F32 [1,D] or absent.
type Block struct {
	Linears                         [7]Base
	AttnNorm, MLPNorm, QNorm, KNorm tensor.Tensor
}

// Weights leases the frozen base, block by block: resident, mapped, sharded or offloaded, the model does not notice.
type Weights interface {
	Embed() tensor.Tensor     // [V,C] in storage type
	Head() tensor.Tensor      // [V,C]; the embedding when tied
	FinalNorm() tensor.Tensor // F32 [1,C]
	Acquire(block int) *Block
	Prefetch(block int)
	Release(block int)
}

// Resident is the simplest Weights: everything in memory (or in one mapping), always.
type Resident struct {
	EmbedTable, HeadTable, Norm tensor.Tensor
	Blocks                      []Block
}

func (r *Resident) Embed() tensor.Tensor     { return r.EmbedTable }
func (r *Resident) Head() tensor.Tensor      { return r.HeadTable }
func (r *Resident) FinalNorm() tensor.Tensor { return r.Norm }
func (r *Resident) Acquire(i int) *Block     { return &r.Blocks[i] }
func (r *Resident) Prefetch(int)             {}
func (r *Resident) Release(int)              {}
