package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// spent is what f takes, on two threads.
func spent(isa string, f func(b *Backend)) Work {
	b := New(Config{ISA: isa, Threads: 2})
	defer b.Close()
	f(b)
	return b.Work()
}

// gemmWork is what a product [m,n,k] may take: each operand is packed once, in whole panels, and each block of blockK inner elements goes
// once over the tiles of dst.
func gemmWork(kern *simd.Kernels, m, n, k int) Work {
	up := func(n, to int) int { return (n + to - 1) / to }
	rows, cols, blocks := up(m, kern.MR), up(n, kern.NR), up(k, blockK)
	return Work{Packed: (rows*kern.MR + cols*kern.NR) * k, Tiles: rows * cols * blocks, Tasks: 2 * blocks}
}

// panelISAs are the instruction sets whose float32 products go by panels and tiles of one kind.
func panelISAs() []string {
	return slices.DeleteFunc(ISAs(), func(isa string) bool { u := unitFor(isa); return u.multiplies(3, 3) })
}

func TestAProductPacksEachOperandOnceAndGoesOnceOverItsTiles(t *testing.T) {
	for _, isa := range panelISAs() {
		for _, s := range [][3]int{{100, 300, 600}, {33, 70, 256}} {
			for _, order := range []int{0, 1, 2} {
				m, n, k := s[0], s[1], s[2]
				a, b, dst := random(tensor.F32, m, k), random(tensor.F32, k, n), tensor.New(tensor.F32, m, n)
				if order == 1 {
					b = b.Reshape(n, k)
				} else if order == 2 {
					a = a.Reshape(k, m)
				}
				got := spent(isa, func(be *Backend) { be.Gemm(dst, 1, a, order == 2, b, order == 1, 0) })
				if want := gemmWork(kernels(isa), m, n, k); got != want {
					t.Errorf("%s %v order %d: %+v, want %+v", isa, s, order, got, want)
				}
			}
		}
	}
}

func TestAThinProductPacksItsThinSideAndWhatIsNoWholeTileOfTheOther(t *testing.T) {
	const long, k = 500, 90
	for _, isa := range ISAs()[:len(ISAs())-1] {
		kern := kernels(isa)
		for _, thin := range []int{2, 16, 31} {
			for order := range 4 {
				a, b, dst := random(tensor.F32, long, k), random(tensor.F32, k, thin), tensor.New(tensor.F32, long, thin)
				if order&1 != 0 {
					a = a.Reshape(k, long)
				}
				if order&2 != 0 {
					b = b.Reshape(thin, k)
				}
				got := spent(isa, func(be *Backend) { be.Gemm(dst, 1, a, order&1 != 0, b, order&2 != 0, 0) })
				// No more than the thin side in panels, and less than a tile's rows or a register of the long one.
				if most := (thin + kern.NR + kern.MR + kern.Lanes) * k; got.Packed < thin*k || got.Packed > most || got.Tasks != 2 {
					t.Errorf("%s %d order %d: %+v, want %d to %d elements packed, and two tasks", isa, thin, order, got, thin*k, most)
				}
			}
		}
	}
}

