package sparse

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"sync"
	"unsafe"

	"github.com/splora/splora/model/tensor"
)

// Pack packs a host matrix [out,in] (F32, BF16 or F16) under its mask; kept values stay bit for bit (NaN payloads, −0 and
// subnormals, too). With a nil mask the weight is dense and Values is dense's memory; Bits is mask's memory. A mask that
// is not of pattern p is an error; the weights outside the mask are not looked at (see Verify).
func Pack(dense tensor.Tensor, mask []uint64, p Pattern) (*Weight, error) {
	w := &Weight{Out: dense.Rows, In: dense.Cols, Pattern: p}
	if mask == nil {
		if !p.Unstructured() {
			return nil, fmt.Errorf("sparse: pattern %s without a mask", p)
		}
		w.Values = dense.Reshape(1, dense.Len())
		return w, nil
	}
	if err := p.Check(mask, w.Out, w.In); err != nil {
		return nil, err
	}
	nnz := Count(mask)
	if uint64(nnz) > math.MaxUint32 {
		return nil, fmt.Errorf("sparse: %d kept weights in one matrix; at most %d are supported", nnz, uint32(math.MaxUint32))
	}
	w.Bits = bytesOf(mask)
	if !w.Computed() {
		w.Starts = bytesOf(starts(mask, w.Out, w.In))
	}
	w.Values = tensor.New(dense.DType, 1, nnz)
	parallel(w.Out, w.In, func(i0, i1 int) {
		if dense.DType.Size() == 4 {
			compress(w, view[uint32](w.Values.Mem), view[uint32](dense.Mem), i0, i1)
		} else {
			compress(w, view[uint16](w.Values.Mem), view[uint16](dense.Mem), i0, i1)
		}
	})
	return w, nil
}

// compress copies the kept elements of rows [i0, i1).
func compress[E uint16 | uint32](w *Weight, dst, src []E, i0, i1 int) {
	n := w.Start(i0, 0)
	for i := i0; i < i1; i++ {
		row := src[i*w.In : (i+1)*w.In]
		for k, m := range w.RowBits(i) {
			seg := row[k*64:]
			for ; m != 0; m &= m - 1 {
				dst[n] = seg[bits.TrailingZeros64(m)]
				n++
			}
		}
	}
}

// starts computes Weight.Starts.
func starts(mask []uint64, out, in int) []uint32 {
	words, n := Words(in), uint32(0)
	s := make([]uint32, 0, out*((in+Block-1)/Block)+1)
	for k, m := range mask {
		if k%words%(Block/64) == 0 {
			s = append(s, n)
		}
		n += uint32(bits.OnesCount64(m))
	}
	return append(s, n)
}

// Expand sets dst [Out,In] = W with +0 where it is pruned. dst is a host tensor of the weight's storage type (bit for bit)
// or F32 (widened, exactly).
func (w *Weight) Expand(dst tensor.Tensor) {
	if dst.Rows != w.Out || dst.Cols != w.In || dst.DType != w.Values.DType && dst.DType != tensor.F32 {
		panic(fmt.Sprintf("sparse: expanding %s[%d,%d] into %s", w.Values.DType, w.Out, w.In, dst))
	}
	parallel(w.Out, w.In, func(i0, i1 int) {
		switch d, v := dst.Mem, w.Values.Mem; {
		case w.Values.DType == tensor.F32:
			expand(w, view[uint32](d), view[uint32](v), i0, i1, func(u uint32) uint32 { return u })
		case w.Values.DType == dst.DType:
			expand(w, view[uint16](d), view[uint16](v), i0, i1, func(u uint16) uint16 { return u })
		case w.Values.DType == tensor.BF16:
			expand(w, view[float32](d), view[uint16](v), i0, i1, tensor.FromBF16)
		default:
			expand(w, view[float32](d), view[uint16](v), i0, i1, tensor.FromF16)
		}
	})
}

func expand[D, S any](w *Weight, dst []D, src []S, i0, i1 int, conv func(S) D) {
	n := w.Start(i0, 0)
	for i := i0; i < i1; i++ {
		row := dst[i*w.In : (i+1)*w.In]
		if w.Dense() {
			for j := range row {
				row[j] = conv(src[n+j])
			}
			n += w.In
			continue
		}
		clear(row)
		for k, m := range w.RowBits(i) {
			seg := row[k*64:]
			for ; m != 0; m &= m - 1 {
				seg[bits.TrailingZeros64(m)] = conv(src[n])
				n++
			}
		}
	}
}

// view is host memory as elements.
func view[E any](m tensor.Mem) []E {
	if len(m.Host) == 0 {
		return nil
	}
	var e E
	return unsafe.Slice((*E)(unsafe.Pointer(&m.Host[0])), len(m.Host)/int(unsafe.Sizeof(e)))
}

// bytesOf is the memory of v; of an empty v it is empty but not absent.
func bytesOf[E uint32 | uint64](v []E) tensor.Mem {
	if len(v) == 0 {
		return tensor.Mem{Host: []byte{}}
	}
	return tensor.Mem{Host: unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))}
}

// parallel calls f over [0, rows) in pieces, on all cores where the matrix is large enough to pay for it.
func parallel(rows, cols int, f func(i0, i1 int)) {
	n := min(runtime.GOMAXPROCS(0), rows, 1+rows*cols/(1<<16))
	if n <= 1 {
		f(0, rows)
		return
	}
	var wg sync.WaitGroup
	for p := range n {
		wg.Go(func() { f(rows*p/n, rows*(p+1)/n) })
	}
	wg.Wait()
}
