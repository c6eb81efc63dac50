// Package sparse keeps frozen weights packed: the kept values and one mask bit per weight.
//
//	W [out, in], M ∈ {0,1}^[out, in]   →   Values = (W_ij : M_ij = 1, row-major), Bits = M
//
// At 50 % in bfloat16 that is 1.125 bytes per weight instead of 2. M is data: a kept weight may be 0, a pruned one has no
// value at all. The form in memory is the form on disk, so a packed folder is mapped, not read.
package sparse

import "github.com/splora/splora/model/tensor"

// Block is the number of consecutive inputs between two entries of Weight.Starts.
const Block = 256

// Pattern is the shape of a mask. {N: 2, M: 4} keeps exactly 2 of every 4 consecutive inputs; the zero Pattern is
// unstructured.
type Pattern struct{ N, M int }

// Weight is one packed frozen matrix [Out, In].
type Weight struct {
	Out, In int
	Pattern Pattern
	// Values are the kept weights in row-major order, [1, nnz], in their storage type (F32, BF16, F16).
	Values tensor.Tensor
	// Bits has one bit per weight: row i is Words() little-endian uint64s, input j is bit j%64 of word j/64; bits beyond
	// In are 0. The zero Mem means dense: every weight is kept.
	Bits tensor.Mem
	// Starts[i·Blocks()+k] (uint32) is the index in Values of the first kept weight of row i at or after input k·Block; one
	// more entry closes the last row. The zero Mem means it is computed: dense, and n:m whose M divides Block and In.
	Starts tensor.Mem
}

// Dense reports whether every weight is kept.
func (w *Weight) Dense() bool { return w.Bits.Host == nil && w.Bits.Device == 0 }

// Words is the number of uint64 words of one row of Bits.
func (w *Weight) Words() int { return (w.In + 63) / 64 }

// Blocks is the number of Starts entries of one row.
func (w *Weight) Blocks() int { return (w.In + Block - 1) / Block }
