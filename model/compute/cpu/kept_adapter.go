package cpu

import (
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// KeptAdapter adds to da += s·Bᵀ·G and db += s·G·Aᵀ, G = M ⊙ (dyᵀ·x).
func (b *Backend) KeptAdapter(da, db, dy, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	if b.masks(w, x.DType) {
		masked("masked adapter", x, dy, w, bm, am)
		want("masked adapter", "da", da, tensor.F32, am.Rows, w.In)
		want("masked adapter", "db", db, tensor.F32, w.Out, am.Rows)
		b.unitAdapter(da, db, dy, x, w, bm, am, s)
		return
	}
	b.wantKept("kept adapter", x, dy, slot, w)
	r := am.Rows
	want("kept adapter", "a", am, tensor.F32, r, w.In)
	want("kept adapter", "da", da, tensor.F32, r, w.In)
	want("kept adapter", "b", bm, tensor.F32, w.Out, r)
	want("kept adapter", "db", db, tensor.F32, w.Out, r)
	g := b.gradient(dy, x, slot, w)
	b.reduce(da, db, bm, am, g, s)
}

// gradient sets G = M ⊙ (dyᵀ·x), packed in the slot, in float32.
func (b *Backend) gradient(dy, x, slot tensor.Tensor, w *sparse.Weight) tiles {
	k, g := &b.kern.Kept, b.tiles(w, slot, tensor.F32)
	b.tasks.place = placeTask{g, w}
	b.pool.run(&b.tasks.place, g.chunks(), grain(keptRows*g.blocks()))
	if x.Rows == 0 {
		clear(g.values.Float32())
	}
	task, fill, per := keptDotsTask{lanes: k.Lanes, dots: k.Dots[:], g: g}, b.fill, 1
	if x.DType == tensor.BF16 {
		task.dots, fill, per = k.Half.Dots[:], b.fillTokens, 2
	}
	wide := widest(task.dots) * k.Lanes
	for first := 0; first < x.Rows; first += keptTokens {
		n := min(keptTokens, x.Rows-first)
		last := ((n-1)%(wide*per) + per) / per
		last = k.Lanes * widthFrom((last+k.Lanes-1)/k.Lanes, func(n int) bool { return task.dots[n-1] != nil })
		task.x = fill(&b.kept.x, x, first, n, wide, last, 64*g.blocks()+1)
		task.y = fill(&b.kept.y, dy, first, n, wide, last, w.Out)
		b.tasks.keptDots = task
		b.pool.run(&b.tasks.keptDots, task.down()*task.across(), 1)
	}
	return g
}

// placeTask sets the starts of t, laid out like w; a piece is a chunk of rows.
type placeTask struct {
	t tiles
	w *sparse.Weight
}

func (t *placeTask) do(_ *worker, c, end int) {
	for ; c < end; c++ {
		t.t.place(c, t.w.Start(c*keptRows, 0))
	}
}

// widest is the greatest width that there is, in registers.
func widest(d []simd.Dots) int {
	n := len(d)
	for d[n-1] == nil {
		n--
	}
	return n
}

// widthFrom is the least width, n registers or more, that there is a kernel for.
func widthFrom(n int, have func(n int) bool) int {
	for !have(n) {
		n++
	}
	return n
}

// A piece of G is dotChunks chunks of rows by dotBlocks blocks of columns: as many chunks meet a block of x while it is in the first cache.
const (
	dotChunks = 4
	dotBlocks = 2
)

// keptDotsTask adds the panels' part to G, or sets it with the first.
type keptDotsTask struct {
	lanes int
	dots  []simd.Dots
	g     tiles
	x, y  panels
}

// down and across are the numbers of pieces along rows and columns.
func (t *keptDotsTask) down() int   { return (t.g.chunks() + dotChunks - 1) / dotChunks }
func (t *keptDotsTask) across() int { return (t.g.blocks() + dotBlocks - 1) / dotBlocks }

func (t *keptDotsTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		c0, k0 := i/t.across()*dotChunks, i%t.across()*dotBlocks
		for q := range t.x.count() {
			for k := k0; k < min(k0+dotBlocks, t.g.blocks()); k++ {
				for c := c0; c < min(c0+dotChunks, t.g.chunks()); c++ {
					t.tile(w, c, k, q)
				}
			}
		}
	}
}

// tile adds panel q to chunk c, block k of G.
func (t *keptDotsTask) tile(w *worker, c, k, q int) {
	dst := t.g.at(c, k)
	if dst == nil {
		return
	}
	i, width := c*keptRows, t.x.width(q)
	rows := min(keptRows, t.g.rows-i)
	w.work.Words += rows * width / t.lanes
	t.dots[width/t.lanes-1](rows, dst, &t.y.row(q, i)[0], &t.x.row(q, 64*k)[0], t.g.word(i, k), t.g.step, min(t.x.first+q, 1))
}

