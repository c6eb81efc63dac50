package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// gemmOn is a·b by an instruction set, a [m,k], b [k,n].
func gemmOn(isa string, a, b tensor.Tensor, dt tensor.DType) []float32 {
	be := New(Config{ISA: isa, Threads: 2})
	defer be.Close()
	dst := tensor.New(dt, a.Rows, b.Cols)
	be.Gemm(dst, 1, a, false, b, false, 0)
	out := make([]float32, dst.Len())
	widen(out, dst, 0)
	return out
}

// exact is a·b in float64, and Σ|a|·|b|, by which errors are measured.
func exact(a, b tensor.Tensor) (c, size []float64) {
	m, k, n := a.Rows, a.Cols, b.Cols
	av, bv := make([]float32, m*k), make([]float32, k*n)
	widen(av, a, 0)
	widen(bv, b, 0)
	c, size = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for p := range k {
			x := float64(av[i*k+p])
			for j, y := range bv[p*n : (p+1)*n] {
				v := x * float64(y)
				c[i*n+j] += v
				size[i*n+j] += math.Abs(v)
			}
		}
	}
	return c, size
}

// worst and mean error of got, relative to size.
func errors(got []float32, want, size []float64) (worst, mean float64) {
	for i, g := range got {
		e := math.Abs(float64(g)-want[i]) / size[i]
		if !(e <= worst) {
			worst = e
		}
		mean += e / float64(len(got))
	}
	return worst, mean
}

func tilesOrSkip(t *testing.T) {
	t.Helper()
	if !slices.Contains(ISAs(), "amx") {
		t.Skip("no tiles here")
	}
}

func TestThreePartsAreAsAccurateAsMultiplyAdds(t *testing.T) {
	tilesOrSkip(t)
	r := rand.New(rand.NewPCG(1, 6))
	for _, c := range []struct {
		what    string
		m, n, k int
		scale   func() float64 // of each row of a and column of b
		spread  func() float64 // of each element
	}{
		{"normal", 70, 90, 600, func() float64 { return 1 }, func() float64 { return 1 }},
		{"long sums", 40, 40, 5000, func() float64 { return 1 }, func() float64 { return 1 }},
		{"rows from 1e-9 to 1e9", 70, 90, 300, func() float64 { return math.Pow(10, r.Float64()*18-9) }, func() float64 { return 1 }},
		{"elements from 2^-20 to 2^20", 70, 90, 300, func() float64 { return 1 }, func() float64 { return math.Exp2(float64(r.IntN(41) - 20)) }},
	} {
		a, b := tensor.New(tensor.F32, c.m, c.k), tensor.New(tensor.F32, c.k, c.n)
		for i := range c.m {
			s := c.scale()
			for p := range c.k {
				a.Float32()[i*c.k+p] = float32(r.NormFloat64() * s * c.spread())
			}
		}
		for j := range c.n {
			s := c.scale()
			for p := range c.k {
				b.Float32()[p*c.n+j] = float32(r.NormFloat64() * s * c.spread())
			}
		}
		want, size := exact(a, b)
		tiles, tilesMean := errors(gemmOn("amx", a, b, tensor.F32), want, size)
		adds, addsMean := errors(gemmOn("avx512", a, b, tensor.F32), want, size)
		t.Logf("%s: worst %.2g, mean %.2g; multiply-adds %.2g, %.2g", c.what, tiles, tilesMean, adds, addsMean)
		if !(tiles <= 2*adds) || !(tilesMean <= 2*addsMean) {
			t.Errorf("%s: errors %.3g and %.3g in the mean, of multiply-adds %.3g and %.3g", c.what, tiles, tilesMean, adds, addsMean)
		}
	}
}

// Rows of 1e-20 … 1e20 meet columns of the opposite scale, so that no product is beyond float32's range: parts of numbers below 2⁻¹⁰⁸ are
// subnormal and lost, those of 1e-20 are not.
func TestThreePartsKeepTheirDigitsOverTheRangeOfFloat32(t *testing.T) {
	tilesOrSkip(t)
	r := rand.New(rand.NewPCG(2, 6))
	const n, k = 41, 200
	for _, c := range []struct{ e, tol float64 }{{-20, 2e-7}, {-28, 2e-7}, {20, 2e-7}, {30, 2e-7}, {-35, 1e-2}} {
		a, b := tensor.New(tensor.F32, n, k), tensor.New(tensor.F32, k, n)
		for i := range a.Float32() {
			a.Float32()[i] = float32(r.NormFloat64() * math.Pow(10, c.e))
			b.Float32()[i] = float32(r.NormFloat64() * math.Pow(10, -c.e))
		}
		want, size := exact(a, b)
		if worst, _ := errors(gemmOn("amx", a, b, tensor.F32), want, size); !(worst <= c.tol) {
			t.Errorf("1e%v: error %.3g", c.e, worst)
		}
	}
}

func TestTheLargestNumbersStayFiniteInThreeParts(t *testing.T) {
	tilesOrSkip(t)
	const n, k = 40, 64
	a, b := tensor.New(tensor.F32, n, k), tensor.New(tensor.F32, k, n)
	for i := range n {
		a.Float32()[i*k+i] = math.MaxFloat32
		b.Float32()[i*n+i] = 0.5
	}
	for i, g := range gemmOn("amx", a, b, tensor.F32) {
		if want := float32(0); i/n == i%n {
			if want = math.MaxFloat32 / 2; math.Abs(float64(g/want)-1) > 1e-7 {
				t.Fatalf("element %d is %v, want %v", i, g, want)
			}
		} else if g != want {
			t.Fatalf("element %d is %v, want 0", i, g)
		}
	}
}

