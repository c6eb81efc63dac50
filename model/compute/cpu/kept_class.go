package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// dx = dy·W̃ at 2:4 in bfloat16 sums over the outputs, along which the pattern leaves no pairs: so they are made. Of a group of four inputs
// a, b, c, d each output keeps two. The outputs that keep the same two are a class, and any two of them, o and p, add
//
//	dx_a += (W̃_oa, W̃_pa)·(dy_o, dy_p)      dx_b += (W̃_ob, W̃_pb)·(dy_o, dy_p)
//
// which is half of what the dense product multiplies, and the pairs of dy serve twice. dyᵀ stands in panels [out][tokens] of bfloat16, of which a
// block of classRows outputs stays in the first cache.

const (
	classRows   = 256 // outputs of a record
	classInputs = 256 // whose sums stand at a time
	classTokens = 64  // of a panel
)

// classes is W̃ by class, merged into the slot: block of classRows outputs by block, in it a record for each group of four inputs (see
// simd.ClassPack).
type classes struct {
	memory  []byte
	out, in int
}

func (c *classes) blocks() int { return (c.out + classRows - 1) / classRows }

// rows is the number of outputs of block k.
func (c *classes) rows(k int) int { return min(classRows, c.out-k*classRows) }

// record is where the values of a record of so many outputs begin, and its size.
func (c *classes) record(rows int) (values, size int) {
	most := rows + 6 // each class may have one more
	values = roundUp(8+most+15, 8)
	return values, roundUp(values+4*most+63, 64)
}

// at is the record of block k and group g.
func (c *classes) at(k, g int) unsafe.Pointer {
	_, whole := c.record(classRows)
	_, size := c.record(c.rows(k))
	return unsafe.Pointer(&c.memory[k*whole*c.in/4+g*size])
}

// classTask merges W̃ by class; a piece is a block of outputs by sparse.Block inputs.
type classTask struct {
	mergeTask
	kern *simd.Kept
	to   classes
}

func (t *classTask) pieces() int { return t.to.blocks() * t.w.Blocks() }

// classWords is the pairs that 64 inputs of a block keep, which stand as they are merged, and transposed.
const classWords = classRows * 16

func (t *classTask) do(w *worker, i, end int) {
	grow(&w.a, classWords)
	grow(&w.b, classWords)
	for ; i < end; i++ {
		k, block := i/t.w.Blocks(), i%t.w.Blocks()
		i0, rows, space := k*classRows, t.to.rows(k), roundUp(t.to.rows(k), 16)
		coef, a := t.factors(w, i0, rows, 64)
		words := sized(&w.at, rows+2*space)
		at, bits := t.starts(w, i0, rows, block), words[rows:]
		m, p := &w.keptMerge, &w.classPack
		*m = t.kept(rows, at, coef, a)
		m.Dst = unsafe.Pointer(&w.a[0])
		*p = simd.ClassPack{Slices: space / 16, Words: unsafe.Pointer(&w.b[0]), Bits: unsafe.Pointer(&bits[0])}
		p.Values, p.Size = t.to.record(rows)
		for j := block * sparse.Block; j < min((block+1)*sparse.Block, t.w.In); j += 64 {
			cols := min(64, t.w.In-j)
			w.work.Merged += rows * cols
			t.columns(a, j, 64)
			m.Bits = &t.w.RowBits(i0)[j/64]
			w.mergeKept(t.kern, t.w.Values, tensor.BF16)
			p.Groups, p.Dst = cols/4, t.to.at(k, j/4)
			across(w, w.b, space, w.a[:rows*p.Groups], p.Groups, 0, p.Groups)
			t.bits(bits, i0, rows, j)
			t.kern.Half.ClassPack(p)
		}
	}
}

// bits sets dst [2][len/2] to word j/64 of the mask's rows from i on, by halves; where there is no row, to 0.
func (t *classTask) bits(dst []uint32, i, rows, j int) {
	low, high := dst[:len(dst)/2], dst[len(dst)/2:]
	clear(low[rows:])
	clear(high[rows:])
	words := t.w.Words()
	mask := t.w.Mask()[i*words+j/64:]
	for r := range rows {
		low[r], high[r] = uint32(mask[r*words]), uint32(mask[r*words]>>32)
	}
}

// classes merges W̃ by class.
func (b *Backend) classes(slot tensor.Tensor, m mergeTask) classes {
	t := &b.tasks.classes
	*t = classTask{mergeTask: m, kern: &b.kern.Kept, to: classes{slot.Mem.Host, m.w.Out, m.w.In}}
	b.pool.run(t, t.pieces(), 1)
	return t.to
}

// walkClasses sets dx = dy·W̃ + β·dx.
func (b *Backend) walkClasses(dx, dy tensor.Tensor, from classes, beta float32) {
	k := &b.kern.Kept
	for first := 0; first < dy.Rows; first += keptTokens {
		n := min(keptTokens, dy.Rows-first)
		last := roundUp((n-1)%classTokens+1, 2*k.Lanes) / 2
		t := &b.tasks.classWalk
		*t = classWalkTask{walkSums{k, b.fillTokens(&b.kept.x, dy, first, n, classTokens/2, last, dy.Cols), dx, beta}, from}
		b.pool.run(t, t.pieces(), 1)
	}
}

// classWalkTask sets dx from dy's panels; a piece is classInputs inputs against one panel.
type classWalkTask struct {
	walkSums
	from classes
}

func (t *classWalkTask) pieces() int {
	return (t.from.in + classInputs - 1) / classInputs * t.x.count()
}

// scratch is the floats that a piece takes: the sums.
func (t *classWalkTask) scratch() int { return classInputs * classTokens }

func (t *classWalkTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		j, q := i/t.x.count()*classInputs, i%t.x.count()
		cols, width := min(classInputs, t.from.in-j), t.width(q)
		sum := w.scratch(t.scratch())[:cols*width]
		t.begin(w, sum, j, q)
		walk := t.kern.Half.ClassWalk[width/(2*t.kern.Lanes)-1]
		for k := range t.from.blocks() {
			rows := t.from.rows(k)
			w.work.Words += rows * sparse.Words(cols) * width / t.kern.Lanes
			values, size := t.from.record(rows)
			walk(cols/4, &sum[0], &t.x.row(q, k*classRows)[0], t.from.at(k, j/4), values, size)
		}
		t.end(w, sum, j, q)
	}
}
