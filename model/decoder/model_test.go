package decoder

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func dense(t testing.TB, w tensor.Tensor) *sparse.Weight {
	t.Helper()
	packed, err := sparse.Pack(w, nil, sparse.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestGenerationWithTheCacheIsTheFullForward(t *testing.T) {
	cached(t, tensor.F32, tolerance)
	cached(t, tensor.BF16, 0.03) // one and many queries sum in another order, and every layer rounds to 8 bits what that gives
}

func cached(t *testing.T, dt tensor.DType, tolerance float64) {
	for _, name := range []string{"mistral", "qwen3", "llama3_rope"} {
		g := load(t, name)
		b := g.batch()
		one := Batch{B: 1, T: b.T, Tokens: b.Tokens[:b.T]}
		m := g.model(t, lora.SPLoRA, nil, Options{Cache: b.T, DType: dt})
		want, err := m.Logits(one, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := m.Config.Vocab
		check := func(what string, got []float32, err error, at int) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if d := distance(got, want[at*v:(at+1)*v]); !(d < tolerance) {
				t.Errorf("%s %s: %s: logits after token %d differ by %.1e", name, dt, what, at, d)
			}
		}
		c := m.NewCache()
		got, err := c.Next(one.Tokens[:3])
		check("prefill", got, err, 2)
		for i := 3; i < b.T-1; i++ {
			got, err = c.Next(one.Tokens[i : i+1])
			check("one by one", got, err, i)
		}
		c.Cut(4)
		got, err = c.Next(one.Tokens[4:])
		check("from the fourth again", got, err, b.T-1)
		if c.Len() != b.T {
			t.Errorf("the cache holds %d tokens, want %d", c.Len(), b.T)
		}
		if _, err := c.Next(one.Tokens[:1]); err == nil || !strings.Contains(err.Error(), "room for") {
			t.Errorf("a full cache takes a token: %v", err)
		}
	}
}

func TestAPromptThatFailsInALaterPieceLeavesTheCacheAsItWas(t *testing.T) {
	g := load(t, "llama")
	whole := g.model(t, lora.SPLoRA, nil, Options{})
	m, err := New(whole.Backend, whole.Config, whole.Weights, whole.Adapters, Options{Seq: 3, Cache: 20})
	if err != nil {
		t.Fatal(err)
	}
	c, tokens := m.NewCache(), g.batch().Tokens
	if _, err := c.Next(tokens[:2]); err != nil {
		t.Fatal(err)
	}
	bad := append(append([]int32(nil), tokens[2:9]...), int32(m.Config.Vocab))
	if _, err := c.Next(bad); err == nil || c.Len() != 2 {
		t.Errorf("%v; the cache holds %d tokens, want 2", err, c.Len())
	}
	got, err := c.Next(tokens[2:9])
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.NewCache().Next(tokens[:9])
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("what follows differs (%v)", err)
	}
}

func TestAPromptLongerThanThePlanRunsInPieces(t *testing.T) {
	g := load(t, "mistral")
	whole := g.model(t, lora.SPLoRA, nil, Options{Cache: 40})
	short, err := New(whole.Backend, whole.Config, whole.Weights, whole.Adapters, Options{Seq: 3, Cache: 40})
	if err != nil {
		t.Fatal(err)
	}
	tokens := g.batch().Tokens[:15]
	want, err := whole.NewCache().Next(tokens)
	if err != nil {
		t.Fatal(err)
	}
	got, err := short.NewCache().Next(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(got, want); !(d <= tolerance) {
		t.Errorf("logits differ by %.1e", d)
	}
}

func TestThePlanIsWhatTheStepUses(t *testing.T) {
	for _, name := range goldens {
		for _, method := range []lora.Method{lora.SPLoRA, lora.LoRA} {
			for _, o := range []Options{{}, {Recompute: RecomputeNone}, {ChunkRows: 4}, {Memory: MemoryFused}} {
				g := load(t, name)
				m := g.model(t, method, nil, o)
				b := g.batch()
				b.Docs, b.Positions = nil, nil
				b.Targets = make([]int32, b.B*b.T) // every token has a loss: the largest step
				grads(t, m, b)
				if m.Acts.Peak() != m.Plan.Stack {
					t.Errorf("%s, %s, %+v: the step uses %d bytes, the plan has %d", name, method, o, m.Acts.Peak(), m.Plan.Stack)
				}
				est, err := Estimate(m.Backend, m.Config, m.Weights, &m.Adapters.Config, true, m.Options)
				if err != nil || est != m.Plan {
					t.Errorf("%s: the estimate is %+v, the plan %+v (%v)", name, est, m.Plan, err)
				}
			}
		}
	}
}

func TestAPlanCountsWhatItIsMadeOf(t *testing.T) {
	c := Config{Vocab: 32000, Hidden: 4096, Inter: 11008, Layers: 32, Heads: 32, KVHeads: 32, HeadDim: 128, MaxPositions: 4096, Rope: Rope{Theta: 1e4}}
	const n, mib = 2048, 1 << 20
	w := Sketch(c, tensor.BF16, sparse.Pattern{N: 2, M: 4}, 0.5)
	block, err := Estimate(nil, c, w, &lora.Config{}, true, Options{Seq: n})
	if err != nil {
		t.Fatal(err)
	}
	none, _ := Estimate(nil, c, w, &lora.Config{}, true, Options{Seq: n, Recompute: RecomputeNone})
	if want := 4 * 11008 * 4096; block.Slot != want {
		t.Errorf("slot %d, want %d", block.Slot, want)
	}
	if want := 4 * 39976960; block.Adapters != want || block.Moments != 2*want || block.Gradients != want+4*lora.Tail {
		t.Errorf("adapters %d, gradients %d, moments %d of 39 976 960 values", block.Adapters, block.Gradients, block.Moments)
	}
	if block.ChunkRows != 256 || block.Logits != 4*256*32000 {
		t.Errorf("chunks of %d rows, %d bytes", block.ChunkRows, block.Logits)
	}
	// Beside one block's inside, 33 hidden states stand with recomputation; without it, every block keeps its
	// 5·C (n, h, n2, the output and att) + 3·C (q, k, v) + 3·F values for each token.
	saved := none.Stack - block.Stack
	if want := 31 * 4 * n * (8*4096 + 3*11008 - 4096); !(math.Abs(float64(saved-want)) < 0.02*float64(want)) {
		t.Errorf("recomputation saves %d MiB, want about %d", saved/mib, want/mib)
	}
	t.Logf("7B, 1×2048: slot %d, stack %d (none: %d), adapters %d, gradients %d, moments %d MiB", block.Slot/mib, block.Stack/mib, none.Stack/mib, block.Adapters/mib, block.Gradients/mib, block.Moments/mib)
}

func TestBlocksOneByOneAreTheModel(t *testing.T) {
	g := load(t, "qwen3")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	x := m.Hidden(b)
	if err := m.Embed(x, b); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i := range m.Config.Layers {
		before := slices.Clone(x.Float32())
		err := m.BlockForward(i, nil, x, b, func(linear int, in tensor.Tensor) {
			seen[Linears[linear]]++
			if _, cols := m.Config.Shape(linear); in.Rows != b.B*b.T || in.Cols != cols {
				t.Errorf("%s sees %s", Linears[linear], in)
			}
			if linear == Q && i == 0 && !normalised(in, before, m.Weights.Acquire(0).AttnNorm.Float32(), float64(m.Config.Eps)) {
				t.Error("q_proj does not see RMSNorm(x)")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range Linears {
		if seen[name] != m.Config.Layers {
			t.Errorf("%s was seen %d times", name, seen[name])
		}
	}
	rows := count(b.B * b.T)
	got := m.download(x, rows)
	want, err := m.Logits(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Error("logits differ")
	}
}

func normalised(y tensor.Tensor, x, w []float32, eps float64) bool {
	c := len(w)
	for i := range y.Rows {
		var s float64
		for _, v := range x[i*c : (i+1)*c] {
			s += float64(v) * float64(v)
		}
		for j := range c {
			want := float64(x[i*c+j]) / math.Sqrt(s/float64(c)+eps) * float64(w[j])
			if !(math.Abs(float64(y.Float32()[i*c+j])-want) < 1e-5) {
				return false
			}
		}
	}
	return true
}

func TestABlockCanBeReplaced(t *testing.T) {
	g := load(t, "llama")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	other := g.weights(t).Blocks[1]
	out, in := m.Config.Shape(Down)
	other.Linears[Down].W = dense(t, tensor.New(tensor.F32, out, in))
	b := g.batch()
	x, y := m.Hidden(b), m.Hidden(b)
	for blk, x := range map[*Block]tensor.Tensor{nil: x, &other: y} {
		if err := m.Embed(x, b); err != nil {
			t.Fatal(err)
		}
		if err := m.BlockForward(1, blk, x, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Equal(x.Float32(), y.Float32()) {
		t.Error("the replacement was not used")
	}
}

func TestTheFirstNonFiniteModuleIsNamed(t *testing.T) {
	g := load(t, "qwen3")
	b := g.batch()
	nan := float32(math.NaN())
	for want, breakIt := range map[string]func(m *Model, r *Resident){
		"": func(*Model, *Resident) {},
		"model.layers.1.mlp.up_proj": func(m *Model, r *Resident) {
			r.Blocks[1].Linears[Up].W.Values.Float32()[3] = nan
		},
		"model.layers.0.self_attn.v_proj": func(m *Model, r *Resident) {
			_, B := m.Adapters.Of(V, m.Adapters.Params)
			B.Float32()[0] = float32(math.Inf(1))
		},
		"model.layers.1.input_layernorm": func(m *Model, r *Resident) { r.Blocks[1].AttnNorm.Float32()[0] = nan },
		"lm_head":                        func(m *Model, r *Resident) { r.Norm.Float32()[0] = nan },
	} {
		m := load(t, "qwen3").model(t, lora.SPLoRA, nil, Options{})
		breakIt(m, m.Weights.(*Resident))
		found, err := m.FindNonFinite(b)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case found == nil && want != "":
			t.Errorf("%s was not found", want)
		case found != nil && found.Module != want:
			t.Errorf("found %+v, want %q", found, want)
		}
	}
	m := load(t, "qwen3").model(t, lora.SPLoRA, nil, Options{})
	at := b.Tokens[b.T+2] // of the second sequence
	m.Weights.Embed().Float32()[int(at)*m.Config.Hidden] = nan
	first := slices.Index(b.Tokens, at)
	found, err := m.FindNonFinite(b)
	if err != nil || found == nil || *found != (NonFinite{"model.embed_tokens", first / b.T, first % b.T}) {
		t.Errorf("found %+v, %v; token %d stands first at %d", found, err, at, first)
	}
}

func TestWeightsThatDoNotFitTheConfigAreRefused(t *testing.T) {
	for want, f := range map[string]func(c *Config, r *Resident){
		"model.layers.1.self_attn.k_proj.weight is [": func(c *Config, r *Resident) {
			r.Blocks[1].Linears[K] = Base{Name: r.Blocks[1].Linears[K].Name, W: r.Blocks[0].Linears[Q].W}
		},
		"lm_head.weight is [53, 24], config.json says [54": func(c *Config, r *Resident) {
			c.Vocab, r.EmbedTable = 54, tensor.New(tensor.F32, 54, 24)
		},
		"o_proj.weight is missing":         func(c *Config, r *Resident) { r.Blocks[0].Linears[O].W = nil },
		"q_proj.bias is [1, 3]":            func(c *Config, r *Resident) { r.Blocks[0].Linears[Q].Bias = tensor.New(tensor.F32, 1, 3) },
		"q_norm.weight is [0, 0]":          func(c *Config, r *Resident) { c.QKNorm = true },
		"model.norm.weight is [1, 3]":      func(c *Config, r *Resident) { r.Norm = tensor.New(tensor.F32, 1, 3) },
		"4 heads do not share 3 key/value": func(c *Config, r *Resident) { c.KVHeads = 3 },
		"head_dim 7 must be even":          func(c *Config, r *Resident) { c.HeadDim = 7 },
		`rope scaling "yarn"`:              func(c *Config, r *Resident) { c.Rope.Scaling = "yarn" },
		"max_position_embeddings 8":        func(c *Config, r *Resident) { c.MaxPositions = 8 },
		"1 sliding windows for 2 layers":   func(c *Config, r *Resident) { c.Windows = []int{4} },
	} {
		g := load(t, "llama")
		c, r := g.Case.Config, g.weights(t)
		f(&c, r)
		if _, err := New(compute.Dry{}, c, r, nil, Options{Seq: 11}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func TestEachLayerHasItsOwnWindow(t *testing.T) {
	g := load(t, "mistral")
	g.Case.Config.Windows = []int{0, 4}
	m := g.model(t, lora.SPLoRA, nil, Options{})
	b := g.batch()
	for i, reaches := range []bool{true, false} { // a change of token 0 reaches token 5, which it cannot with window 4
		state := func(token int32) []float32 {
			c := b
			c.Tokens = slices.Clone(b.Tokens)
			c.Tokens[0] = token
			x := m.Hidden(c)
			if err := m.Embed(x, c); err != nil {
				t.Fatal(err)
			}
			if err := m.BlockForward(i, nil, x, c, nil); err != nil {
				t.Fatal(err)
			}
			return x.Slice(5, 6).Float32()
		}
		if got := !slices.Equal(state(1), state(2)); got != reaches {
			t.Errorf("window %d: token 0 reaches token 5 of layer %d: %v", m.Config.Windows[i], i, got)
		}
	}
}

func TestABackendThatCannotWalkKeptWeightsSaysSo(t *testing.T) {
	g := load(t, "llama")
	be := struct{ compute.Backend }{backend(t, MemoryReuse)}
	if _, err := New(be, g.Case.Config, g.weights(t), nil, Options{Memory: MemoryFused}); err == nil || !strings.Contains(err.Error(), "--memory reuse") {
		t.Errorf("error %v, want one that names --memory reuse", err)
	}
}
