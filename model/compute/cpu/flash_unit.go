package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/tensor"
)

// Attention's products on a unit for bfloat16, on one thread: the left side is packed whole, the right side some panels at a time, and
// their blocks of dst stand in the first caches until they are stored.
const besideUnit = 4 // right panels at a time

// besideScratch is a worker's: packed panels, and BF16 weights.
type besideScratch struct {
	left, right []uint16
	blocks      []float32
	p, ds       []uint16
}

// onUnit reports whether a product of a and b is the unit's: of BF16, that is, since splitting what is used as little as here costs too
// much.
func (w *worker) onUnit(a, b tensor.Tensor) bool {
	return w.beside != nil && a.DType == tensor.BF16 && b.DType == tensor.BF16 && w.beside.multiplies(1, 1)
}

// unitProduct is product on the unit.
func (w *worker) unitProduct(c []float32, ldc, m, n, k int, alpha float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, beta float32) {
	left := unitSide{side: side{t: a, along: ta, rows: m}, parts: 1}
	right := unitSide{side: side{t: b, along: !tb, rows: n}, parts: 1, pairs: true}
	w.packWhole(&left, &w.besides.left, k)
	for p := 0; p < right.panels(); p += besideUnit {
		end := min(p+besideUnit, right.panels())
		w.besides.blocks = aligned(w.besides.blocks, left.panels()*(end-p)*amx.Block)
		for k0 := 0; k0 < k; k0 += unitK {
			w.besideBlock(&left, &right, p, end, k0, min(unitK, k-k0))
		}
		w.besideStore(c[p*amx.Rows:], ldc, m, n-p*amx.Rows, alpha, beta)
	}
}

// packWhole packs all panels of s, block of k by block.
func (w *worker) packWhole(s *unitSide, buf *[]uint16, k int) {
	*buf = aligned(*buf, s.size(k)*s.panels())
	s.packed = *buf
	for k0 := 0; k0 < k; k0 += unitK {
		kc := min(unitK, k-k0)
		for p := range s.panels() {
			s.pack(&w.beside.Packing, s.at(p, k0, kc), p, k0, kc)
		}
	}
}

// besideBlock adds the products of elements [k0, k0+kc) of all left and of right panels [p, end), or sets them with k0 = 0.
func (w *worker) besideBlock(left, right *unitSide, p, end, k0, kc int) {
	n := right.size(kc)
	w.besides.right = aligned(w.besides.right, n*(end-p))
	for q := p; q < end; q++ {
		right.pack(&w.beside.Packing, w.besides.right[(q-p)*n:(q-p+1)*n], q, k0, kc)
	}
	s := &w.unit.strip
	for i := range left.panels() {
		c := w.besides.blocks[i*(end-p)*amx.Block:]
		*s = amx.Strip{N: end - p, K: steps(kc), A: unsafe.Pointer(&left.at(i, k0, kc)[0]), B: unsafe.Pointer(&w.besides.right[0]), BStep: 2 * n,
			C: unsafe.Pointer(&c[0]), Add: k0}
		w.beside.Strip[0][0][1][1+2*((left.rowsAt(i)-1)/(amx.Rows/2))](s)
	}
}

// besideStore sets c [m, n], or as many columns of it as stand in the blocks, to α·blocks + β·c.
func (w *worker) besideStore(c []float32, ldc, m, n int, alpha, beta float32) {
	across := min(besideUnit, (n+amx.Rows-1)/amx.Rows)
	for i := 0; i < m; i += amx.Rows {
		for j := range across {
			block := &w.besides.blocks[(i/amx.Rows*across+j)*amx.Block]
			w.beside.Store32(unsafe.Pointer(&c[i*ldc+j*amx.Rows]), 4*ldc, unsafe.Pointer(block), min(amx.Rows, m-i), min(amx.Rows, n-j*amx.Rows), alpha, beta)
		}
	}
}

// rounded is x [rows, cols] as an operand beside BF16: rounded into buf where the unit is going to take it, else as it is.
func (w *worker) rounded(buf *[]uint16, x []float32, cols int, beside tensor.Tensor) tensor.Tensor {
	if !w.onUnit(beside, beside) {
		return matrix(x, cols)
	}
	if len(x) == 0 {
		return tensor.Tensor{DType: tensor.BF16, Cols: cols}
	}
	*buf = aligned(*buf, len(x))
	w.roundBF16(*buf, x)
	return tensor.Tensor{DType: tensor.BF16, Rows: len(x) / cols, Cols: cols, Mem: tensor.Mem{Host: unsafe.Slice((*byte)(unsafe.Pointer(&(*buf)[0])), 2*len(x))}}
}
