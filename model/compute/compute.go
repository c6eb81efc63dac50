// Package compute is the closed set of operations that a backend offers, and the memory that a rank plans before its
// first step. An operation enters with its CPU implementation, its backward and its conformance case.
//
// Conventions. The destination comes first. "sets" means =, "adds to" means +=. Tensors are row-major. Operations are queued in
// call order and return nothing; the first failure sticks and Sync reports it. Shapes and types that do not fit are our own bug
// and panic. One goroutine owns a backend. Results do not depend on the number of threads.
//
// Types. Activations and their gradients, the keys and values of a cache, logits, and the weight slot (W̃, then G) are all F32 or
// all BF16: the compute type. What is "an activation" below is of that type, one type in one call; everything else is F32
// unless said otherwise: rstd, lse, loss, cos, sin, norm weights, biases, the flat vectors of adapters and optimizer. Arithmetic
// and accumulation are in float32 whatever the type: a BF16 operand is widened, exactly, and a BF16 result is rounded once, to
// nearest even, where it is stored. A BF16 operand or result below the normal numbers (2⁻¹²⁶) may be taken as, or become, zero,
// except in Copy, Fill, Gather and Scatter. A NaN stays a NaN.
package compute

import (
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// MaxThreads bounds the threads of a backend that computes on processors.
const MaxThreads = 4096

// Backend is one device's operations.
type Backend interface {
	Memory
	Dense
	Transformer
	Update
	// Name is "cpu" or "cuda:0", with what was detected, for logs: "cpu (2 threads, avx512)".
	Name() string
	// Sync waits for what was queued and reports the first failure.
	Sync() error
	Close() error
}

// Memory moves numbers.
type Memory interface {
	// Alloc gives n zeroed bytes, 64-byte aligned. It is called before step 0 only.
	Alloc(n int) tensor.Mem
	// Upload sets dst from host memory, Download sets host memory from src and waits for it.
	Upload(dst tensor.Tensor, src []byte)
	Download(dst []byte, src tensor.Tensor)
	// Copy sets dst = src, converting between F32, BF16 and F16 (round to nearest even).
	Copy(dst, src tensor.Tensor)
	// Fill sets every element of dst, F32 or BF16, to v.
	Fill(dst tensor.Tensor, v float32)
}

// Dense is the arithmetic of matrices.
type Dense interface {
	// Gemm sets dst [m,n] = α·op(a)·op(b) + β·dst with op(x) = xᵀ where ta, tb say so. dst is F32 or BF16, rounded once, at the
	// store: α, β and all sums are float32. a and b are F32, BF16 or F16, also mixed, and are widened, never rounded; F32×F32 and
	// BF16×BF16 are the hot pairs. β = 0 does not read dst.
	Gemm(dst tensor.Tensor, alpha float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, beta float32)
	// Merge sets dst [out,in], F32 or BF16, to M ⊙ (W + s·B·A), b [out,r], a [r,in], both F32: the sum is float32 and rounded
	// once. With absent a and b it only expands W. Pruned positions are exactly +0.
	Merge(dst tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32)
	// Mask sets dst [out,in], F32 or BF16, to M ⊙ dst; pruned positions become exactly +0, whatever they held.
	Mask(dst tensor.Tensor, w *sparse.Weight)
	// AddBias adds bias [1,n], F32, to every row of the activation y [m,n].
	AddBias(y, bias tensor.Tensor)
	// Add adds x to y, elementwise; both activations.
	Add(y, x tensor.Tensor)
	// Dropout sets y [N,n] = x ⊙ m/(1−p); activations, and y may be x. m[i,j] is 0 with probability p and depends on (seed, ids[i], j) alone, so a
	// backward or a recomputation finds it again; ids is I32 [1,N]. The generator: SplitMix64 at ids[i]·2³² + j + 1.
	Dropout(y, x, ids tensor.Tensor, seed uint64, p float32)
}

// Act is the activation of a gated MLP.
type Act uint8

// Activations.
const (
	SiLU Act = iota
)

// Attn describes one attention call. Query i of row b sees key j of row b if and only if
//
//	doc_j = doc_i ≥ 0   and   0 ≤ pos_i − pos_j   and   (Window = 0 or pos_i − pos_j < Window)
//
// Keys and queries are in order: the key of query i stands at index Tk − Tq + i, and no later key is visible to it.
// A query that sees no key gets y = 0 and lse = −inf.
type Attn struct {
	B, Tq, Tk, Hq, Hkv, D int
	Scale                 float32
	Window                int           // 0: all earlier keys
	QPos, KPos            tensor.Tensor // I32 [B,Tq], [B,Tk]
	QDoc, KDoc            tensor.Tensor // I32 [B,Tq], [B,Tk]; −1: padding
}

// Transformer is what a decoder block needs beside matrices. Rows of activations are N = B·T. Activations, of the compute type, are
// dst of Gather, dst and src of Scatter, x, y, q, k, v, g, u, h and logits, and all d….
type Transformer interface {
	// Gather sets dst[i,:] = table[rows[i],:]; table is F32, BF16 or F16; rows is I32 [1,n]. A row < 0 gives zeros.
	Gather(dst, table, rows tensor.Tensor)
	// Scatter sets dst[rows[i],:] = src[i,:]; rows are distinct, a row < 0 is skipped.
	Scatter(dst, src, rows tensor.Tensor)
	// RMSNorm sets y = x·rstd ⊙ w and rstd [1,N] = 1/√(mean(x²)+eps) per row; w is F32 [1,C]. y is rounded once, from float32 rstd.
	RMSNorm(y, rstd, x, w tensor.Tensor, eps float32)
	// RMSNormBackward sets dx = … + β·dx (β is 0 or 1):  with g = dy ⊙ w,  dx = rstd·(g − x·rstd²·mean(g ⊙ x)).
	RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32)
	// Rope rotates x [N, heads·D] in place by the angles of pos I32 [1,N]: halves are paired (j, j+D/2) as Hugging Face does;
	// cos, sin F32 [maxPos, D/2]. sign −1 rotates back (the backward).
	Rope(x, cos, sin, pos tensor.Tensor, heads int, sign float32)
	// Gate sets h = act(g) ⊙ u. h may be g or u.
	Gate(h, g, u tensor.Tensor, act Act)
	// GateBackward sets dg = dh ⊙ u ⊙ act'(g), du = dh ⊙ act(g). dg may be g, du may be u or dh.
	GateBackward(dg, du, dh, g, u tensor.Tensor, act Act)
	// Attention sets y [B·Tq, Hq·D] = softmax(scale·q·kᵀ, masked)·v and lse [B·Hq, Tq]; q as y; k, v [B·Tk, Hkv·D]. No T×T
	// matrix stands in memory. With BF16 activations the probabilities, and their gradient, may be rounded to BF16 as operands of the
	// products that follow; sums, the running maximum, lse and Σ dy ⊙ y stay float32.
	Attention(y, lse, q, k, v tensor.Tensor, m Attn)
	// AttentionBackward sets dq, dk, dv, from the lse that Attention gave.
	AttentionBackward(dq, dk, dv, dy, y, lse, q, k, v tensor.Tensor, m Attn)
	// CrossEntropy sets loss [1,n] = lse(logits_i) − logits_i[target_i] and logits = softmax(logits) − onehot(target) (the
	// gradient of Σ loss), logits [n,V], target I32 [1,n], all ≥ 0. lse and loss are float32 sums over the logits as they are given. With
	// grad false logits are left unspecified.
	CrossEntropy(loss, logits, target tensor.Tensor, grad bool)
}

// AdamW is one step of AdamW (Loshchilov & Hutter 2019; as PyTorch writes it). Grad is Scale·g.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float32
	// Bias1 = 1 − β1^t, Bias2 = 1 − β2^t, from the β of these float32 (1 − 0.999 is not 1 − float32(0.999)).
	Bias1, Bias2 float32
	// Scale multiplies the gradient: 1/Σtokens times the clip.
	Scale float32
}

// Update is the optimizer's arithmetic over flat vectors [1,P].
type Update interface {
	// AdamW sets m = β1·m + (1−β1)·ĝ, v = β2·v + (1−β2)·ĝ², p = p·(1 − lr·wd) − lr·(m/Bias1)/(√(v/Bias2)+eps), ĝ = Scale·g.
	AdamW(p, g, m, v tensor.Tensor, o AdamW)
	// SumSquares is Σ x² in float64, in a fixed order. It waits.
	SumSquares(x tensor.Tensor) float64
}
