package computetest

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

var elementwiseCases = []oneCase{
	{"Add and AddBias add", func(e *env) {
		for _, s := range [][2]int{{1, 1}, {3, 37}, {70, 700}} {
			m, n := s[0], s[1]
			x, y, bias := e.acts(m*n), e.acts(m*n), e.normal(n)
			sum, biased := make([]float32, m*n), make([]float32, m*n)
			for i := range x {
				sum[i], biased[i] = y[i]+x[i], y[i]+bias[i%n]
			}
			t := e.act(y, m, n)
			e.b.Add(t, e.act(x, m, n))
			e.exactly("add", t, sum)
			t = e.act(y, m, n)
			e.b.AddBias(t, e.f32(bias, 1, n))
			e.exactly("addbias", t, biased)
		}
	}},
	{"Gate is silu(g)·u over the whole range", func(e *env) {
		g := e.fit(everyFloat(3001))
		h := e.unset(1, len(g))
		e.b.Gate(h, e.act(g, 1, len(g)), e.act(fill(len(g), 1), 1, len(g)), compute.SiLU)
		for i, got := range e.down("silu", h) {
			e.close("silu", g[i], got, silu(float64(g[i])))
		}
	}},
	{"Gate works in place", func(e *env) {
		g, u := e.acts(1003), e.acts(1003)
		want := make([]float64, len(g))
		for i := range g {
			want[i] = silu(float64(g[i])) * float64(u[i])
		}
		for k, name := range []string{"h", "g", "u"} {
			t := []tensor.Tensor{e.unset(17, 59), e.act(g, 17, 59), e.act(u, 17, 59)}
			e.b.Gate(t[k], t[1], t[2], compute.SiLU)
			e.near("gate into "+name, t[k], want, rounding)
		}
	}},
	{"GateBackward is the gradient of Gate", func(e *env) {
		n := 77
		g, u, dh := e.normal(n), e.acts(n), e.acts(n)
		for i := range g {
			g[i] *= 3
		}
		e.fit(g)
		g64, u64 := wide(g), wide(u)
		f := func() (s float64) {
			for i, d := range dh {
				s += float64(d) * silu(g64[i]) * u64[i]
			}
			return s
		}
		wantG, wantU := differences(g64, f), differences(u64, f)
		for _, where := range []string{"", "dg=g du=u", "du=dh"} {
			tg, tu, tdh := e.act(g, 1, n), e.act(u, 1, n), e.act(dh, 1, n)
			dg, du := e.unset(1, n), e.unset(1, n)
			switch where {
			case "dg=g du=u":
				dg, du = tg, tu
			case "du=dh":
				du = tdh
			}
			e.b.GateBackward(dg, du, tdh, tg, tu, compute.SiLU)
			e.near("dg "+where, dg, wantG, rounding)
			e.near("du "+where, du, wantU, rounding)
		}
	}},
	{"GateBackward holds over the whole range", func(e *env) {
		g := e.fit(everyFloat(3001))
		one := e.act(fill(len(g), 1), 1, len(g))
		dg, du := e.unset(1, len(g)), e.unset(1, len(g))
		e.b.GateBackward(dg, du, one, e.act(g, 1, len(g)), one, compute.SiLU)
		gotG, gotU := e.down("dg", dg), e.down("du", du)
		for i, x := range g {
			x64 := float64(x)
			s := 1 / (1 + math.Exp(-x64))
			switch {
			case !finite(x):
				if bad := !finite(gotG[i]) && !finite(gotU[i]); !bad && x != x {
					e.Fatalf("NaN becomes %v and %v", gotG[i], gotU[i])
				}
				continue
			case math.Abs(x64) > 1: // beside its zero at −1.28 the derivative is a difference
				if want := s * (1 + x64*(1-s)); !(math.Abs(float64(gotG[i])-want) <= 4e-7+e.unit()*math.Abs(want)) {
					e.Fatalf("silu'(%v) = %v, want %v", x, gotG[i], want)
				}
			}
			e.close("du", x, gotU[i], silu(x64))
		}
	}},
}

// everyFloat is n numbers from the whole range, −Inf to +Inf, dense where exp lives, and NaN.
func everyFloat(n int) []float32 {
	v := []float32{float32(math.Inf(-1)), float32(math.Inf(1)), float32(math.NaN()), 0, float32(math.Copysign(0, -1)),
		-87.33655, -87.5, -88.02969, -88.72284, -88.8, -89, -100, -103.9, -104, 88.72283, 88.8, 89, 104, 1e-30, -1e-30, 3e38, -3e38}
	for i := range n {
		v = append(v, float32(i-n/2)*200/float32(n)+0.0137)
	}
	return v
}

// unit is half a unit in the last place of a BF16 number, relative at most; 0 in float32.
func (e *env) unit() float64 {
	if e.dt == tensor.BF16 {
		return 0x1p-8
	}
	return 0
}