// Sums of bfloat16 products differ between units by the order of their terms alone.
func TestUnitsForBfloat16AgreeWithWidenedProducts(t *testing.T) {
	have := ISAs()
	for _, s := range [][3]int{{37, 70, 530}, {100, 40, 64}, {4, 33, 1100}, {65, 600, 31}} {
		a, b := random(tensor.BF16, s[0], s[2]), random(tensor.BF16, s[2], s[1])
		want, size := exact(a, b)
		for _, isa := range have {
			got := gemmOn(isa, a, b, tensor.F32)
			if worst, _ := errors(got, want, size); !(worst <= 2e-7) {
				t.Errorf("%s %v: error %.3g", isa, s, worst)
			}
			for i, g := range gemmOn(isa, a, b, tensor.BF16) {
				if w := fromBF16(toBF16(got[i])); g != w {
					t.Fatalf("%s %v: element %d is rounded to %v, want %v", isa, s, i, g, w)
				}
			}
		}
	}
}

// composed is y, dx, dA and dB of one masked linear: on tiles, or through the slot with plain vectors.
func composed(isa string, fused bool, dt tensor.DType, w *sparse.Weight, x, dy, bm, am tensor.Tensor) [4][]float32 {
	be := New(Config{ISA: isa, Threads: 2})
	defer be.Close()
	y, dx, slot := tensor.New(dt, x.Rows, w.Out), tensor.New(dt, x.Rows, w.In), tensor.New(dt, w.Out, w.In)
	da, db := tensor.New(tensor.F32, am.Rows, w.In), tensor.New(tensor.F32, w.Out, am.Rows)
	if fused {
		be.KeptForward(y, x, slot, w, bm, am, 0.75, 0)
		be.KeptInput(dx, dy, slot, w, bm, am, 0.75, 0)
		be.KeptAdapter(da, db, dy, x, slot, w, bm, am, 0.75)
	} else {
		be.Merge(slot, w, bm, am, 0.75)
		be.Gemm(y, 1, x, false, slot, true, 0)
		be.Gemm(dx, 1, dy, false, slot, false, 0)
		be.Gemm(slot, 1, dy, true, x, false, 0)
		be.Mask(slot, w)
		ah, bh := am, bm
		if dt == tensor.BF16 {
			ah, bh = tensor.New(dt, am.Rows, am.Cols), tensor.New(dt, bm.Rows, bm.Cols)
			be.Copy(ah, am)
			be.Copy(bh, bm)
		}
		be.Gemm(da, 0.75, bh, true, slot, false, 1)
		be.Gemm(db, 0.75, slot, false, ah, true, 1)
	}
	var out [4][]float32
	for i, t := range []tensor.Tensor{y, dx, da, db} {
		out[i] = make([]float32, t.Len())
		widen(out[i], t, 0)
	}
	return out
}

func TestTheMaskedLinearOnTilesIsItsComposedTwin(t *testing.T) {
	tilesOrSkip(t)
	for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
		for _, s := range [][4]int{{70, 200, 300, 16}, {530, 600, 90, 5}, {40, 80, 1100, 40}, {100, 1040, 64, 64}} {
			n, out, in, r := s[0], s[1], s[2], s[3]
			in -= in % 4
			w := halfKept(out, in)
			x, dy := random(dt, n, in), random(dt, n, out)
			am, bm := random(tensor.F32, r, in), random(tensor.F32, out, r)
			got, want := composed("amx", true, dt, w, x, dy, bm, am), composed("avx512", false, dt, w, x, dy, bm, am)
			tol := map[tensor.DType]float64{tensor.F32: 1e-6, tensor.BF16: 3e-3}[dt]
			for i, name := range []string{"y", "dx", "dA", "dB"} {
				if d := norm(got[i], want[i]); !(d <= tol) {
					t.Errorf("%s %v %s: relative difference %.3g", dt, s, name, d)
				}
			}
		}
	}
}

// norm is ‖a − b‖ / ‖b‖.
func norm(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

func TestAVectorOfBfloat16GoesByDotProducts(t *testing.T) {
	for _, isa := range ISAs() {
		for m := 1; m <= 4; m++ {
			a, b := random(tensor.BF16, m, 300), random(tensor.BF16, 70, 300)
			be := New(Config{ISA: isa, Threads: 2})
			for _, dt := range []tensor.DType{tensor.F32, tensor.BF16} {
				dst := random(dt, m, 70)
				want := make([]float32, dst.Len())
				widen(want, dst, 0)
				for i := range want {
					var s float64
					for k := range 300 {
						s += float64(fromBF16(a.Uint16()[i/70*300+k])) * float64(fromBF16(b.Uint16()[i%70*300+k]))
					}
					want[i] = float32(0.5*s + 2*float64(want[i]))
				}
				got := make([]float32, dst.Len())
				be.Gemm(dst, 0.5, a, false, b, true, 2)
				widen(got, dst, 0)
				if d := norm(got, want); !(d <= map[tensor.DType]float64{tensor.F32: 1e-6, tensor.BF16: 3e-3}[dt]) {
					t.Error(fmt.Sprintf("%s %d rows %s", isa, m, dt), d)
				}
			}
			be.Close()
		}
	}
}

// random is a matrix of numbers between −½ and ½.
func random(dt tensor.DType, rows, cols int) tensor.Tensor {
	t := tensor.New(dt, rows, cols)
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = rand.Float32() - 0.5
	}
	narrow(t, 0, v)
	return t
}
