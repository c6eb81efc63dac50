package sparse

import (
	"fmt"
	"math/bits"

	"github.com/splora/splora/model/tensor"
)

// Report is what Verify found in one matrix.
type Report struct {
	Weights, Kept int
	// KeptZero counts kept weights whose value is ±0: they are weights like any other.
	KeptZero int
	// Extra counts non-zero values where M = 0; the first of them is at (Row, Col), with its storage bits. −0 is zero in value
	// and passes; the smallest subnormal does not.
	Extra    int
	Row, Col int
	Bits     uint32
}

// Verify compares a host matrix with a mask (nil: everything is kept).
func Verify(dense tensor.Tensor, mask []uint64) Report {
	r := Report{Weights: dense.Len(), Kept: dense.Len()}
	words := Words(dense.Cols)
	if mask == nil {
		r.KeptZero = r.Weights - Count(MaskOf(dense))
		return r
	}
	r.Kept = Count(mask)
	nz := MaskOf(dense)
	for k, m := range mask {
		r.KeptZero += bits.OnesCount64(m &^ nz[k])
		if x := nz[k] &^ m; x != 0 {
			if r.Extra == 0 {
				r.Row, r.Col = k/words, k%words*64+bits.TrailingZeros64(x)
				r.Bits = storageBits(dense, r.Row, r.Col)
			}
			r.Extra += bits.OnesCount64(x)
		}
	}
	return r
}

func storageBits(t tensor.Tensor, i, j int) uint32 {
	if t.DType.Size() == 4 {
		return words32(t)[i*t.Cols+j]
	}
	return uint32(t.Uint16()[i*t.Cols+j])
}

// New makes a weight of parts that come from a file, and checks them: sizes, pattern, bits beyond In, starts against bits.
// Absent bits mean dense. It does not copy.
func New(out, in int, p Pattern, values tensor.Tensor, bitmap, starting tensor.Mem) (*Weight, error) {
	w := &Weight{Out: out, In: in, Pattern: p, Values: values.Reshape(1, values.Len()), Bits: bitmap, Starts: starting}
	if w.Dense() {
		if values.Len() != out*in || !p.Unstructured() {
			return nil, fmt.Errorf("sparse: %d values, pattern %s, for a dense [%d,%d]", values.Len(), p, out, in)
		}
		return w, nil
	}
	if len(bitmap.Host) != out*w.Words()*8 {
		return nil, fmt.Errorf("sparse: the bits of [%d,%d] are %d bytes, found %d", out, in, out*w.Words()*8, len(bitmap.Host))
	}
	mask := w.Mask()
	if err := p.Check(mask, out, in); err != nil {
		return nil, err
	}
	if n := Count(mask); n != values.Len() {
		return nil, fmt.Errorf("sparse: %d values, but the bits keep %d", values.Len(), n)
	}
	if w.Computed() {
		return w, nil
	}
	found := view[uint32](starting)
	want := out*w.Blocks() + 1
	if len(found) != want {
		return nil, fmt.Errorf("sparse: [%d,%d] has %d starts, found %d", out, in, want, len(found))
	}
	for i, s := range starts(mask, out, in) {
		if found[i] != s {
			return nil, fmt.Errorf("sparse: start %d is %d, the bits say %d", i, found[i], s)
		}
	}
	return w, nil
}