// reduceRows is the number of rows of G whose part of dA is summed by itself.
const reduceRows = 2 * keptRows

// reduce adds s·Bᵀ·G to da and s·G·Aᵀ to db, as many ranks at a time as the kernel takes.
func (b *Backend) reduce(da, db, bm, am tensor.Tensor, g tiles, s float32) {
	k := &b.kern.Kept
	t := &b.tasks.keptReduce
	for p := 0; p < am.Rows; p += len(k.Reduce) * k.Lanes {
		n := min(len(k.Reduce)*k.Lanes, am.Rows-p)
		regs := reduceWidth(k, n)
		*t = keptReduceTask{kernel: k.Reduce[regs-1], g: g, b: bm, da: da, db: db, first: p, n: n, width: regs * k.Lanes, s: s}
		t.a = b.fill(&b.kept.a, am, p, n, t.width, t.width, am.Cols)
		t.parts = sized(&b.kept.b, t.groups()*g.cols*t.width)
		b.pool.run(t, t.groups(), 1)
		b.tasks.keptSum = keptSumTask{t}
		b.pool.run(&b.tasks.keptSum, g.blocks(), 1)
	}
}

// reduceWidth is the number of registers of the kernel that n ranks fit in.
func reduceWidth(k *simd.Kept, n int) int {
	return widthFrom((n+k.Lanes-1)/k.Lanes, func(n int) bool { return k.Reduce[n-1] != nil })
}

// keptReduceTask adds to ranks [first, first+n) of db, and sets a part of daᵀ for each group of rows of G, which is a piece.
type keptReduceTask struct {
	kernel   func(*simd.KeptReduce)
	g        tiles
	a        panels // Aᵀ [in, width]
	b        tensor.Tensor
	da, db   tensor.Tensor
	parts    []float32 // [groups, in, width]
	first, n int
	width    int
	s        float32
}

func (t *keptReduceTask) groups() int { return (t.g.rows + reduceRows - 1) / reduceRows }

// part is that of group i, of the columns from j on.
func (t *keptReduceTask) part(i, j int) []float32 {
	return t.parts[(i*t.g.cols+j)*t.width : (i+1)*t.g.cols*t.width]
}

// scratch is the floats that a piece takes: its rows of B, and of dB's sums.
func (t *keptReduceTask) scratch() int { return 2 * reduceRows * t.width }

func (t *keptReduceTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		i0 := i * reduceRows
		rows, r := min(reduceRows, t.g.rows-i0), t.b.Cols
		buf := w.scratch(t.scratch())
		clear(buf)
		clear(t.part(i, 0))
		b, sum := buf[:rows*t.width], buf[reduceRows*t.width:]
		for j := range rows {
			copy(b[j*t.width:][:t.n], t.b.Float32()[(i0+j)*r+t.first:])
		}
		m := &w.keptReduce
		for k := range t.g.blocks() {
			for c := i0 / keptRows; c*keptRows < i0+rows; c++ {
				j := c*keptRows - i0
				if m.G = t.g.at(c, k); m.G == nil {
					continue
				}
				m.Rows, m.DB, m.DA, m.A, m.B = min(keptRows, rows-j), &sum[j*t.width], &t.part(i, 64*k)[0], &t.a.row(0, 64*k)[0], &b[j*t.width]
				m.Bits, m.Step = t.g.word(c*keptRows, k), t.g.step
				t.kernel(m)
			}
		}
		for j := range rows {
			w.axpy(t.db.Float32()[(i0+j)*r+t.first:], t.s, sum[j*t.width:][:t.n])
		}
	}
}

// keptSumTask adds s times the sum of the parts to da, a block of columns in each piece.
type keptSumTask struct{ *keptReduceTask }

func (t *keptSumTask) do(w *worker, k, end int) {
	for ; k < end; k++ {
		cols := min(64, t.g.cols-64*k)
		buf := w.scratch(2 * 64 * t.width)
		sum, turned := buf[:cols*t.width], buf[64*t.width:]
		clear(sum)
		for i := range t.groups() {
			w.add(sum, t.part(i, 64*k)[:len(sum)])
		}
		across(w, turned, cols, sum, t.width, 0, t.n)
		for p := range t.n {
			w.axpy(t.da.Float32()[(t.first+p)*t.g.cols+64*k:], t.s, turned[p*cols:][:cols])
		}
	}
}
