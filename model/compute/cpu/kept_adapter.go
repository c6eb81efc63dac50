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
	kept("kept adapter", x, dy, slot, w)
	r := am.Rows
	want("kept adapter", "a", am, tensor.F32, r, w.In)
	want("kept adapter", "da", da, tensor.F32, r, w.In)
	want("kept adapter", "b", bm, tensor.F32, w.Out, r)
	want("kept adapter", "db", db, tensor.F32, w.Out, r)
	g := b.gradient(dy, x, slot, w)
	b.addDB(db, am, g, s)
	b.addDA(da, bm, g, s)
}

// gradient sets G = M ⊙ (dyᵀ·x), packed in the slot.
func (b *Backend) gradient(dy, x, slot tensor.Tensor, w *sparse.Weight) tiles {
	k, g := &b.kern.Kept, b.tiles(w, slot)
	for c := range g.chunks() {
		g.place(c, w.Start(c*keptRows, 0))
	}
	if x.Rows == 0 {
		clear(g.values)
	}
	wide := widest(k)
	for first := 0; first < x.Rows; first += keptTokens {
		n := min(keptTokens, x.Rows-first)
		last := (n-1)%wide + 1
		last = k.Lanes * widthOf(k, (last+k.Lanes-1)/k.Lanes)
		xs := b.fill(&b.kept.x, x, first, n, wide, last, 64*g.blocks()+1)
		ys := b.fill(&b.kept.y, dy, first, n, wide, last, w.Out)
		b.tasks.keptDots = keptDotsTask{k, g, xs, ys}
		b.pool.run(&b.tasks.keptDots, g.chunks()*b.tasks.keptDots.groups(), 1)
	}
	return g
}

// widthOf is the least width that Dots has and that is at least n.
func widthOf(k *simd.Kept, n int) int {
	for k.Dots[n-1] == nil {
		n++
	}
	return n
}

// dotBlocks is the number of blocks of columns of a piece of G.
const dotBlocks = 2

// keptDotsTask adds the panels' part to G, or sets it with the first; a piece is a chunk of rows by dotBlocks blocks.
type keptDotsTask struct {
	kern *simd.Kept
	g    tiles
	x, y panels
}

func (t *keptDotsTask) groups() int { return (t.g.blocks() + dotBlocks - 1) / dotBlocks }

func (t *keptDotsTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		c, k0 := i/t.groups(), i%t.groups()*dotBlocks
		for q := range t.x.count() {
			for k := k0; k < min(k0+dotBlocks, t.g.blocks()); k++ {
				t.tile(w, c, k, q)
			}
		}
	}
}

// tile adds panel q to chunk c, block k of G: 32 columns at a time where a panel of 64 would not stay in the first cache.
func (t *keptDotsTask) tile(w *worker, c, k, q int) {
	dst := t.g.at(c, k)
	if dst == nil {
		return
	}
	const low, all = 1<<32 - 1, 1<<64 - 1
	add := min(t.x.first+q, 1)
	i := c * keptRows
	rows := min(keptRows, t.g.rows-i)
	y, x, word := &t.y.row(q, i)[0], &t.x.row(q, 64*k)[0], t.g.word(i, k)
	width := t.x.width(q)
	w.work.Words += rows * width / t.kern.Lanes
	dots := t.kern.Dots[width/t.kern.Lanes-1]
	if width <= 128 {
		dots(rows, dst, y, x, word, t.g.step, all, 0, add)
		return
	}
	dots(rows, dst, y, x, word, t.g.step, low, 0, add)
	dots(rows, dst, y, x, word, t.g.step, all^low, low, add)
}

// addDB adds s·G·Aᵀ to db: a walk over G with panels of Aᵀ.
func (b *Backend) addDB(db, am tensor.Tensor, g tiles, s float32) {
	k := &b.kern.Kept
	wide := len(k.Walk) * k.Lanes
	p := b.fill(&b.kept.a, am, 0, am.Rows, wide, roundUp((am.Rows-1)%wide+1, k.Lanes), am.Cols)
	b.tasks.keptDB = keptDBTask{k, g, p, db.Float32(), s}
	b.pool.run(&b.tasks.keptDB, g.chunks(), 1)
}

// keptDBTask adds s·G·Aᵀ to db, a chunk of rows in each piece.
type keptDBTask struct {
	kern *simd.Kept
	g    tiles
	a    panels
	db   []float32
	s    float32
}

func (t *keptDBTask) do(w *worker, c, end int) {
	for ; c < end; c++ {
		i, r := c*keptRows, t.a.n
		rows := min(keptRows, t.g.rows-i)
		for q := range t.a.count() {
			width := t.a.width(q)
			sum := w.scratch(keptRows * width)[:rows*width]
			clear(sum)
			for k := range t.g.blocks() {
				t.kern.Walk[width/t.kern.Lanes-1](rows, &sum[0], &t.a.row(q, 64*k)[0], t.g.word(i, k), t.g.step, t.g.at(c, k))
			}
			for j := range rows {
				w.axpy(t.db[(i+j)*r+q*t.a.wide:], t.s, sum[j*width:][:t.a.tokens(q)])
			}
		}
	}
}

// addDA adds s·Bᵀ·G to da, Lanes rows at a time.
func (b *Backend) addDA(da, bm tensor.Tensor, g tiles, s float32) {
	k, r := &b.kern.Kept, bm.Cols
	slice := sized(&b.kept.b, bm.Rows*k.Lanes)
	for p := 0; p < r; p += k.Lanes {
		n := min(k.Lanes, r-p)
		clear(slice)
		for i := range bm.Rows {
			copy(slice[i*k.Lanes:][:n], bm.Float32()[i*r+p:])
		}
		b.tasks.keptDA = keptDATask{k, g, slice, da.Float32()[p*g.cols:], n, s}
		b.pool.run(&b.tasks.keptDA, g.blocks(), 1)
	}
}

// keptDATask adds s·bᵀ·G to n rows of da; b [out, Lanes]. A piece is a block of columns.
type keptDATask struct {
	kern *simd.Kept
	g    tiles
	b    []float32
	da   []float32
	n    int
	s    float32
}

func (t *keptDATask) do(w *worker, k, end int) {
	lanes := t.kern.Lanes
	for ; k < end; k++ {
		sum := w.scratch(64 * lanes)
		clear(sum)
		for c := range t.g.chunks() {
			i := c * keptRows
			t.kern.Spread(min(keptRows, t.g.rows-i), &sum[0], &t.b[i*lanes], t.g.word(i, k), t.g.step, t.g.at(c, k))
		}
		for p := range t.n {
			row := t.da[p*t.g.cols+64*k:][:min(64, t.g.cols-64*k)]
			for j := range row {
				row[j] += t.s * sum[j*lanes+p]
			}
		}
	}
}
