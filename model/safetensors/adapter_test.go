package safetensors

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/tensor"
)

func sha(t tensor.Tensor) string {
	h := sha256.Sum256(t.Mem.Host)
	return hex.EncodeToString(h[:])
}

func TestAdaptersOfPEFTAreReadWithPEFTsScales(t *testing.T) {
	var golden map[string]map[string]struct {
		Scale float64
		A, B  [2]int
		SHAA  string `json:"sha_a"`
		SHAB  string `json:"sha_b"`
	}
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil || json.Unmarshal(b, &golden) != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lora", "rslora"} {
		a, err := ReadAdapter(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if a.Masked() || len(a.Modules) != len(golden[name]) || len(a.Modules) < 6 {
			t.Errorf("%s: %d modules, masked %v", name, len(a.Modules), a.Masked())
		}
		for _, m := range a.Modules {
			g := golden[name][m.Name]
			if !(math.Abs(m.Scale-g.Scale) <= 1e-12*g.Scale) || [2]int{m.A.Rows, m.A.Cols} != g.A || [2]int{m.B.Rows, m.B.Cols} != g.B || sha(m.A) != g.SHAA || sha(m.B) != g.SHAB {
				t.Errorf("%s: %s: A %v B %v scale %v, want %+v", name, m.Name, m.A, m.B, m.Scale, g)
			}
		}
	}
	if _, err := ReadAdapter("testdata/dora"); err == nil || !strings.Contains(err.Error(), "adapter_config.json: use_dora is not supported") {
		t.Errorf("DoRA: %v", err)
	}
}

func filled(rows, cols int, from float32) tensor.Tensor {
	x := tensor.New(tensor.F32, rows, cols)
	for i := range x.Float32() {
		x.Float32()[i] = from + float32(i)/7
	}
	return x
}

func adapter() Adapter {
	return Adapter{
		Config: NewLoRAConfig("base/model", 3, 7, 0.25, true, []string{"q_proj", "down_proj"}, Splora{Method: "splora", MaskedMerge: true, Base: "abc"}),
		Modules: []Module{
			{Name: "model.layers.0.mlp.down_proj", A: filled(3, 20, 1), B: filled(12, 3, -2)},
			{Name: "model.layers.0.self_attn.q_proj", A: filled(3, 12, 0), B: filled(12, 3, 5)}},
	}
}

// TestAnAdapterSurvivesItsFiles writes to $SPLORA_ADAPTER_OUT if that is set, for `testdata/make.py check`.
func TestAnAdapterSurvivesItsFiles(t *testing.T) {
	dir := t.TempDir()
	if out := os.Getenv("SPLORA_ADAPTER_OUT"); out != "" {
		dir = out
	}
	a := adapter()
	if err := WriteAdapter(dir, a); err != nil {
		t.Fatal(err)
	}
	got, err := ReadAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Masked() || got.Config.Splora == nil || *got.Config.Splora != (Splora{1, "splora", true, "abc"}) || *got.Config.BaseModel != "base/model" || got.Config.Dropout != 0.25 {
		t.Errorf("%+v", got.Config)
	}
	for i, m := range got.Modules {
		w := a.Modules[i]
		if m.Name != w.Name || sha(m.A) != sha(w.A) || sha(m.B) != sha(w.B) || !(math.Abs(m.Scale-7/math.Sqrt(3)) <= 1e-12) {
			t.Errorf("%s: scale %v", m.Name, m.Scale)
		}
	}
	var raw map[string]any
	b, _ := os.ReadFile(filepath.Join(dir, AdapterConfig))
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3.0, "lora_alpha": 7.0, "use_rslora": true, "bias": "none", "fan_in_fan_out": false,
		"inference_mode": true, "sparse_adapter": true, "rank_pattern": map[string]any{}, "alpha_pattern": map[string]any{}, "target_modules": []any{"down_proj", "q_proj"}}
	for k, v := range want {
		if !reflect.DeepEqual(raw[k], v) {
			t.Errorf("%s is %v, want %v", k, raw[k], v)
		}
	}
	f, err := Open(filepath.Join(dir, AdapterFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if x, ok := f.Tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"); !ok || !slices.Equal(x.Shape, []int{3, 12}) || x.DType != F32 {
		t.Errorf("%+v", x.Spec)
	}
}

