package cpu

import (
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// panels are rows [first, first+n) of a matrix [N,cols], transposed: panel q is [space][width(q)], rows q·wide … of it side by side.
type panels struct {
	src            tensor.Tensor
	dst            []float32
	first, n, wide int
	last           int // width of the last panel: what is not a row of src is zero there
	space          int // rows of a panel, at least cols
}

func (p *panels) count() int { return (p.n + p.wide - 1) / p.wide }

// width is the number of floats in a row of panel q, tokens that of its rows of src.
func (p *panels) width(q int) int {
	if q == p.count()-1 {
		return p.last
	}
	return p.wide
}

func (p *panels) tokens(q int) int { return min(p.wide, p.n-q*p.wide) }

// row is panel q from its row k on.
func (p *panels) row(q, k int) []float32 { return p.dst[q*p.wide*p.space+k*p.width(q):] }

// panelTask fills panels, blockK of a panel's rows in each piece.
type panelTask struct{ p panels }

func (t *panelTask) pieces() int { return t.p.count() * t.down() }

func (t *panelTask) down() int { return (t.p.src.Cols + blockK - 1) / blockK }

func (t *panelTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		p, q, k := &t.p, i/t.down(), i%t.down()*blockK
		n, width, kc := p.tokens(q), p.width(q), min(blockK, p.src.Cols-k)
		w.work.Packed += kc * width
		dst := p.row(q, k)[:kc*width]
		if n < width {
			clear(dst)
		}
		for g := 0; g < n; g += w.Lanes {
			packAcross(w, w.Kernels, dst[g:], p.src, p.first+q*p.wide+g, min(w.Lanes, n-g), width, k, kc)
		}
	}
}

// fill fills panels of src's rows [first, first+n), at most keptTokens of them.
func (b *Backend) fill(buf *[]float32, src tensor.Tensor, first, n, wide, last, space int) panels {
	p := panels{src: src, first: first, n: n, wide: wide, last: last, space: space}
	p.dst = sized(buf, roundUp(n, wide)*space)
	b.tasks.panels = panelTask{p}
	b.pool.run(&b.tasks.panels, b.tasks.panels.pieces(), 1)
	return p
}

// walk sets y = x·tᵀ + β·y.
func (b *Backend) walk(y, x tensor.Tensor, t tiles, beta float32) {
	k := &b.kern.Kept
	for first := 0; first < x.Rows; first += keptTokens {
		n := min(keptTokens, x.Rows-first)
		wide := len(k.Walk) * k.Lanes
		p := b.fill(&b.kept.x, x, first, n, wide, roundUp((n-1)%wide+1, k.Lanes), x.Cols)
		b.tasks.walk = walkTask{kern: k, t: t, x: p, y: y, beta: beta}
		b.pool.run(&b.tasks.walk, b.tasks.walk.groups()*p.count(), 1)
	}
}

// walkTask sets y [first+n, rows] from x's panels; a piece is a group of chunks of t's rows against one panel.
type walkTask struct {
	kern *simd.Kept
	t    tiles
	x    panels
	y    tensor.Tensor
	beta float32
}

const walkChunks = 4

func (t *walkTask) groups() int { return (t.t.chunks() + walkChunks - 1) / walkChunks }

func (t *walkTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		c0, q := i/t.x.count()*walkChunks, i%t.x.count()
		i0 := c0 * keptRows
		rows := min(walkChunks*keptRows, t.t.rows-i0)
		width := t.x.width(q)
		sum := w.scratch(walkChunks * keptRows * width)[:rows*width]
		w.work.Words += rows * t.t.blocks() * width / t.kern.Lanes
		t.begin(w, sum, i0, q)
		for k := range t.t.blocks() {
			x := &t.x.row(q, 64*k)[0]
			for r, c := 0, c0; r < rows; r, c = r+keptRows, c+1 {
				t.kern.Walk[width/t.kern.Lanes-1](min(keptRows, rows-r), &sum[r*width], x, t.t.word(i0+r, k), t.t.step, t.t.at(c, k))
			}
		}
		at := (t.x.first+q*t.x.wide)*t.t.rows + i0
		t.end(w, sum, rows, width, t.x.tokens(q), t.y.Float32()[at:])
	}
}

// begin sets sum to β·yᵀ.
func (t *walkTask) begin(w *worker, sum []float32, i0, q int) {
	if t.beta == 0 {
		clear(sum)
		return
	}
	n, width := t.x.tokens(q), t.x.width(q)
	if n < width {
		clear(sum)
	}
	for g := 0; g < n; g += w.Lanes {
		packAcross(w, w.Kernels, sum[g:], t.y, t.x.first+q*t.x.wide+g, min(w.Lanes, n-g), width, i0, len(sum)/width)
	}
	if t.beta != 1 {
		w.scale(sum, t.beta)
	}
}

// end sets y [n, rows], with rows of t.t.rows floats, to sumᵀ.
func (t *walkTask) end(w *worker, sum []float32, rows, width, n int, y []float32) {
	s := tensor.Of(sum).Reshape(rows, width)
	for g := 0; g < rows; g += w.Lanes {
		packAcross(w, w.Kernels, y[g:], s, g, min(w.Lanes, rows-g), t.t.rows, 0, n)
	}
}
