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

// NNZ is the number of kept weights.
func (w *Weight) NNZ() int { return w.Values.Len() }

// Density is the kept fraction.
func (w *Weight) Density() float64 { return float64(w.NNZ()) / float64(max(1, w.Out*w.In)) }

// Bytes is the memory of the packed form: values, bits and starts.
func (w *Weight) Bytes() int {
	if w.Dense() {
		return w.Values.Bytes()
	}
	n := w.Values.Bytes() + w.Out*w.Words()*8
	if !w.Computed() {
		n += (w.Out*w.Blocks() + 1) * 4
	}
	return n
}

// Computed reports whether Start needs no Starts: dense, and n:m whose M divides Block and In.
func (w *Weight) Computed() bool {
	return w.Dense() || !w.Pattern.Unstructured() && Block%w.Pattern.M == 0 && w.In%w.Pattern.M == 0
}

// Start is the index in Values of the first kept weight of row i at or after input k·Block; k may be Blocks(), the row's end.
func (w *Weight) Start(i, k int) int {
	switch {
	case w.Dense():
		return i*w.In + min(k*Block, w.In)
	case w.Computed():
		return (i*w.In + min(k*Block, w.In)) / w.Pattern.M * w.Pattern.N
	}
	return int(view[uint32](w.Starts)[i*w.Blocks()+k])
}

// Row is the range of Values that row i keeps.
func (w *Weight) Row(i int) (start, end int) { return w.Start(i, 0), w.Start(i+1, 0) }

// RowBits is the mask of row i, Words() words; nil when dense.
func (w *Weight) RowBits(i int) []uint64 {
	if w.Dense() {
		return nil
	}
	n := w.Words()
	return view[uint64](w.Bits)[i*n : (i+1)*n]
}

// Mask is all rows' bits; nil when dense. It is the weight's memory.
func (w *Weight) Mask() []uint64 {
	if w.Dense() {
		return nil
	}
	return view[uint64](w.Bits)
}

// Kept reports whether M_ij = 1.
func (w *Weight) Kept(i, j int) bool {
	return w.Dense() || w.RowBits(i)[j/64]>>(j%64)&1 == 1
}

// RowWeight is row i as a weight of its own, [1, In], unstructured, over the same values and bits.
func (w *Weight) RowWeight(i int) *Weight {
	a, b := w.Row(i)
	r := &Weight{Out: 1, In: w.In, Values: w.Values.Window(a, 1, b-a)}
	if bits := w.RowBits(i); bits != nil {
		r.Bits, r.Starts = bytesOf(bits), bytesOf(starts(bits, 1, w.In))
	}
	return r
}

// Sketch is a weight without memory, for planning: its shape, its type and the number of weights that are kept when a pattern, or,
// where it is unstructured, a fraction of each row is removed. With neither it is dense.
func Sketch(out, in int, dt tensor.DType, p Pattern, removed float64) *Weight {
	kept := in - Removed(in, removed)
	if !p.Unstructured() {
		kept = p.Keep(in)
	}
	return Counted(out, in, dt, p, out*kept)
}

// Counted is a Sketch of a weight that keeps nnz of its weights; all of them: it is dense.
func Counted(out, in int, dt tensor.DType, p Pattern, nnz int) *Weight {
	nowhere := tensor.Mem{Device: 64}
	w := &Weight{Out: out, In: in, Pattern: p, Values: tensor.Tensor{DType: dt, Rows: 1, Cols: nnz, Mem: nowhere}}
	if nnz < out*in {
		w.Bits = nowhere
		if !w.Computed() {
			w.Starts = nowhere
		}
	}
	return w
}
