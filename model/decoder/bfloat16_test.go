package decoder

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// asGoodAs is how much further than torch's our bfloat16 may be from float64. Both round the same activations, each to 8 bits (2⁻⁸ at
// most); which way an element falls is chance, and the norm over a tensor of a few hundred varies by a fifth or so.
const asGoodAs = 1.5

func TestBFloat16IsAsNearToFloat64AsTorchs(t *testing.T) {
	raw, err := os.ReadFile("testdata/bfloat16.json")
	if err != nil {
		t.Fatal(err)
	}
	var torch map[string]map[string]map[string]float64
	if err := json.Unmarshal(raw, &torch); err != nil {
		t.Fatal(err)
	}
	for _, name := range goldens {
		for _, method := range []lora.Method{lora.SPLoRA, lora.LoRA} {
			t.Run(name+"/"+method.String(), func(t *testing.T) {
				ours, theirs := load(t, name).halfErrors(t, method), torch[name][method.String()]
				for _, what := range []string{"logits", "loss", "dA", "dB"} {
					if e, limit := ours[what], asGoodAs*theirs[what]; !(e <= limit) {
						t.Errorf("%s: relative error %.2e, torch's is %.2e", what, e, theirs[what])
					}
					t.Logf("%-18s %-6s %-6s %.2e, torch %.2e", name, method, what, ours[what], theirs[what])
				}
			})
		}
	}
}

// halfErrors are the relative errors of the golden's logits, tokens' losses, and of all dA and dB, in bfloat16.
func (g *golden) halfErrors(t *testing.T, method lora.Method) map[string]float64 {
	m, b := g.model(t, method, nil, Options{DType: tensor.BF16}), g.batch()
	e := map[string]float64{"logits": g.logitsError(t, m, b, method)}
	loss, err := m.tokenLosses(b)
	if err != nil {
		t.Fatal(err)
	}
	e["loss"] = distance(loss, g.t[method.String()+".loss"].Float32())
	if _, _, err := m.LossGrad(b); err != nil {
		t.Fatal(err)
	}
	var got, want [2][]float32
	for i, w := range m.Adapters.Windows {
		A, B := m.Adapters.Of(i, m.Adapters.Grads)
		for k, d := range []tensor.Tensor{A, B} {
			got[k] = append(got[k], down(m, d)...)
			want[k] = append(want[k], g.t[method.String()+"."+w.Name+".lora_"+"AB"[k:k+1]].Float32()...)
		}
	}
	e["dA"], e["dB"] = distance(got[0], want[0]), distance(got[1], want[1])
	return e
}

// tokenLosses are the losses of all active tokens.
func (m *Model) tokenLosses(b Batch) ([]float32, error) {
	defer m.Acts.Reset(m.Acts.Mark())
	p := m.begin(&b)
	x := m.embed(p, &b)
	m.run(p, x)
	loss, _ := m.head(p, x, tensor.Tensor{}, &b)
	return loss, m.Sync()
}

func TestBFloat16HoldsActivationsSlotAndCacheInHalfTheMemory(t *testing.T) {
	g := load(t, "qwen3")
	lc := lora.Config{Rank: 4, Alpha: 8}
	o := Options{Batch: 2, Seq: 32, Cache: 16}
	full, err := Estimate(nil, g.Case.Config, g.weights(t), &lc, true, o)
	if err != nil {
		t.Fatal(err)
	}
	o.DType = tensor.BF16
	half, err := Estimate(nil, g.Case.Config, g.weights(t), &lc, true, o)
	if err != nil {
		t.Fatal(err)
	}
	if 2*half.Slot != full.Slot || 2*half.Logits != full.Logits {
		t.Errorf("slot %d and %d, logits %d and %d", half.Slot, full.Slot, half.Logits, full.Logits)
	}
	tables := 8 * o.Cache
	if 2*(half.Cache-tables) != full.Cache-tables || 2*half.Adapters != 3*full.Adapters || half.Gradients != full.Gradients || half.Moments != full.Moments {
		t.Errorf("%+v and %+v", half, full)
	}
	if share := float64(half.Stack) / float64(full.Stack); !(share > 0.5 && share < 0.6) { // rstd, lse and losses stay float32
		t.Errorf("activations %d of %d", half.Stack, full.Stack)
	}
}

func TestAStaleHalfIsSeenAndARefreshMendsIt(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.LoRA, nil, Options{DType: tensor.BF16})
	loss := func() float64 {
		sum, _, err := m.Loss(g.batch())
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	first := loss()
	p := m.Adapters.Params.Float32()
	for i := range p {
		p[i] *= 1.5
	}
	if stale := loss(); stale != first {
		t.Errorf("plain LoRA's path read the float32 adapters: %v and %v", stale, first)
	}
	m.Adapters.Refresh(m)
	if fresh := loss(); !(math.Abs(fresh-first) > 1e-3*first) {
		t.Errorf("the loss is %v before and %v after", first, fresh)
	}
}
