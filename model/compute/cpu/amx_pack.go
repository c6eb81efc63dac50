package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/tensor"
)

// unitSide is op(a) or op(b)ᵀ, rows × k elements, in panels of 32 rows.
type unitSide struct {
	side
	parts  int
	pairs  bool     // laid out as op(b)
	first  int      // row: these are rows [first, first+rows) of op(x)
	packed []uint16 // beforehand; block of k by block, in it panel by panel
}

func (s *unitSide) panels() int { return (s.rows + amx.Rows - 1) / amx.Rows }

// rowsAt is the number of rows of panel p.
func (s *unitSide) rowsAt(p int) int { return min(amx.Rows, s.rows-p*amx.Rows) }

// size is the length of a panel of kc elements.
func (s *unitSide) size(kc int) int { return steps(kc) * s.parts * amx.Part / 2 }

func steps(kc int) int { return (kc + amx.Rows - 1) / amx.Rows }

// at is where panel p of the block that begins at k0, a multiple of whole steps, is packed.
func (s *unitSide) at(p, k0, kc int) []uint16 {
	n := s.size(kc)
	return s.packed[k0/amx.Rows*s.parts*amx.Part/2*s.panels()+p*n:][:n]
}

// pack sets dst to panel p of elements [k0, k0+kc).
func (s *unitSide) pack(u *amx.Packing, dst []uint16, p, k0, kc int) {
	if s.t.DType == tensor.F16 || !s.fast(u, dst, p, k0, kc) {
		s.careful(dst, p, k0, kc)
		return
	}
	if s.along != s.pairs {
		u.Turn(unsafe.Pointer(&dst[0]), 2*s.parts*steps(kc))
	}
}

// fast packs by the kernels, as rows or along; false if a part is not finite.
func (s *unitSide) fast(u *amx.Packing, dst []uint16, p, k0, kc int) bool {
	d, size, rows := unsafe.Pointer(&dst[0]), s.t.DType.Size(), s.rowsAt(p)
	src, stride := element(s.t, s.index(p*amx.Rows, k0)), s.t.Cols*size
	switch {
	case s.parts == 1 && s.along:
		u.Along16(d, src, stride, rows, kc)
	case s.parts == 1:
		u.Rows16(d, src, stride, rows, kc)
	case s.along:
		return u.Along32(d, src, stride, rows, kc) == 0
	default:
		return u.Rows32(d, src, stride, rows, kc) == 0
	}
	return true
}

// index is that of element k of a row in t's memory.
func (s *unitSide) index(row, k int) int {
	if s.along {
		return k*s.t.Cols + s.first + row
	}
	return (s.first+row)*s.t.Cols + k
}

// careful packs element by element.
func (s *unitSide) careful(dst []uint16, p, k0, kc int) {
	var x [1]float32
	clear(dst)
	for r := range s.rowsAt(p) {
		for k := range kc {
			widen(x[:], elements(s.t, s.index(p*amx.Rows+r, k0+k), 1), 0)
			for part, v := range amx.Split(x[0]) {
				dst[amx.Index(r, k, part, s.parts, s.pairs)] = v
			}
		}
	}
}

// unitPackTask packs a side beforehand; an item is one panel of one block of k.
type unitPackTask struct {
	u     *unit
	s     *unitSide
	k, kc int
}

func (t *unitPackTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		p, k0 := i%t.s.panels(), i/t.s.panels()*t.kc
		kc := min(t.kc, t.k-k0)
		w.work.Packed += kc * amx.Rows
		t.s.pack(&t.u.Packing, t.s.at(p, k0, kc), p, k0, kc)
	}
}

// packBefore packs s into *buf.
func (b *Backend) packBefore(s *unitSide, buf *[]uint16, k, kc int) {
	*buf = aligned(*buf, s.size(k)*s.panels())
	s.packed = *buf
	b.tasks.unitPack = unitPackTask{&b.unit, s, k, kc}
	b.pool.run(&b.tasks.unitPack, s.panels()*((k+kc-1)/kc), 1+1<<16/(amx.Rows*min(k, kc)*s.parts))
}
