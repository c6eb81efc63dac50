package family

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/tensor"
)

// facts are what transformers says of a model that it has built (testdata/make.py).
type facts struct {
	Architecture                 string
	Vocab, Hidden, Inter, Layers int
	Heads                        int
	KVHeads                      int `json:"kv_heads"`
	HeadDim                      int `json:"head_dim"`
	Shapes                       [][2]int
	Bias                         [7]bool
	Eps                          float64
	QKNorm                       bool `json:"qk_norm"`
	Tied                         bool
	MaxPositions                 int `json:"max_positions"`
	Windows                      []int
	Theta                        float64
	Rope                         string
	Factor, Low, High            float64
	Original                     int
	DType                        string
	Tensors                      map[string]struct {
		Shape  []int
		SHA256 string
	}
}

// config is the facts as a decoder.Config.
func (g facts) config() decoder.Config {
	c := decoder.Config{Vocab: g.Vocab, Hidden: g.Hidden, Inter: g.Inter, Layers: g.Layers, Heads: g.Heads, KVHeads: g.KVHeads, HeadDim: g.HeadDim,
		Eps: float32(g.Eps), QKNorm: g.QKNorm, Bias: g.Bias, Tied: g.Tied, MaxPositions: g.MaxPositions,
		Rope: decoder.Rope{Theta: g.Theta, Scaling: g.Rope, Factor: g.Factor, LowFreqFactor: g.Low, HighFreqFactor: g.High, OriginalMaxPositions: g.Original}}
	if g.Rope == "default" {
		c.Rope.Scaling = ""
	}
	if slices.Max(g.Windows) > 0 {
		c.Windows = g.Windows
	}
	return c
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func goldens(t testing.TB) map[string]facts {
	g := map[string]facts{}
	readJSON(t, "golden.json", &g)
	if len(g) < 5 {
		t.Fatal("no goldens")
	}
	return g
}

// digest is the sha256 of a matrix as float32.
func digest(m tensor.Tensor) string {
	v := tensor.New(tensor.F32, m.Rows, m.Cols)
	tensor.Widen(v.Float32(), m)
	h := sha256.Sum256(v.Mem.Host)
	return hex.EncodeToString(h[:])
}

// loaded are a model's parameters under Hugging Face's names; packed linears are expanded.
func loaded(f *Folder, r *decoder.Resident) map[string]tensor.Tensor {
	m := map[string]tensor.Tensor{"model.embed_tokens.weight": r.Embed(), "model.norm.weight": r.FinalNorm()}
	if !f.Config.Tied {
		m["lm_head.weight"] = r.Head()
	}
	for i := range r.Blocks {
		b := r.Acquire(i)
		for k, l := range b.Linears {
			dense := tensor.New(tensor.F32, l.W.Out, l.W.In)
			l.W.Expand(dense)
			m[l.Name+".weight"] = dense
			if !l.Bias.Absent() {
				m[l.Name+".bias"] = l.Bias
			}
			if l.Name != LinearName(i, k) {
				panic(l.Name)
			}
		}
		at := "model.layers." + string(rune('0'+i)) + "."
		m[at+"input_layernorm.weight"], m[at+"post_attention_layernorm.weight"] = b.AttnNorm, b.MLPNorm
		if f.Config.QKNorm {
			m[at+"self_attn.q_norm.weight"], m[at+"self_attn.k_norm.weight"] = b.QNorm, b.KNorm
		}
	}
	return m
}

func TestFoldersAreReadAsTransformersReadsThem(t *testing.T) {
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Architecture != g.Architecture || !reflect.DeepEqual(f.Config, g.config()) {
				t.Fatalf("%s %+v\nwant %s %+v", f.Architecture, f.Config, g.Architecture, g.config())
			}
			r, err := f.Load()
			if err != nil {
				t.Fatal(err)
			}
			got := loaded(f, r)
			if len(got) != len(g.Tensors) {
				t.Errorf("%d parameters, want %d", len(got), len(g.Tensors))
			}
			for n, want := range g.Tensors {
				m := got[n]
				shape := []int{m.Rows, m.Cols}
				if len(want.Shape) == 1 {
					shape = shape[1:]
				}
				if !slices.Equal(shape, want.Shape) || digest(m) != want.SHA256 {
					t.Errorf("%s %v differs from transformers' %v", n, m, want.Shape)
				}
			}
			if w := r.Blocks[0].Linears[0].W; w.Values.DType.String() != g.DType || r.Embed().DType.String() != g.DType {
				t.Errorf("stored as %v and %v, want %s", w.Values.DType, r.Embed().DType, g.DType)
			}
			if g.Tied != (&r.Head().Mem.Host[0] == &r.Embed().Mem.Host[0]) {
				t.Error("the head is not what tie_word_embeddings says")
			}
		})
	}
}

func TestConfigsOfBothSpellingsAreReadAsTransformersReadsThem(t *testing.T) {
	var cases map[string]struct {
		Config json.RawMessage
		Facts  facts
	}
	readJSON(t, "configs.json", &cases)
	for name, c := range cases {
		a, err := ParseConfig(c.Config)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.Name != c.Facts.Architecture || !reflect.DeepEqual(a.Config, c.Facts.config()) {
			t.Errorf("%s: %s %+v\nwant %s %+v", name, a.Name, a.Config, c.Facts.Architecture, c.Facts.config())
		}
		for k, want := range c.Facts.Shapes {
			if out, in := a.Config.Shape(k); want != [2]int{out, in} {
				t.Errorf("%s: %s is [%d,%d], want %v", name, decoder.Linears[k], out, in, want)
			}
		}
	}
}
