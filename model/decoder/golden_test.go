package decoder

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// golden is one file of testdata/generate.py.
type golden struct {
	name string
	Case struct {
		Config         Config
		Scale          float64
		Rank           int
		Batch, Pattern string
	}
	t map[string]tensor.Tensor
}

var goldens = []string{"llama", "llama_bias_packed", "qwen2", "qwen3", "mistral", "llama3_rope", "linear_rope"}

func load(t testing.TB, name string) *golden {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	g := &golden{name: name, t: map[string]tensor.Tensor{}}
	for key, value := range header {
		if key == "__metadata__" {
			var meta struct{ Case string }
			if err := json.Unmarshal(value, &meta); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(meta.Case), &g.Case); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var e struct {
			Dtype string
			Shape []int
			At    [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(value, &e); err != nil {
			t.Fatal(err)
		}
		g.t[key] = place(e.Dtype, e.Shape, raw[8+n:][e.At[0]:e.At[1]])
	}
	return g
}

func place(dtype string, shape []int, raw []byte) tensor.Tensor {
	if len(shape) == 1 {
		shape = []int{1, shape[0]}
	}
	dt := map[string]tensor.DType{"F32": tensor.F32, "I32": tensor.I32, "U8": tensor.U8}[dtype]
	t := tensor.New(dt, shape[0], shape[1])
	copy(t.Mem.Host, raw)
	return t
}

// weights packs the golden's model.
func (g *golden) weights(t testing.TB) *Resident {
	t.Helper()
	pattern, _, err := sparse.ParsePattern(g.Case.Pattern)
	if err != nil {
		t.Fatal(err)
	}
	r := &Resident{EmbedTable: g.t["model.embed_tokens.weight"], HeadTable: g.t["lm_head.weight"], Norm: g.t["model.norm.weight"]}
	if g.Case.Config.Tied {
		r.HeadTable = r.EmbedTable
	}
	for i := range g.Case.Config.Layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		b := Block{AttnNorm: g.t[p+"input_layernorm.weight"], MLPNorm: g.t[p+"post_attention_layernorm.weight"],
			QNorm: g.t[p+"self_attn.q_norm.weight"], KNorm: g.t[p+"self_attn.k_norm.weight"]}
		for j, name := range Linears {
			b.Linears[j].Name = p + map[bool]string{true: "self_attn.", false: "mlp."}[j <= O] + name
			b.Linears[j].Bias = g.t[b.Linears[j].Name+".bias"]
			b.Linears[j].W = pack(t, g.t[b.Linears[j].Name+".weight"], g.t[b.Linears[j].Name+".mask"], pattern)
		}
		r.Blocks = append(r.Blocks, b)
	}
	return r
}

func pack(t testing.TB, w, mask tensor.Tensor, p sparse.Pattern) *sparse.Weight {
	t.Helper()
	words := sparse.Words(w.Cols)
	bits := make([]uint64, w.Rows*words)
	for i := range w.Rows {
		for j := range w.Cols {
			bits[i*words+j/64] |= uint64(mask.Mem.Host[i*w.Cols+j]) << (j % 64)
		}
	}
	packed, err := sparse.Pack(w, bits, p)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func (g *golden) batch() Batch {
	i := func(name string) []int32 { return g.t["batch."+name].Int32() }
	b := Batch{B: g.t["batch.tokens"].Rows, T: g.t["batch.tokens"].Cols, Tokens: i("tokens"), Targets: i("targets"), Docs: i("docs")}
	if g.Case.Batch == "packed" {
		b.Positions = i("positions")
	}
	return b
}

// everywhere walks the kept weights of every pruned layer, however small.
type everywhere struct{ *cpu.Backend }

func (everywhere) WalksKept(w *sparse.Weight, x tensor.DType, _ int) bool {
	return x == tensor.F32 && !w.Dense()
}

// onDevice, where it is set, opens the backend on which the goldens are computed instead of the CPU's.
var onDevice func(t testing.TB) compute.Backend

// backend is a CPU backend; for MemoryFused one that walks everywhere.
func backend(t testing.TB, memory Memory) compute.Backend {
	if onDevice != nil {
		return onDevice(t)
	}
	be := cpu.New(cpu.Config{Threads: 2})
	t.Cleanup(func() { be.Close() })
	if memory == MemoryFused {
		return everywhere{be}
	}
	return be
}

// model is the golden's model with its adapters.
func (g *golden) model(t testing.TB, method lora.Method, targets []string, o Options) *Model {
	t.Helper()
	be := backend(t, o.Memory)
	c, w := g.Case.Config, g.weights(t)
	if onDevice != nil {
		w = w.On(be)
	}
	lc := lora.Config{Method: method, Rank: g.Case.Rank, Alpha: g.Case.Scale * float64(g.Case.Rank), Targets: targets}
	shapes, err := Targets(c, w, lc)
	if err != nil {
		t.Fatal(err)
	}
	a := lora.New(be, lc, shapes, true)
	for i, win := range a.Windows {
		A, B := a.Of(i, a.Params)
		be.Upload(A, g.t[win.Name+".lora_A"].Mem.Host)
		be.Upload(B, g.t[win.Name+".lora_B"].Mem.Host)
	}
	b := g.batch()
	o.Batch, o.Seq = max(o.Batch, b.B), max(o.Seq, b.T)
	m, err := New(be, c, w, a, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// down is t on the host.
func down(m *Model, t tensor.Tensor) []float32 {
	v := make([]float32, t.Len())
	m.Download(tensor.Of(v).Mem.Host, t)
	return v
}

// distance is ‖a−b‖₂/‖b‖₂.
func distance(a, b []float32) float64 {
	if len(a) != len(b) || len(b) == 0 {
		return math.NaN()
	}
	var d, n float64
	for i := range b {
		d += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

const tolerance = 1e-5 // float32 against float64, two blocks deep

func TestLogitsLossAndEveryAdapterGradientAgreeWithTransformers(t *testing.T) {
	for _, name := range goldens {
		for _, method := range []lora.Method{lora.SPLoRA, lora.LoRA} {
			for memory, form := range []string{"reuse", "fused"} {
				t.Run(name+"/"+method.String()+"/"+form, func(t *testing.T) { load(t, name).agrees(t, method, Memory(memory)) })
			}
		}
	}
}

func (g *golden) agrees(t *testing.T, method lora.Method, memory Memory) {
	m := g.model(t, method, nil, Options{Memory: memory})
	b := g.batch()
	worst := map[string]float64{"logits": g.logitsError(t, m, b, method)}
	sum, tokens, err := m.LossGrad(b)
	if err != nil {
		t.Fatal(err)
	}
	want := g.t[method.String()+".loss"].Float32()
	total := 0.0
	for _, v := range want {
		total += float64(v)
	}
	if tokens != len(want) {
		t.Fatalf("%d tokens with a loss, want %d", tokens, len(want))
	}
	worst["loss"] = math.Abs(sum-total) / total
	for i, w := range m.Adapters.Windows {
		A, B := m.Adapters.Of(i, m.Adapters.Grads)
		for kind, d := range map[string]tensor.Tensor{"A": A, "B": B} {
			e := distance(down(m, d), g.t[method.String()+"."+w.Name+".lora_"+kind].Float32())
			if !(e <= tolerance) {
				t.Errorf("d%s of %s: relative error %.1e", kind, w.Name, e)
			}
			short := "d" + kind + " " + w.Name[strings.LastIndex(w.Name, ".")+1:]
			worst["d"+kind] = math.Max(worst["d"+kind], e)
			worst[short] = math.Max(worst[short], e)
		}
	}
	if !(worst["logits"] <= tolerance && worst["loss"] <= tolerance) {
		t.Errorf("logits %.1e, loss %.1e", worst["logits"], worst["loss"])
	}
	t.Logf("%-18s %-6s logits %.1e  loss %.1e  dA ≤ %.1e  dB ≤ %.1e  (%d tensors)", g.name, method, worst["logits"], worst["loss"], worst["dA"], worst["dB"], 2*len(m.Adapters.Windows))
}

// logitsError compares the logits of all rows that are not padding.
func (g *golden) logitsError(t *testing.T, m *Model, b Batch, method lora.Method) float64 {
	t.Helper()
	var rows []int32
	for i, d := range b.Docs {
		if d >= 0 {
			rows = append(rows, int32(i))
		}
	}
	got, err := m.Logits(b, rows)
	if err != nil {
		t.Fatal(err)
	}
	return distance(got, g.t[method.String()+".logits"].Float32())
}
