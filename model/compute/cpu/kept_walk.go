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
	per            int // rows of src in a float: one, or as bfloat16 two
}

func (p *panels) count() int { return (p.n + p.wide*p.per - 1) / (p.wide * p.per) }

// width is the number of floats in a row of panel q, tokens that of its rows of src.
func (p *panels) width(q int) int {
	if q == p.count()-1 {
		return p.last
	}
	return p.wide
}

func (p *panels) tokens(q int) int { return min(p.wide*p.per, p.n-q*p.wide*p.per) }

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
	p := panels{src: src, first: first, n: n, wide: wide, last: last, space: space, per: 1}
	p.dst = sized(buf, roundUp(n, wide)*space)
	b.tasks.panels = panelTask{p}
	b.pool.run(&b.tasks.panels, b.tasks.panels.pieces(), 1)
	return p
}

// walk sets y = x·tᵀ + β·y.
func (b *Backend) walk(y, x tensor.Tensor, t tiles, beta float32) {
	k := &b.kern.Kept
	task := walkTask{walkSums: walkSums{kern: k, y: y, beta: beta}, walk: k.Walk[:], block: 64, t: t}
	if x.DType == tensor.BF16 {
		task.walk, task.block = k.Half.Walk[:], sixOf(64)
	}
	for first := 0; first < x.Rows; first += keptTokens {
		n, wide := min(keptTokens, x.Rows-first), len(task.walk)*k.Lanes
		last := roundUp((n-1)%wide+1, k.Lanes)
		if x.DType == tensor.BF16 {
			task.x = b.fillPairs(x, first, n, wide, last)
		} else {
			task.x = b.fill(&b.kept.x, x, first, n, wide, last, x.Cols)
		}
		b.tasks.walk = task
		b.pool.run(&b.tasks.walk, task.groups()*task.x.count(), 1)
	}
}

// walkTask sets y [first+n, rows] from x's panels; a piece is a group of chunks of t's rows against one panel.
type walkTask struct {
	walkSums
	walk  []simd.Walk
	block int // rows of a panel for a block of columns
	t     tiles
}

// walkChunks is the number of chunks of a group: as many meet a block of the panel while it is in the first cache.
const walkChunks = 4

func (t *walkTask) groups() int { return (t.t.chunks() + walkChunks - 1) / walkChunks }

// scratch is the floats that a piece takes: the sums.
func (t *walkTask) scratch() int { return walkChunks * keptRows * t.x.wide }

func (t *walkTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		c0, q := i/t.x.count()*walkChunks, i%t.x.count()
		i0 := c0 * keptRows
		rows, width := min(walkChunks*keptRows, t.t.rows-i0), t.x.width(q)
		sum := w.scratch(t.scratch())[:rows*width]
		w.work.Words += rows * t.t.blocks() * width / t.kern.Lanes
		t.begin(w, sum, i0, q)
		walk := t.walk[width/t.kern.Lanes-1]
		for k := range t.t.blocks() {
			x := &t.x.row(q, t.block*k)[0]
			for r, c := 0, c0; r < rows; r, c = r+keptRows, c+1 {
				walk(min(keptRows, rows-r), &sum[r*width], x, t.t.word(i0+r, k), t.t.step, t.t.at(c, k))
			}
		}
		t.end(w, sum, i0, q)
	}
}

// walkSums are rows of yᵀ against one panel of x, where a walk adds up.
type walkSums struct {
	kern *simd.Kept
	x    panels
	y    tensor.Tensor
	beta float32
}

// width is the number of floats in a row of the sums of panel q, first the row of y where it begins.
func (t *walkSums) width(q int) int { return t.x.width(q) * t.x.per }
func (t *walkSums) first(q int) int { return t.x.first + q*t.x.wide*t.x.per }

// begin sets sum to β·yᵀ, y's columns from i0 on.
func (t *walkSums) begin(w *worker, sum []float32, i0, q int) {
	if t.beta == 0 {
		clear(sum)
		return
	}
	n, width := t.x.tokens(q), t.width(q)
	if n < width {
		clear(sum)
	}
	for g := 0; g < n; g += w.Lanes {
		packAcross(w, w.Kernels, sum[g:], t.y, t.first(q)+g, min(w.Lanes, n-g), width, i0, len(sum)/width)
	}
	if t.beta != 1 {
		w.scale(sum, t.beta)
	}
}

// end sets columns i0 … of y's rows to sumᵀ, a few whole rows after another; with bfloat16 two rows of sum become one of pairs, which are
// transposed as if they were floats.
func (t *walkSums) end(w *worker, sum []float32, i0, q int) {
	n, width, y := t.x.tokens(q), t.width(q), t.y
	if y.DType == tensor.BF16 {
		t.kern.Half.WeaveRows(len(sum)/width/2, width/t.kern.Lanes, &sum[0], &sum[0])
		y, i0, sum = as(y, tensor.F32, y.Rows, y.Cols/2), i0/2, sum[:len(sum)/2]
	}
	for g := 0; g < n; g += w.Lanes {
		across(w, y.Float32()[(t.first(q)+g)*y.Cols+i0:], y.Cols, sum, width, g, min(w.Lanes, n-g))
	}
}
