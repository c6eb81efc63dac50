package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// each runs a test with the kernels of every instruction set of this machine.
func each(t *testing.T, f func(t *testing.T, k *Kernels, r *rand.Rand)) {
	for _, name := range Names() {
		if k := For(name); k != nil {
			t.Run(name, func(t *testing.T) { f(t, k, rand.New(rand.NewPCG(2, 7))) })
		}
	}
}

func normals(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// tileOf is c [rows,cols] = α·Σ_k a[k,:]ᵀ·b[k,:] + β·c in float64; rows of a, b and c are lda, ldb and ldc apart.
func tileOf(rows, cols, kc int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, alpha, beta float32) []float64 {
	want := make([]float64, len(c))
	for i, v := range c {
		want[i] = float64(v)
	}
	for i := range rows {
		for j := range cols {
			var s float64
			for k := range kc {
				s += float64(a[k*lda+i]) * float64(b[k*ldb+j])
			}
			old := want[i*ldc+j]
			if want[i*ldc+j] = float64(alpha) * s; beta != 0 {
				want[i*ldc+j] += float64(beta) * old
			}
		}
	}
	return want
}

// near fails unless sums of some dozens of products agree; NaN in want is memory that must stay as it is.
func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	for i, w := range want {
		if g := float64(got[i]); !(math.Abs(g-w) <= 2e-5) && !(math.IsNaN(g) && math.IsNaN(w)) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, g, w)
		}
	}
}

func TestEveryTileIsItsFormulaWhereverItsOperandsStand(t *testing.T) {
	each(t, func(t *testing.T, k *Kernels, r *rand.Rand) {
		for n := range 3 * 2 * 3 * 2 {
			ri, ci, kc, beta := n%3, n/3%2, []int{1, 7, 64}[n/6%3], []float32{0, -0.5}[n/18]
			rows, cols := k.RowStep*(ri+1), k.Lanes*(ci+1)
			lda, ldb, ldc := k.MR+3, k.NR+5, cols+2
			a, b, c := normals(r, kc*k.MR), normals(r, kc*k.NR), normals(r, rows*ldc)
			for i := range c {
				if i%ldc >= cols || beta == 0 {
					c[i] = float32(math.NaN())
				}
			}
			wideA, wideB, turned := make([]float32, kc*lda), make([]float32, kc*ldb), make([]float32, k.MR*(kc+2))
			for p := range kc {
				copy(wideA[p*lda:], a[p*k.MR:(p+1)*k.MR])
				copy(wideB[p*ldb:], b[p*k.NR:(p+1)*k.NR])
				for i := range k.MR {
					turned[i*(kc+2)+p] = a[p*k.MR+i]
				}
			}
			want := tileOf(rows, cols, kc, a, k.MR, b, k.NR, c, ldc, 1.5, beta)
			tile, byRows, byColumns := append([]float32{}, c...), append([]float32{}, c...), append([]float32{}, c...)
			k.Tile[ri][ci](kc, &a[0], &b[0], &tile[0], ldc, 1.5, beta)
			k.Rows[ri][ci](kc, &turned[0], kc+2, &b[0], &byRows[0], ldc, 1.5, beta)
			k.Columns[ri][ci](kc, &wideA[0], lda, &wideB[0], ldb, &byColumns[0], ldc, 1.5, beta)
			what := fmt.Sprintf("%d×%d, k %d, β %v", rows, cols, kc, beta)
			near(t, what, tile, want)
			for i := range tile {
				x := math.Float32bits(tile[i])
				if math.Float32bits(byRows[i]) != x || math.Float32bits(byColumns[i]) != x {
					t.Fatalf("%s: element %d is %v, by rows %v and by columns %v", what, i, tile[i], byRows[i], byColumns[i])
				}
			}
		}
		k.Peak(4)
	})
}

// lengths runs a test with the numbers of elements around registers and steps, and operands with one element more.
func lengths(t *testing.T, f func(t *testing.T, k *Kernels, n int, x, y []float32)) {
	each(t, func(t *testing.T, k *Kernels, r *rand.Rand) {
		for n := range 5*k.Lanes + 4 {
			t.Run(fmt.Sprint(n), func(t *testing.T) { f(t, k, n, normals(r, n+1), normals(r, n+1)) })
		}
	})
}

func TestALoopOfAnyLengthDoesItsElementsAndNoOthers(t *testing.T) {
	lengths(t, func(t *testing.T, k *Kernels, n int, x, y []float32) {
		want, dot, most := []float64{}, 0.0, math.Inf(-1)
		for i := range n {
			want = append(want, float64(y[i])+3*float64(x[i]))
			dot += float64(x[i]) * float64(y[i])
			most = max(most, float64(x[i]))
		}
		near(t, "dot", []float32{k.Dot[F32](n, &x[0], unsafe.Pointer(&y[0]))}, []float64{dot})
		near(t, "max", []float32{max(k.Max(n, &x[0]), -math.MaxFloat32)}, []float64{max(most, -math.MaxFloat32)})
		want = append(want, float64(y[n]))
		k.Axpy(n, &y[0], &x[0], 3)
		near(t, "axpy", y, want)
	})
}

func TestALoopOver16BitsOfAnyLengthDoesItsElementsAndNoOthers(t *testing.T) {
	lengths(t, func(t *testing.T, k *Kernels, n int, x, y []float32) {
		if k.Lanes == 8 {
			n = n / 8 * 8
		}
		for f, bits := range map[Format]func(float32) (uint16, float32){
			BF16: func(x float32) (uint16, float32) {
				h := uint16(math.Float32bits(x) >> 16)
				return h, math.Float32frombits(uint32(h) << 16)
			},
			F16: func(x float32) (uint16, float32) { // ¼ ≤ h < ½
				m := uint16(math.Float32bits(x) & 0x3ff)
				return 0x3400 | m, 0.25 + float32(m)/4096
			},
		} {
			half, want, dot := make([]uint16, n+1), make([]float64, n), 0.0
			for i := range n {
				h, v := bits(x[i])
				half[i], want[i] = h, float64(v)
				dot += float64(v) * float64(y[i])
			}
			wide := append([]float32{}, y...)
			k.Widen[f](n, &wide[0], unsafe.Pointer(&half[0]))
			near(t, "widen", wide, append(want, float64(y[n])))
			near(t, "dot", []float32{k.Dot[f](n, &y[0], unsafe.Pointer(&half[0]))}, []float64{dot})
			if f == F16 {
				continue
			}
			back := make([]uint16, n+1)
			k.NarrowBF16(n, unsafe.Pointer(&back[0]), &wide[0])
			if !slices.Equal(back, half) {
				t.Fatalf("%#x, widened and narrowed, is %#x", half, back)
			}
		}
	})
}
