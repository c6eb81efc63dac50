package cpu

import (
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// Panels of bfloat16 are made in two steps: pairs of neighbouring inputs, 32 bits wide, are transposed as if they were floats; then
//
//	for y   (a,b), (c,d) become the six pairs of the four inputs a, b, c, d
//	for G   (a,b) of two tokens become a pair of tokens of a, and one of b

// sixOf is the number of rows of pairs for so many inputs.
func sixOf(inputs int) int { return inputs / 4 * 6 }

// pairTask fills panels from pairs of inputs, pairBlock inputs in each piece.
type pairTask struct {
	kern *simd.KeptHalf
	p    panels
	six  bool
}

// pairBlock is the number of inputs whose transposed pairs stand at a time, in the first cache.
const pairBlock = 64

func (t *pairTask) down() int { return (t.p.src.Cols + pairBlock - 1) / pairBlock }

func (t *pairTask) pieces() int { return t.p.count() * t.down() }

// scratch is the floats that a piece takes.
func (t *pairTask) scratch() int { return pairBlock / 2 * t.p.wide * t.p.per }

func (t *pairTask) do(w *worker, i, end int) {
	for ; i < end; i++ {
		p, q, k := &t.p, i/t.down(), i%t.down()*pairBlock
		n, width, kc := p.tokens(q), p.width(q)*p.per, min(pairBlock, p.src.Cols-k)
		turned := w.scratch(t.scratch())[:kc/2*width]
		if n < width {
			clear(turned)
		}
		pairs := as(p.src, tensor.F32, p.src.Rows, p.src.Cols/2)
		for g := 0; g < n; g += w.Lanes {
			packAcross(w, w.Kernels, turned[g:], pairs, p.first+q*p.wide*p.per+g, min(w.Lanes, n-g), width, k/2, kc/2)
		}
		w.work.Packed += kc * width
		if t.six {
			t.kern.SixPairs(kc/4, width/w.Lanes, &p.row(q, sixOf(k))[0], &turned[0])
		} else {
			t.kern.PairRows(kc/2, width/w.Lanes/2, &p.row(q, k)[0], &turned[0])
		}
	}
}

// fillPairs fills panels with the six pairs of each four inputs of src's rows [first, first+n).
func (b *Backend) fillPairs(src tensor.Tensor, first, n, wide, last int) panels {
	p := panels{src: src, first: first, n: n, wide: wide, last: last, space: sixOf(src.Cols), per: 1}
	return b.runPairs(&b.kept.x, p, true)
}

// fillTokens fills panels with pairs of src's rows [first, first+n), wide pairs in each.
func (b *Backend) fillTokens(buf *[]float32, src tensor.Tensor, first, n, wide, last, space int) panels {
	return b.runPairs(buf, panels{src: src, first: first, n: n, wide: wide, last: last, space: space, per: 2}, false)
}

func (b *Backend) runPairs(buf *[]float32, p panels, six bool) panels {
	p.dst = sized(buf, p.count()*p.wide*p.space)
	b.tasks.pairs = pairTask{&b.kern.Kept.Half, p, six}
	b.pool.run(&b.tasks.pairs, b.tasks.pairs.pieces(), 1)
	return p
}
