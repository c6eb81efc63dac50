package decoder

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// grads runs LossGrad on cleared gradients and gives a copy of them.
func grads(t testing.TB, m *Model, b Batch) []float32 {
	t.Helper()
	m.Adapters.ZeroGrads(m)
	if _, _, err := m.LossGrad(b); err != nil {
		t.Fatal(err)
	}
	if m.Acts.Mark() != 0 {
		t.Fatalf("LossGrad leaves %d bytes on the stack", m.Acts.Mark())
	}
	return slices.Clone(m.Adapters.Grads.Float32())
}

func losses(t testing.TB, m *Model, b Batch) []float64 {
	t.Helper()
	sums, _, err := m.Losses(b)
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func TestRecomputingBlocksAndKeepingThemGiveTheSameBits(t *testing.T) {
	for _, name := range []string{"llama_bias_packed", "qwen3"} {
		for _, c := range []lora.Config{{Method: lora.SPLoRA}, {Method: lora.LoRA}, {Method: lora.LoRA, Dropout: 0.2, Seed: 5}} {
			g := load(t, name)
			block, none := g.model(t, c.Method, nil, Options{}), g.model(t, c.Method, nil, Options{Recompute: RecomputeNone})
			for _, m := range []*Model{block, none} {
				m.Adapters.Config.Dropout, m.Adapters.Config.Seed = c.Dropout, c.Seed
			}
			if c.Dropout > 0 { // the plan knew of none
				block, none = replan(t, block), replan(t, none)
			}
			if !slices.Equal(grads(t, block, g.batch()), grads(t, none, g.batch())) {
				t.Errorf("%s, %s, dropout %v: gradients differ", name, c.Method, c.Dropout)
			}
		}
	}
}

func replan(t testing.TB, m *Model) *Model {
	t.Helper()
	m, err := New(m.Backend, m.Config, m.Weights, m.Adapters, m.Options)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDropoutDependsOnRowAndStepNotOnTheBatchAroundThem(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.LoRA, nil, Options{Seq: 16})
	m.Adapters.Config.Dropout = 0.3
	m = replan(t, m)
	b := g.batch()
	b.Rows, b.Step = []int{11, 4}, 3
	both := grads(t, m, b)
	sum := make([]float32, len(both))
	for i := range b.B {
		one := sequence(b, i, 16)
		one.Rows, one.Step = b.Rows[i:i+1], 3
		for j, v := range grads(t, m, one) {
			sum[j] += v
		}
	}
	if d := distance(sum, both); !(d <= tolerance) {
		t.Errorf("two rows one by one, padded to another length, differ from both at once by %.1e", d)
	}
	b.Step = 4
	if d := distance(grads(t, m, b), both); !(d > 0.01) {
		t.Errorf("another step drops the same inputs: %.1e", d)
	}
}

// sequence is sequence i of b alone, padded to length n.
func sequence(b Batch, i, n int) Batch {
	one := Batch{B: 1, T: n}
	pad := func(v []int32, with int32) []int32 {
		if v == nil {
			return nil
		}
		out := slices.Clone(v[i*b.T : (i+1)*b.T])
		for len(out) < n {
			out = append(out, with)
		}
		return out
	}
	one.Tokens, one.Targets, one.Positions, one.Docs = pad(b.Tokens, 0), pad(b.Targets, -100), pad(b.Positions, 0), pad(b.Docs, -1)
	return one
}

func TestNothingLeaksFromOneDocumentIntoTheNext(t *testing.T) {
	for _, name := range []string{"llama_bias_packed", "qwen3", "mistral"} {
		g := load(t, name)
		m := g.model(t, lora.SPLoRA, nil, Options{})
		b := g.batch()
		b.Docs, b.Positions = slices.Clone(b.Docs), make([]int32, b.B*b.T)
		const cut = 4
		for i := range b.Docs {
			at := int32(i % b.T)
			b.Positions[i] = at
			if at >= cut {
				b.Docs[i], b.Positions[i] = 1, at-cut
			} else {
				b.Docs[i] = 0
			}
		}
		second := b
		second.Targets = slices.Clone(b.Targets)
		for i := range second.Targets {
			if i%b.T < cut {
				second.Targets[i] = -100
			}
		}
		wantLoss, wantGrad := losses(t, m, second), grads(t, m, second)
		for i := range b.Tokens {
			if i%b.T < cut {
				second.Tokens = slices.Clone(second.Tokens)
				second.Tokens[i] = (second.Tokens[i] + 17) % int32(m.Config.Vocab)
			}
		}
		if !slices.Equal(losses(t, m, second), wantLoss) || !slices.Equal(grads(t, m, second), wantGrad) {
			t.Errorf("%s: other tokens in document 0 change document 1", name)
		}
		one := b
		one.Docs = make([]int32, len(b.Docs)) // without the mask they must differ, or the test sees nothing
		if slices.Equal(losses(t, m, one), losses(t, m, b)) {
			t.Errorf("%s: the document mask changes nothing", name)
		}
	}
}

func TestGradientsAreThoseOfFiniteDifferencesOfTheLoss(t *testing.T) {
	g := load(t, "llama_bias_packed")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	dp := grads(t, m, b)
	p := m.Adapters.Params.Float32()
	for i := 5; i < len(p); i += 211 {
		const h = 1.0 / 64
		v := p[i]
		at := func(x float32) float64 {
			p[i] = x
			sum, _, err := m.Loss(b)
			if err != nil {
				t.Fatal(err)
			}
			return sum
		}
		// five points: the error is O(h⁴), and float32 rounding of the loss is divided by h
		want := (8*(at(v+h)-at(v-h)) - (at(v+2*h) - at(v-2*h))) / (12 * h)
		p[i] = v
		if !(math.Abs(float64(dp[i])-want) <= 1e-2*math.Abs(want)+2e-2) {
			t.Errorf("parameter %d: gradient %v, differences %v", i, dp[i], want)
		}
	}
}

func TestMicroBatchesAddUpToTheBatch(t *testing.T) {
	g := load(t, "qwen2")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	whole := grads(t, m, b)
	sum, tokens, err := m.Loss(b)
	if err != nil {
		t.Fatal(err)
	}
	m.Adapters.ZeroGrads(m)
	var s float64
	var n int
	for i := range b.B {
		s1, n1, err := m.LossGrad(sequence(b, i, b.T))
		if err != nil {
			t.Fatal(err)
		}
		s, n = s+s1, n+n1
	}
	if d := distance(m.Adapters.Grads.Float32(), whole); !(d <= tolerance) || n != tokens || n != b.Active() || !(math.Abs(s-sum) < 1e-5*sum) {
		t.Errorf("gradients differ by %.1e, loss %v and %v, tokens %d and %d", d, s, sum, n, tokens)
	}
}

func TestASubsetOfTargetsHasTheGradientsItWouldHaveAmongAll(t *testing.T) {
	g := load(t, "qwen3")
	for _, targets := range [][]string{{"down_proj"}, {"up_proj"}, {"gate_proj", "down_proj"}, {"o_proj"}, {"o_proj", "up_proj"}, {"v_proj"}, {"q_proj", "down_proj"}} {
		for _, rec := range []Recompute{RecomputeBlock, RecomputeNone} {
			all, some := g.model(t, lora.SPLoRA, nil, Options{}), g.model(t, lora.SPLoRA, targets, Options{Recompute: rec})
			for i, w := range all.Adapters.Windows {
				if some.Adapters.Find(w.Name) < 0 { // B = 0: there, and without effect
					_, B := all.Adapters.Of(i, all.Adapters.Params)
					all.Fill(B, 0)
				}
			}
			grads(t, all, g.batch())
			grads(t, some, g.batch())
			for i, w := range some.Adapters.Windows {
				A, B := some.Adapters.Of(i, some.Adapters.Grads)
				wantA, wantB := all.Adapters.Of(all.Adapters.Find(w.Name), all.Adapters.Grads)
				if dA, dB := distance(A.Float32(), wantA.Float32()), distance(B.Float32(), wantB.Float32()); !(dA <= tolerance && dB <= tolerance) {
					t.Errorf("targets %v: %s: dA differs by %.1e, dB by %.1e", targets, w.Name, dA, dB)
				}
			}
		}
	}
}

// upper are weights whose first block is not adapted: its linears have names that no adapter has.
func TestTheBackwardEndsAtTheLowestAdaptedBlock(t *testing.T) {
	g := load(t, "llama")
	full := g.model(t, lora.SPLoRA, nil, Options{})
	shapes, err := Targets(full.Config, full.Weights, full.Adapters.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Recompute: RecomputeNone}} {
		a := lora.New(full.Backend, full.Adapters.Config, shapes[len(Linears):], true) // block 1 only
		for i, w := range a.Windows {
			_, B := a.Of(i, a.Params)
			A, _ := a.Of(i, a.Params)
			fromA, fromB := full.Adapters.Of(full.Adapters.Find(w.Name), full.Adapters.Params)
			full.Copy(A, fromA)
			full.Copy(B, fromB)
		}
		for i := range Linears {
			_, B := full.Adapters.Of(i, full.Adapters.Params)
			full.Fill(B, 0)
		}
		o.Batch, o.Seq = full.Options.Batch, full.Options.Seq
		m, err := New(full.Backend, full.Config, full.Weights, a, o)
		if err != nil {
			t.Fatal(err)
		}
		if m.first != 1 {
			t.Fatalf("the backward ends at block %d", m.first)
		}
		want := grads(t, full, g.batch())
		if d := distance(grads(t, m, g.batch()), want[full.Adapters.Windows[len(Linears)].At:]); !(d <= tolerance) {
			t.Errorf("gradients differ by %.1e", d)
		}
		if full.Plan.Stack <= m.Plan.Stack && o.Recompute == RecomputeBlock {
			t.Errorf("a backward through one block plans %d bytes, through two %d", m.Plan.Stack, full.Plan.Stack)
		}
	}
}

