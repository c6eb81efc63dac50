package lora

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestInitDependsOnTheSeedAndTheNameOnly(t *testing.T) {
	dev, shapes := device(t), names(4)
	a := New(dev, Config{Rank: 3}, shapes, true)
	a.Init(dev, 7)
	back := slices.Clone(shapes)
	slices.Reverse(back)
	b := New(dev, Config{Rank: 3}, back, false)
	b.Init(dev, 7)
	c := New(dev, Config{Rank: 3}, shapes, false)
	c.Init(dev, 8)
	for i, w := range a.Windows {
		A, B := a.Of(i, a.Params)
		A2, _ := b.Of(b.Find(w.Name), b.Params)
		A3, _ := c.Of(i, c.Params)
		if !slices.Equal(A.Float32(), A2.Float32()) {
			t.Errorf("%s: A depends on the order of the layers", w.Name)
		}
		if slices.Equal(A.Float32(), A3.Float32()) {
			t.Errorf("%s: A does not depend on the seed", w.Name)
		}
		for _, v := range B.Float32() {
			if v != 0 {
				t.Fatalf("%s: B starts at %v", w.Name, v)
			}
		}
	}
	first, _ := a.Of(0, a.Params)
	second, _ := a.Of(1, a.Params)
	if slices.Equal(first.Float32()[:7], second.Float32()[:7]) {
		t.Error("two layers start with the same A")
	}
	d := New(dev, Config{Rank: 3}, []Shape{{"model.layers.0.mlp.x1", 5, 7}, {"model.layers.0.mlp.x2", 5, 7}}, false)
	d.Init(dev, 7)
	first, _ = d.Of(0, d.Params)
	second, _ = d.Of(1, d.Params)
	if slices.Equal(first.Float32(), second.Float32()) {
		t.Error("the end of a name does not count")
	}
}

func TestInitIsUniformWithinOneOverTheRootOfIn(t *testing.T) {
	dev := device(t)
	a := New(dev, Config{Rank: 64}, []Shape{{Name: "l", Out: 1, In: 400}}, false)
	a.Init(dev, 3)
	A, _ := a.Of(0, a.Params)
	var sum, squares, top float64
	for _, v := range A.Float32() {
		sum, squares, top = sum+float64(v), squares+float64(v)*float64(v), max(top, math.Abs(float64(v)))
	}
	n, bound := float64(A.Len()), 1/math.Sqrt(400)
	if sd := math.Sqrt(squares / n); !(math.Abs(sd/(bound/math.Sqrt(3))-1) < 0.02) || !(math.Abs(sum/n) < 0.02*bound) || !(top <= bound && top > 0.999*bound) {
		t.Errorf("mean %.2e, sd %.4f, greatest %.5f; want U(−%.3f, %.3f)", sum/n, sd, top, bound, bound)
	}
}

func TestEveryWindowIsItsOwnPieceOfTheFlatVectors(t *testing.T) {
	dev := device(t)
	a := New(dev, Config{Rank: 2}, names(3), true)
	n := 0
	for i := range a.Windows {
		A, B := a.Of(i, a.Params)
		dA, dB := a.Of(i, a.Grads)
		for _, v := range [][]float32{A.Float32(), B.Float32(), dA.Float32(), dB.Float32()} {
			for k := range v {
				if v[k] != 0 {
					t.Fatalf("window %d overlaps another", i)
				}
				v[k] = 1
			}
		}
		n += A.Len() + B.Len()
	}
	if n != a.Len() || a.Wire().Len() != n+Tail {
		t.Errorf("windows cover %d of %d values; the wire is %d", n, a.Len(), a.Wire().Len())
	}
	a.ZeroGrads(dev)
	if dev.SumSquares(a.Wire()) != 0 || dev.SumSquares(a.Params) == 0 {
		t.Error("ZeroGrads must clear the wire and nothing else")
	}
}

