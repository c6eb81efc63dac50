package optim

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/tensor"
)

// golden is what testdata/generate.py wrote.
type golden struct {
	AdamW []struct {
		LR, Eps, Clip, Tokens float64
		WeightDecay           float64 `json:"weight_decay"`
		Betas                 [2]float64
		Start, End, M, V      []float64
		Gradients             [][]float64
		Norms                 []float64
	}
	Schedules []struct {
		Kind          Kind
		LR            float64
		MinLR         float64 `json:"min_lr"`
		Warmup, Total int
		Rates         []float64
	}
}

func load(t *testing.T) (g golden) {
	t.Helper()
	raw, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(raw, &g)
	}
	if err != nil || len(g.AdamW) == 0 || len(g.Schedules) == 0 {
		t.Fatal("no golden values: ", err)
	}
	return g
}

func vector(v []float64) tensor.Tensor {
	x := make([]float32, len(v))
	for i := range v {
		x[i] = float32(v[i])
	}
	return tensor.Of(x)
}

func distance(a tensor.Tensor, b []float64) float64 {
	var d, n float64
	for i, v := range a.Float32() {
		d, n = d+(float64(v)-b[i])*(float64(v)-b[i]), n+b[i]*b[i]
	}
	return math.Sqrt(d / n)
}

func TestTwentyStepsOfAdamWWithClippingAgreeWithPyTorch(t *testing.T) {
	be := cpu.New(cpu.Config{Threads: 2})
	defer be.Close()
	for _, c := range load(t).AdamW {
		o := AdamW{Beta1: c.Betas[0], Beta2: c.Betas[1], Eps: c.Eps, WeightDecay: c.WeightDecay}
		p, m, v := vector(c.Start), vector(make([]float64, len(c.Start))), vector(make([]float64, len(c.Start)))
		for i, sum := range c.Gradients {
			g := vector(sum)
			norm := Norm(be, g, 1/c.Tokens)
			if !(math.Abs(norm-c.Norms[i]) <= 1e-9*c.Norms[i]) {
				t.Errorf("step %d: norm %v, want %v", i+1, norm, c.Norms[i])
			}
			o.Step(be, p, g, m, v, i+1, c.LR, Clip(norm, c.Clip)/c.Tokens)
		}
		// p, m and v are rounded to float32 once a step. v runs with float32's β2, and 1 − β2 of that is 1.3e-5 off for 0.999; the
		// bias correction is made of the same β2, so that p does not see it.
		for _, x := range []struct {
			what string
			got  tensor.Tensor
			want []float64
			tol  float64
		}{{"p", p, c.End, 1e-6}, {"m", m, c.M, 1e-6}, {"v", v, c.V, 2e-5}} {
			e := distance(x.got, x.want)
			if !(e <= x.tol) {
				t.Errorf("lr %v: %s: relative error %.1e", c.LR, x.what, e)
			}
			t.Logf("lr %v: %s: relative error %.1e", c.LR, x.what, e)
		}
	}
}

func TestTheFirstStepGoesByTheLearningRateWhateverTheGradient(t *testing.T) {
	be := cpu.New(cpu.Config{Threads: 1})
	defer be.Close()
	g := vector([]float64{3, -0.01, 1e3})
	zero := func() tensor.Tensor { return vector(make([]float64, 3)) }
	p := zero()
	AdamW{}.Step(be, p, g, zero(), zero(), 1, 0.5, 1) // m/Bias1 = g, √(v/Bias2) = |g|
	for i, want := range []float64{-0.5, 0.5, -0.5} {
		if got := float64(p.Float32()[i]); !(math.Abs(got-want) <= 1.5e-6*0.5) { // ε is 1e-6 of the smallest g
			t.Errorf("p = %v, want %v", got, want)
		}
	}
}

func TestSchedulesAreThoseOfTransformers(t *testing.T) {
	for _, c := range load(t).Schedules {
		s := Schedule{Kind: c.Kind, LR: c.LR, MinLR: c.MinLR, Warmup: c.Warmup, Total: c.Total}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.Rates {
			if got := s.At(i + 1); !(math.Abs(got-want) <= 1e-12*c.LR) {
				t.Errorf("%s, warm-up %d of %d, step %d: %v, want %v", c.Kind, c.Warmup, c.Total, i+1, got, want)
			}
		}
	}
}

func TestALinearScheduleEndsAtItsMinimum(t *testing.T) {
	s := Schedule{Kind: Linear, LR: 1, MinLR: 0.2, Warmup: 2, Total: 10}
	for step, want := range map[int]float64{1: 0, 2: 0.5, 3: 1, 7: 0.6, 11: 0.2, 50: 0.2} {
		if got := s.At(step); !(math.Abs(got-want) < 1e-12) {
			t.Errorf("step %d: %v, want %v", step, got, want)
		}
	}
	s.Kind = Cosine
	for _, step := range []int{11, 12, 50} {
		if got := s.At(step); !(math.Abs(got-0.2) < 1e-12) {
			t.Errorf("cosine, step %d: %v, want 0.2", step, got)
		}
	}
	s.Kind = Constant
	if got := s.At(10); got != 1 {
		t.Errorf("constant: %v", got)
	}
}

func TestClipIsOneForSmallNormsAndNaNForNaN(t *testing.T) {
	for _, c := range [][3]float64{{0.5, 1, 1}, {2, 1, 1 / (2 + 1e-6)}, {100, 0, 1}, {1, 1, 1 / (1 + 1e-6)}} {
		if got := Clip(c[0], c[1]); !(math.Abs(got-c[2]) < 1e-15) {
			t.Errorf("norm %v, max %v: %v, want %v", c[0], c[1], got, c[2])
		}
	}
	if got := Clip(math.NaN(), 1); got == got {
		t.Errorf("a NaN norm gives %v", got)
	}
}

func TestSettingsThatCannotBeAreNamed(t *testing.T) {
	good := Schedule{LR: 1e-3, Total: 10}
	with := func(f func(s *Schedule)) Schedule { s := good; f(&s); return s }
	for want, s := range map[string]Schedule{
		"":              good,
		"schedule":      with(func(s *Schedule) { s.Kind = "step" }),
		"lr: 0":         with(func(s *Schedule) { s.LR = 0 }),
		"lr: NaN":       with(func(s *Schedule) { s.LR = math.NaN() }),
		"min_lr: 0.002": with(func(s *Schedule) { s.MinLR = 2e-3 }),
		"warmup_steps":  with(func(s *Schedule) { s.Warmup = -1 }),
		"0 steps":       with(func(s *Schedule) { s.Total = 0 }),
	} {
		expect(t, s.Validate(), want)
	}
	for want, o := range map[string]AdamW{
		"": {}, "beta1: 1": {Beta1: 1}, "beta2: -1": {Beta2: -1}, "eps: -1": {Eps: -1}, "weight_decay: NaN": {WeightDecay: math.NaN()},
	} {
		expect(t, o.Validate(), want)
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