func TestTheSizeOfTheChunksOfLogitsDoesNotMatter(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	want, wantLoss := grads(t, m, g.batch()), losses(t, m, g.batch())
	for _, rows := range []int{1, 3, 7} {
		m := g.model(t, lora.SPLoRA, nil, Options{ChunkRows: rows})
		if d := distance(grads(t, m, g.batch()), want); !(d <= tolerance) {
			t.Errorf("%d rows: gradients differ by %.1e", rows, d)
		}
		for i, s := range losses(t, m, g.batch()) {
			if !(math.Abs(s-wantLoss[i]) <= 1e-6*wantLoss[i]) {
				t.Errorf("%d rows: loss %v, want %v", rows, s, wantLoss[i])
			}
		}
	}
}

func TestABatchWithoutTargetsHasNoLossAndNoGradient(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	b.Targets = nil
	m.Adapters.ZeroGrads(m)
	if sum, n, err := m.LossGrad(b); sum != 0 || n != 0 || err != nil {
		t.Errorf("loss %v over %d tokens, %v", sum, n, err)
	}
	if m.SumSquares(m.Adapters.Grads) != 0 {
		t.Error("a gradient from nowhere")
	}
}

func TestAMergedModelHasTheLogitsOfTheAdaptedOne(t *testing.T) {
	for _, method := range []lora.Method{lora.SPLoRA, lora.LoRA} {
		g := load(t, "qwen2")
		m := g.model(t, method, nil, Options{})
		want, err := m.Logits(g.batch(), nil)
		if err != nil {
			t.Fatal(err)
		}
		w := g.weights(t)
		for i := range w.Blocks {
			for j := range w.Blocks[i].Linears {
				l := &w.Blocks[i].Linears[j]
				a := m.linears[i][j]
				out, in := m.Config.Shape(j)
				merged := tensor.New(tensor.F32, out, in)
				lora.MergeInto(m.Device, merged, l.W, a.B, a.A, a.Scale, method)
				l.W = dense(t, merged)
			}
		}
		plain, err := New(m.Backend, m.Config, w, nil, m.Options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := plain.Logits(g.batch(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(got, want); !(d <= tolerance) {
			t.Errorf("%s: merged logits differ by %.1e", method, d)
		}
	}
}

func TestBadBatchesAreRefusedByName(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	with := func(f func(b *Batch)) Batch {
		c := b
		c.Tokens, c.Targets, c.Docs = slices.Clone(b.Tokens), slices.Clone(b.Targets), slices.Clone(b.Docs)
		f(&c)
		return c
	}
	for want, b := range map[string]Batch{
		"tokens: 53 at sequence 1, position 2": with(func(b *Batch) { b.Tokens[b.T+2] = 53 }),
		"tokens: -1":                           with(func(b *Batch) { b.Tokens[0] = -1 }),
		"targets: 99":                          with(func(b *Batch) { b.Targets[3] = 99 }),
		"docs: -2":                             with(func(b *Batch) { b.Docs[3] = -2 }),
		"21 tokens":                            with(func(b *Batch) { b.Tokens = b.Tokens[1:] }),
		"planned for at most 2×11":             {B: 2, T: 12},
		"longer than the model's max_position": {B: 1, T: 65},
		"positions: 11":                        with(func(b *Batch) { b.Positions = make([]int32, 22); b.Positions[7] = 11 }),
		"1 row numbers":                        with(func(b *Batch) { b.Rows = []int{1} }),
		"a batch of 0 sequences":               {},
	} {
		if _, _, err := m.Loss(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