func TestScalarsOfManyRanksAddUpExactlyInAnyOrder(t *testing.T) {
	dev, r := device(t), rand.New(rand.NewPCG(1, 1))
	const ranks = 256
	if MaxRanks < ranks {
		t.Fatalf("exact for %d ranks only", MaxRanks)
	}
	sent := make([]Scalars, ranks)
	rows := make([][]float32, ranks)
	var want Scalars
	var units uint64
	for i := range sent {
		sent[i] = Scalars{Loss: math.Ldexp(r.Float64(), r.IntN(30)), Tokens: r.Int64N(1 << 39), Stop: r.IntN(2)}
		a := New(dev, Config{Rank: 1}, names(1), true)
		a.PutScalars(dev, sent[i])
		rows[i] = slices.Clone(a.tail().Float32())
		want.Tokens, want.Stop = want.Tokens+sent[i].Tokens, want.Stop+sent[i].Stop
		units += uint64(math.Round(sent[i].Loss * (1 << 24)))
	}
	want.Loss = float64(units) / (1 << 24)
	for range 3 {
		a := New(dev, Config{Rank: 1}, names(1), true)
		for _, i := range r.Perm(ranks) {
			for j, v := range rows[i] {
				a.tail().Float32()[j] += v
			}
		}
		if got := a.Scalars(dev); got != want {
			t.Errorf("the sum of %d ranks is %+v, want %+v", ranks, got, want)
		}
	}
}

func TestALossThatIsNotFiniteArrivesAsNaNOnEveryRank(t *testing.T) {
	dev := device(t)
	for _, bad := range []float64{math.NaN(), math.Inf(1), -1, 1 << 40} {
		a := New(dev, Config{Rank: 1}, names(1), true)
		a.PutScalars(dev, Scalars{Loss: bad, Tokens: 5})
		for j := range a.tail().Float32() {
			a.tail().Float32()[j] += 3 // another rank's
		}
		if got := a.Scalars(dev); got.Loss == got.Loss || got.Tokens < 5 {
			t.Errorf("loss %v arrives as %+v", bad, got)
		}
	}
}

func TestTheFirstNonFiniteGradientIsNamedInBackwardOrder(t *testing.T) {
	dev := device(t)
	a := New(dev, Config{Rank: 2}, names(3), true)
	if got := a.FirstNonFinite(dev, a.Grads); got != "" {
		t.Errorf("finite gradients give %q", got)
	}
	for _, i := range []int{0, 1} {
		A, _ := a.Of(i, a.Grads)
		A.Float32()[3] = float32(math.Inf(-1))
	}
	if got, want := a.FirstNonFinite(dev, a.Grads), a.Windows[1].Name+".lora_A"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	linears := []string{"q_proj", "v_proj"}
	for want, c := range map[string]Config{
		"":                       {Targets: []string{"q_proj"}},
		"rank: -1":               {Rank: -1},
		"alpha: -2":              {Alpha: -2},
		"alpha: NaN":             {Alpha: math.NaN()},
		"dropout: 1;":            {Method: LoRA, Dropout: 1},
		"dropout: 0.1 with":      {Dropout: 0.1},
		`targets: no linear "x"`: {Targets: []string{"x"}},
		"method: unknown":        {Method: 9},
	} {
		err := c.Validate(linears)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	for s, c := range map[float64]Config{2: {}, 0.5: {Rank: 8, Alpha: 4}, 3: {Rank: 4, Alpha: 6, RSLoRA: true}} {
		if got := c.Scale(); got != s {
			t.Errorf("%+v: s = %v, want %v", c, got, s)
		}
	}
	for _, m := range []Method{SPLoRA, LoRA} {
		if got, err := ParseMethod(fmt.Sprint(m)); got != m || err != nil {
			t.Errorf("%s parses as %v, %v", m, got, err)
		}
	}
	if _, err := ParseMethod("qlora"); err == nil {
		t.Error("an unknown method parses")
	}
}