// close checks one element: 8 units in the last place, or what is lost below 2⁻¹²⁶.
func (e *env) close(what string, x, got float32, want float64) {
	e.Helper()
	if want != want {
		if got == got {
			e.Fatalf("%s(%v) = %v, want NaN", what, x, got)
		}
		return
	}
	if g := float64(got); g != want && !(math.Abs(g-want) <= (8*0x1p-24+e.unit())*math.Abs(want)+0x1p-118) {
		e.Fatalf("%s(%v) = %v, want %v", what, x, got, want)
	}
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }

var normCases = []oneCase{
	{"RMSNorm is x·rstd·w", func(e *env) {
		const eps = 1e-3
		for _, s := range [][2]int{{1, 1}, {3, 37}, {5, 256}, {70, 700}} {
			n, c := s[0], s[1]
			x, w := e.acts(n*c), e.normal(c)
			y, rstd := e.unset(n, c), e.nans(1, n)
			wantY, wantR := norm64(wide(x), wide(w), eps)
			e.b.RMSNorm(y, rstd, e.act(x, n, c), e.f32(w, 1, c), eps)
			e.near(fmt.Sprint("y ", s), y, wantY, rounding)
			e.near(fmt.Sprint("rstd ", s), rstd, wantR, rounding)
		}
	}},
	{"RMSNorm keeps NaN in its row", func(e *env) {
		x := e.normal(3 * 50)
		x[77] = float32(math.NaN())
		y := e.unset(3, 50)
		e.b.RMSNorm(y, e.nans(1, 3), e.act(x, 3, 50), e.f32(fill(50, 1), 1, 50), 1e-5)
		for i, g := range e.down("y", y) {
			if (i/50 == 1) == finite(g) {
				e.Fatalf("row %d has %v", i/50, g)
			}
		}
	}},
	{"RMSNormBackward is the gradient of RMSNorm", func(e *env) {
		const eps = 1e-3
		for _, s := range [][2]int{{2, 5}, {3, 37}, {2, 131}} {
			n, c := s[0], s[1]
			x, w, dy, old := e.acts(n*c), e.normal(c), e.acts(n*c), e.acts(n*c)
			x64 := wide(x)
			want := differences(x64, func() float64 {
				y, _ := norm64(x64, wide(w), eps)
				return inner(y, wide(dy))
			})
			tx, tw, rstd := e.act(x, n, c), e.f32(w, 1, c), e.nans(1, n)
			e.b.RMSNorm(e.unset(n, c), rstd, tx, tw, eps)
			dx := e.unset(n, c)
			e.b.RMSNormBackward(dx, e.act(dy, n, c), tx, tw, rstd, 0)
			e.near("dx", dx, want, rounding)
			dx = e.act(old, n, c)
			for i := range want {
				want[i] += float64(old[i])
			}
			e.b.RMSNormBackward(dx, e.act(dy, n, c), tx, tw, rstd, 1)
			e.near("dx +=", dx, want, rounding)
		}
	}},
	{"Rope rotates halves, and back", func(e *env) {
		for _, s := range [][3]int{{5, 3, 6}, {9, 2, 32}, {4, 4, 128}} {
			n, heads, half := s[0], s[1], s[2]/2
			x, pos := e.acts(n*heads*2*half), make([]int32, n)
			cos, sin := make([]float32, 20*half), make([]float32, 20*half)
			for i := range cos {
				angle := float64(i/half) * math.Pow(1000, -float64(i%half)/float64(half))
				cos[i], sin[i] = float32(math.Cos(angle)), float32(math.Sin(angle))
			}
			want := wide(x)
			for i := range pos {
				pos[i] = int32(e.rng.IntN(20))
				for h := range heads {
					rope64(want[(i*heads+h)*2*half:(i*heads+h+1)*2*half], cos[int(pos[i])*half:], sin[int(pos[i])*half:])
				}
			}
			t, tc, ts, tp := e.act(x, n, heads*2*half), e.f32(cos, 20, half), e.f32(sin, 20, half), e.i32(pos)
			e.b.Rope(t, tc, ts, tp, heads, 1)
			e.near("rope", t, want, rounding)
			e.b.Rope(t, tc, ts, tp, heads, -1)
			e.near("back", t, wide(x), max(rounding, 2*e.unit())) // rounded twice
		}
	}},
}

func rope64(x []float64, cos, sin []float32) {
	half := len(x) / 2
	for j := range half {
		a, b, c, s := x[j], x[j+half], float64(cos[j]), float64(sin[j])
		x[j], x[j+half] = a*c-b*s, a*s+b*c
	}
}

func norm64(x, w []float64, eps float64) (y, rstd []float64) {
	c := len(w)
	y, rstd = make([]float64, len(x)), make([]float64, len(x)/c)
	for i := range rstd {
		row := x[i*c : (i+1)*c]
		rstd[i] = 1 / math.Sqrt(inner(row, row)/float64(c)+eps)
		for j, v := range row {
			y[i*c+j] = v * rstd[i] * w[j]
		}
	}
	return y, rstd
}
