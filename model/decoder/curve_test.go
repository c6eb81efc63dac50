package decoder

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/optim"
)

// curve is testdata/curve.json.
type curve struct {
	LR, Clip, WeightDecay float64
	Warmup, Total         int
	Loss, Norm            []float64
}

func TestTwelveStepsOfTrainingFollowPyTorch(t *testing.T) {
	want := theCurve(t)
	for _, memory := range []Memory{MemoryReuse, MemoryFused} {
		follow(t, want, memory)
	}
}

func theCurve(t *testing.T) (want curve) {
	raw, err := os.ReadFile("testdata/curve.json")
	if err == nil {
		err = json.Unmarshal(raw, &want)
	}
	if err != nil || len(want.Loss) != want.Total {
		t.Fatal("no golden curve: ", err)
	}
	return want
}

func follow(t *testing.T, want curve, memory Memory) {
	g := load(t, "llama")
	m := g.model(t, lora.SPLoRA, nil, Options{Memory: memory})
	a, o := m.Adapters, optim.AdamW{WeightDecay: want.WeightDecay}
	s := optim.Schedule{Kind: optim.Cosine, LR: want.LR, Warmup: want.Warmup, Total: want.Total}
	worst := 0.0
	for k := 1; k <= want.Total; k++ {
		a.ZeroGrads(m)
		var sum float64
		var tokens int
		for i := range g.batch().B { // one sequence at a time, as micro-batches
			s1, n1, err := m.LossGrad(sequence(g.batch(), i, g.batch().T))
			if err != nil {
				t.Fatal(err)
			}
			sum, tokens = sum+s1, tokens+n1
		}
		scale := 1 / float64(tokens)
		norm := optim.Norm(m, a.Grads, scale)
		o.Step(m, a.Params, a.Grads, a.M, a.V, k, s.At(k), scale*optim.Clip(norm, want.Clip))
		dl, dn := math.Abs(sum*scale/want.Loss[k-1]-1), math.Abs(norm/want.Norm[k-1]-1)
		worst = max(worst, dl)
		if !(dl <= 1e-5 && dn <= 1e-4) { // float32 along twelve steps; a norm is a sharper thing than a loss
			t.Errorf("step %d: loss %.6f, want %.6f; norm %.5f, want %.5f", k, sum*scale, want.Loss[k-1], norm, want.Norm[k-1])
		}
	}
	t.Logf("loss from %.4f to %.4f; worst relative difference %.1e", want.Loss[0], want.Loss[want.Total-1], worst)
}