func TestAnAdapterThatIsNotUnderstoodIsRefusedByName(t *testing.T) {
	for want, change := range map[string]map[string]any{
		`peft_type "IA3" is not supported`:     {"peft_type": "IA3"},
		`bias "all" is not supported`:          {"bias": "all"},
		"fan_in_fan_out is not supported":      {"fan_in_fan_out": true},
		"modules_to_save is not supported":     {"modules_to_save": []string{"lm_head"}},
		"kasa_config is not supported":         {"kasa_config": map[string]any{"beta": 1}},
		`init_lora_weights "pissa_niter_4"`:    {"init_lora_weights": "pissa_niter_4"},
		"r = 0":                                {"r": 0},
		"gives it rank 5":                      {"r": 5},
		"gives it rank 9":                      {"rank_pattern": map[string]any{"q_proj": 9}},
		`"down_proj" and "mlp.down_proj" both`: {"alpha_pattern": map[string]any{"down_proj": 1, "mlp.down_proj": 2}},
		"splora.version 2":                     {"splora": map[string]any{"version": 2}},
		"lora_alpha":                           {"lora_alpha": "x"},
	} {
		dir := t.TempDir()
		if err := WriteAdapter(dir, adapter()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, AdapterConfig)
		b, _ := os.ReadFile(path)
		var m map[string]any
		json.Unmarshal(b, &m)
		for k, v := range change {
			m[k] = v
		}
		b, _ = json.Marshal(m)
		os.WriteFile(path, b, 0o644)
		if _, err := ReadAdapter(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// EVA chooses A and the ranks by the data and leaves the base weights alone; PEFT 0.21.2 saves its settings with the adapter.
func TestAnAdapterThatBeganWithEVAIsRead(t *testing.T) {
	dir := t.TempDir()
	if err := WriteAdapter(dir, adapter()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, AdapterConfig)
	b, _ := os.ReadFile(path)
	eva := `{"init_lora_weights":"eva","eva_config":{"adjust_scaling_factors":true,"label_mask_value":-100,"rho":1.0,"tau":0.99,"use_label_mask":true,"whiten":false},`
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), "{", eva, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAdapter(dir); err != nil {
		t.Error(err)
	}
}

func TestAdapterTensorsThatDoNotBelongAreNamed(t *testing.T) {
	a, b := peftPrefix+"m.lora_A.weight", peftPrefix+"m.lora_B.weight"
	for want, specs := range map[string][]Spec{
		"m has only one of lora_A and lora_B":               {{a, F32, []int{3, 4}}},
		`tensor "base_model.model.m.lora_embedding_A" is`:   {{a, F32, []int{3, 4}}, {b, F32, []int{4, 3}}, {peftPrefix + "m.lora_embedding_A", F32, []int{1}}},
		`lora_A.weight" is I64, which is not supported`:     {{a, "I64", []int{3, 4}}, {b, F32, []int{4, 3}}},
		`lora_A.weight" is I32 [3 4]; want a matrix`:        {{a, I32, []int{3, 4}}, {b, F32, []int{4, 3}}},
		"it holds no lora_A.weight":                         nil,
		`"m.lora_A.weight" is no lora_A.weight`:             {{"m.lora_A.weight", F32, []int{3, 4}}},
		"lora_A is [3,4] and lora_B is [4,2], but the conf": {{a, F32, []int{3, 4}}, {b, F32, []int{4, 2}}},
	} {
		dir := t.TempDir()
		WriteAdapter(dir, adapter())
		zeros(t, filepath.Join(dir, AdapterFile), specs)
		if _, err := ReadAdapter(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	dir := t.TempDir()
	bad := adapter()
	bad.Modules[1].B.Float32()[4] = float32(math.NaN())
	WriteAdapter(dir, bad)
	if _, err := ReadAdapter(dir); err == nil || !strings.Contains(err.Error(), "q_proj.lora_B.weight\" holds NaN at [1,1]") {
		t.Errorf("%v", err)
	}
	if _, err := ReadAdapter(t.TempDir()); err == nil || !strings.Contains(err.Error(), "adapter_config.json: no such file") {
		t.Errorf("%v", err)
	}
}

// zeros writes a file of zeros.
func zeros(t *testing.T, path string, specs []Spec) {
	t.Helper()
	w, err := Create(path, specs, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		w.Write(s.Name, make([]byte, s.Bytes()))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