func TestAProductOnAMatrixUnitPacksAndMergesNoMoreThanItsBlocksWant(t *testing.T) {
	up := func(n, to int) int { return (n + to - 1) / to }
	for _, isa := range ISAs() {
		u := unitFor(isa)
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
			if !u.multiplies(partsOf(dt), partsOf(dt)) {
				continue
			}
			kc := map[tensor.DType]int{tensor.F32: unitK3, tensor.BF16: unitK}[dt]
			for _, s := range [][3]int{{100, 300, 600}, {40, 700, 90}, {600, 550, 70}} {
				m, n, k := s[0], s[1], s[2]
				a, b, dst := random(dt, m, k), random(dt, k, n), tensor.New(tensor.F32, m, n)
				got := spent(isa, func(be *Backend) { be.Gemm(dst, 1, a, false, b, false, 0) })
				got.Tasks = 0
				rows, cols := up(m, amx.Rows), up(n, amx.Rows)
				fixed, moving := min(rows, cols), max(rows, cols) // the one is packed once, the other once for each block of it
				want := Work{Packed: (fixed + moving*up(fixed, unitPanels)) * amx.Rows * k, Tiles: rows * cols * up(k, kc)}
				if got != want {
					t.Errorf("%s %s %v: %+v, want %+v", isa, dt, s, got, want)
				}
			}
			if u.Row[0][0] == nil {
				continue
			}
			const n, out, in, r = 300, 200, 136, 5
			w := halfKept(out, in)
			x, y := random(dt, n, in), random(dt, n, out)
			b, a, slot := random(tensor.F32, out, r), random(tensor.F32, r, in), tensor.New(dt, out, in)
			ahead := spent(isa, func(be *Backend) { be.KeptForward(y, x, slot, w, b, a, 2, 0) })
			if want := up(out, amx.Rows) * amx.Rows * in; ahead.Merged < out*in || ahead.Merged > want {
				t.Errorf("%s %s forward: merged %d elements, want %d", isa, dt, ahead.Merged, want)
			}
			back := spent(isa, func(be *Backend) { be.KeptInput(x, y, slot, w, b, a, 2, 0) })
			if want := out * up(in, amx.Rows*mergeCols) * amx.Rows * mergeCols; back.Merged < out*in || back.Merged > want {
				t.Errorf("%s %s input: merged %d elements, want %d", isa, dt, back.Merged, want)
			}
		}
	}
}

// halfKept is a random 2:4 weight.
func halfKept(out, in int) *sparse.Weight {
	r, words := rand.New(rand.NewPCG(1, 1)), sparse.Words(in)
	mask := make([]uint64, 0, out*words)
	for i := range out * words {
		mask = append(mask, twoOfFour(r, 1, min(64, in-i%words*64))...)
	}
	w, err := sparse.Pack(random(tensor.BF16, out, in), mask, sparse.Pattern{N: 2, M: 4})
	if err != nil {
		panic(err)
	}
	return w
}

func TestTheWalksOverKeptWeightsMergeOnceAndPackEachPanelOnce(t *testing.T) {
	const n, out, in, r = 300, 200, 136, 5
	w := halfKept(out, in)
	x, y := random(tensor.F32, n, in), random(tensor.F32, n, out)
	b, a := random(tensor.F32, out, r), random(tensor.F32, r, in)
	db, da, slot := tensor.New(tensor.F32, out, r), tensor.New(tensor.F32, r, in), tensor.New(tensor.F32, out, in)
	for _, isa := range ISAs() {
		if isa == "amx" { // masks, and walks below walkBelow only
			continue
		}
		l := kernels(isa).Kept.Lanes
		regs := (n + l - 1) / l // of tokens; 300 end in the middle of one
		wordsOut, wordsIn := (out+63)/64, (in+63)/64
		for _, c := range []struct {
			what string
			f    func(be *Backend)
			want Work
		}{
			{"forward", func(be *Backend) { be.KeptForward(y, x, slot, w, b, a, 2, 0) }, Work{Packed: in * regs * l, Merged: out * in, Words: out * wordsIn * regs}},
			{"input", func(be *Backend) { be.KeptInput(x, y, slot, w, b, a, 2, 0) }, Work{Packed: out * regs * l, Merged: out * in, Words: in * wordsOut * regs}},
		} {
			got := spent(isa, c.f)
			got.Tasks = 0
			if got != c.want {
				t.Errorf("%s %s: %+v, want %+v", isa, c.what, got, c.want)
			}
		}
		got := spent(isa, func(be *Backend) { be.KeptAdapter(da, db, y, x, slot, w, b, a, 2) })
		if got.Merged != 0 {
			t.Errorf("%s adapter: merged %d elements, G needs none", isa, got.Merged)
		}
		// x and dy in panels, whose last may be one kernel's width wider, and A for dB.
		least := (in+out)*n + in*r
		if most := least*11/10 + (in+out+64)*4*l + in*8*l; got.Packed < least || got.Packed > most {
			t.Errorf("%s adapter: packed %d elements, want %d to %d", isa, got.Packed, least, most)
		}
	}
}

