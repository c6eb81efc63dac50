package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

var lossCases = []oneCase{
	{"CrossEntropy is −log softmax at the target, and its gradient", func(e *env) {
		for _, s := range [][2]int{{1, 2}, {3, 37}, {40, 1031}} {
			for _, size := range []float32{1, 30} {
				n, v := s[0], s[1]
				x, target := e.normal(n*v), make([]int32, n)
				for i := range x {
					x[i] *= size
				}
				e.fit(x)
				for i := range target {
					target[i] = int32(e.rng.IntN(v))
				}
				wantL, wantG := loss64(wide(x), target, v)
				loss, logits := e.nans(1, n), e.act(x, n, v)
				e.b.CrossEntropy(loss, logits, e.i32(target), true)
				what := fmt.Sprint(s, size)
				e.near(what+" loss", loss, wantL, rounding)
				e.near(what+" gradient", logits, wantG, rounding)
				loss = e.nans(1, n)
				e.b.CrossEntropy(loss, e.act(x, n, v), e.i32(target), false)
				e.near(what+" loss alone", loss, wantL, rounding)
			}
		}
	}},
	{"CrossEntropy's gradient agrees with differences", func(e *env) {
		x, target := wide(e.normal(3*9)), []int32{0, 8, 4}
		_, want := loss64(x, target, 9)
		got := differences(x, func() float64 {
			l, _ := loss64(x, target, 9)
			return l[0] + l[1] + l[2]
		})
		for i := range got {
			if !(math.Abs(got[i]-want[i]) <= 1e-8) {
				e.Errorf("element %d: %v and %v", i, got[i], want[i])
			}
		}
		e.record = append(e.record, result{what: "none"})
	}},
	{"CrossEntropy does not overflow, and keeps what is not finite", func(e *env) {
		const v = 300
		x := fill(4*v, -2e4)
		x[0], x[5] = 2e4, 2e4
		x[v+7], x[2*v+9] = float32(math.NaN()), float32(math.Inf(1))
		x[3*v+3] = float32(math.Inf(-1))
		loss, logits := e.nans(1, 4), e.act(x, 4, v)
		e.b.CrossEntropy(loss, logits, e.i32([]int32{0, 1, 2, 4}), true)
		l, g := e.down("loss", loss), e.down("gradient", logits)
		if !(math.Abs(float64(l[0])-math.Ln2) <= 1e-6) || finite(l[1]) || finite(l[2]) || !(math.Abs(float64(l[3])-math.Log(v-1)) <= 1e-5) {
			e.Errorf("losses %v", l)
		}
		if finite(g[v]) || finite(g[2*v+9]) || !finite(g[3*v]) || !(math.Abs(float64(g[0])+0.5) <= 1e-6) {
			e.Errorf("gradients %v %v %v %v", g[0], g[v], g[2*v+9], g[3*v])
		}
	}},
}

func loss64(x []float64, target []int32, v int) (loss, grad []float64) {
	loss, grad = make([]float64, len(target)), make([]float64, len(x))
	for i, k := range target {
		row, g := x[i*v:(i+1)*v], grad[i*v:(i+1)*v]
		most, sum := math.Inf(-1), 0.0
		for _, z := range row {
			most = math.Max(most, z)
		}
		for j, z := range row {
			g[j] = math.Exp(z - most)
			sum += g[j]
		}
		for j := range g {
			g[j] /= sum
		}
		g[k]--
		loss[i] = most - row[k] + math.Log(sum)
	}
	return loss, grad
}

var updateCases = []oneCase{
	{"AdamW is PyTorch's", func(e *env) {
		n := 20_011
		p, m, v := e.normal(n), make([]float32, n), make([]float32, n)
		tp, tm, tv := e.f32(p, 1, n), e.f32(m, 1, n), e.f32(v, 1, n)
		p64, m64, v64 := wide(p), wide(m), wide(v)
		for step := 1; step <= 4; step++ {
			g := e.normal(n)
			o := compute.AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.99, Eps: 1e-6, WeightDecay: 0.1, Scale: 0.25}
			b1, b2 := float64(o.Beta1), float64(o.Beta2)
			o.Bias1, o.Bias2 = float32(1-math.Pow(b1, float64(step))), float32(1-math.Pow(b2, float64(step)))
			for i := range g {
				x := float64(o.Scale) * float64(g[i])
				m64[i] = b1*m64[i] + (1-b1)*x
				v64[i] = b2*v64[i] + (1-b2)*x*x
				p64[i] *= 1 - float64(o.LR)*float64(o.WeightDecay)
				p64[i] -= float64(o.LR) * (m64[i] / float64(o.Bias1)) / (math.Sqrt(v64[i]/float64(o.Bias2)) + float64(o.Eps))
			}
			e.b.AdamW(tp, e.f32(g, 1, n), tm, tv, o)
			e.near(fmt.Sprint("p ", step), tp, p64, rounding)
			e.near(fmt.Sprint("m ", step), tm, m64, rounding)
			e.near(fmt.Sprint("v ", step), tv, v64, 2*rounding)
		}
	}},
	{"SumSquares sums in float64", func(e *env) {
		for _, n := range []int{1, 1000, 100_003} {
			x := e.normal(n)
			got := e.b.SumSquares(e.f32(x, 1, n))
			if want := inner(wide(x), wide(x)); !(math.Abs(got-want) <= 1e-12*want) {
				e.Errorf("%d: %v, want %v", n, got, want)
			}
			e.record = append(e.record, result{"sum", bytesOf([]float64{got})})
			x[n/2] = float32(math.NaN())
			if s := e.b.SumSquares(e.f32(x, 1, n)); s == s {
				e.Errorf("%d: NaN is lost", n)
			}
		}
		if s := e.b.SumSquares(tensor.Tensor{DType: tensor.F32, Rows: 1}); s != 0 {
			e.Errorf("of nothing: %v", s)
		}
	}},
}