func TestAWalkByClassMergesOnceAndPacksEachPanelOnce(t *testing.T) {
	const n, out, in, r = 300, 260, 136, 5
	w := halfKept(out, in)
	dx, dy := random(tensor.BF16, n, in), random(tensor.BF16, n, out)
	b, a, slot := random(tensor.F32, out, r), random(tensor.F32, r, in), tensor.New(tensor.BF16, out, in)
	for _, isa := range pairISAs(t) {
		if isa == "amx" {
			continue
		}
		regs := (n + 31) / 32 * 2 // of tokens, two at a time
		got := spent(isa, func(be *Backend) { be.KeptInput(dx, dy, slot, w, b, a, 2, 0) })
		got.Tasks = 0
		if want := (Work{Packed: out * regs * 16, Merged: out * in, Words: out * sparse.Words(in) * regs}); got != want {
			t.Errorf("%s: %+v, want %+v", isa, got, want)
		}
	}
}

func TestAMergeFormsEachElementOnce(t *testing.T) {
	const out, in, r = 70, 300, 3
	w := halfKept(out, in)
	b, a, dst := random(tensor.F32, out, r), random(tensor.F32, r, in), tensor.New(tensor.F32, out, in)
	for _, isa := range ISAs() {
		got := spent(isa, func(be *Backend) { be.Merge(dst, w, b, a, 2) })
		if want := (Work{Merged: out * in, Tasks: 1}); got != want {
			t.Errorf("%s: %+v, want %+v", isa, got, want)
		}
	}
}

func TestAttentionMultipliesNoBlockOfKeysThatNobodySees(t *testing.T) {
	const blocks = 5
	for _, isa := range ISAs()[:len(ISAs())-1] {
		kern := kernels(isa)
		c := newAttentionCall(tensor.F32, 1, blocks*tileQ, 2, 2, 32, 0)
		clear(c.QDoc.Int32()) // one document
		for i := range c.QPos.Int32() {
			c.QPos.Int32()[i] = int32(i)
		}
		y, lse, dq := tensor.New(tensor.F32, c.Tq, c.Hq*c.D), tensor.New(tensor.F32, c.Hq, c.Tq), tensor.New(tensor.F32, c.Tq, c.Hq*c.D)
		dk, dv := tensor.New(tensor.F32, c.Tk, c.Hkv*c.D), tensor.New(tensor.F32, c.Tk, c.Hkv*c.D)
		got := spent(isa, func(b *Backend) { b.AttentionBackward(dq, dk, dv, c.dy, y, lse, c.q, c.k, c.v, c.Attn) })
		down, across, cols := tileQ/kern.MR, tileQ/kern.NR, (c.D+kern.NR-1)/kern.NR
		half := 0 // tiles of scores on and behind the diagonal
		for j := range down {
			half += across - j*kern.MR/kern.NR
		}
		behind, on := c.Hq*blocks*(blocks-1)/2, c.Hq*blocks // pairs of blocks
		want := Work{
			Tiles:  behind*(2*down*across+3*down*cols) + on*(2*half+3*down*cols),
			Packed: (behind + on) * 2 * (tileQ*c.D + cols*kern.NR*tileQ), // Q and dY, as columns and as rows
		}
		if got.Tasks = 0; got != want {
			t.Errorf("%s: %+v, want %+v", isa, got, want)
		}
	}
}

func ExampleBackend_Work() {
	b := New(Config{ISA: "go", Threads: 1})
	defer b.Close()
	b.Gemm(tensor.New(tensor.F32, 8, 12), 1, tensor.New(tensor.F32, 8, 5), false, tensor.New(tensor.F32, 5, 12), false, 0)
	fmt.Printf("%+v\n", b.Work())
	// Output: {Packed:100 Tiles:6 Merged:0 Words:0 Tasks:2}
}
