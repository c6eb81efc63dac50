package safetensors

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/splora/splora/model/tensor"
)

// Names of PEFT's two files.
const (
	AdapterFile   = "adapter_model.safetensors"
	AdapterConfig = "adapter_config.json"
)

const peftPrefix, suffixA, suffixB = "base_model.model.", ".lora_A.weight", ".lora_B.weight"

// Splora is our own part of adapter_config.json. Stock PEFT does not know it: it warns, and computes a dense LoRA.
type Splora struct {
	Version int    `json:"version"` // 1
	Method  string `json:"method"`  // "splora" or "lora"
	// MaskedMerge says that the adapter is M ⊙ (W + s·B·A) and must be merged under the mask.
	MaskedMerge bool `json:"masked_merge"`
	// Base is the identity of the base model that it was trained on (family's Folder.Hash), "" if unknown.
	Base string `json:"base,omitempty"`
}

// LoRAConfig is adapter_config.json as PEFT writes and reads it.
type LoRAConfig struct {
	PeftType      string             `json:"peft_type"`
	TaskType      *string            `json:"task_type"`
	BaseModel     *string            `json:"base_model_name_or_path"`
	R             int                `json:"r"`
	Alpha         float64            `json:"lora_alpha"`
	Dropout       float64            `json:"lora_dropout"`
	RSLoRA        bool               `json:"use_rslora"`
	TargetModules any                `json:"target_modules"`
	Bias          string             `json:"bias"`
	FanInFanOut   bool               `json:"fan_in_fan_out"`
	InferenceMode bool               `json:"inference_mode"`
	RankPattern   map[string]int     `json:"rank_pattern"`
	AlphaPattern  map[string]float64 `json:"alpha_pattern"`
	// SparseAdapter is the marker (SQFT's key) of an adapter that must be merged under the mask.
	SparseAdapter bool    `json:"sparse_adapter"`
	Splora        *Splora `json:"splora,omitempty"`
}

// Module is one adapted linear: ΔW = Scale·B·A.
type Module struct {
	Name  string        // "model.layers.0.self_attn.q_proj"
	A, B  tensor.Tensor // F32 host, [r,in] and [out,r]
	Scale float64       // α/r, or α/√r (rsLoRA)
}

// Adapter is a PEFT adapter of linear layers; Modules are sorted by name.
type Adapter struct {
	Config  LoRAConfig
	Modules []Module
}

// Masked reports whether the adapter must be merged under the base model's mask.
func (a *Adapter) Masked() bool { return a.Config.SparseAdapter }

// NewLoRAConfig is a config with PEFT's fixed values filled in.
func NewLoRAConfig(base string, r int, alpha, dropout float64, rslora bool, targets []string, own Splora) LoRAConfig {
	task := "CAUSAL_LM"
	own.Version = 1
	targets = slices.Sorted(slices.Values(targets))
	return LoRAConfig{PeftType: "LORA", TaskType: &task, BaseModel: &base, R: r, Alpha: alpha, Dropout: dropout, RSLoRA: rslora,
		TargetModules: targets, Bias: "none", InferenceMode: true, RankPattern: map[string]int{}, AlphaPattern: map[string]float64{},
		SparseAdapter: own.MaskedMerge, Splora: &own}
}

// WriteAdapter writes dir/adapter_model.safetensors and then dir/adapter_config.json, each one atomically; dir exists. Scale of
// the modules is not written: it follows from the config.
func WriteAdapter(dir string, a Adapter) error {
	var specs []Spec
	for _, m := range a.Modules {
		specs = append(specs,
			Spec{peftPrefix + m.Name + suffixA, F32, []int{m.A.Rows, m.A.Cols}},
			Spec{peftPrefix + m.Name + suffixB, F32, []int{m.B.Rows, m.B.Cols}})
	}
	w, err := Create(filepath.Join(dir, AdapterFile), specs, map[string]string{"format": "pt"}, 0)
	if err != nil {
		return err
	}
	for _, m := range a.Modules {
		if w.Write(peftPrefix+m.Name+suffixA, m.A.Mem.Host) != nil || w.Write(peftPrefix+m.Name+suffixB, m.B.Mem.Host) != nil {
			break // Close reports it
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(a.Config, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, AdapterConfig), append(b, '\n'))
}

// ReadAdapter reads an adapter of ours or of PEFT's into memory. What it holds beyond LoRA on linear layers (DoRA, biases, whole
// modules, adapted embeddings, initialisations that change the base weights) is refused by name.
func ReadAdapter(dir string) (*Adapter, error) {
	path := filepath.Join(dir, AdapterConfig)
	c, err := readLoRAConfig(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	f, err := Open(filepath.Join(dir, AdapterFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &Adapter{Config: *c}
	if err := a.read(f); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", f.Path, err)
	}
	return a, nil
}

func readLoRAConfig(path string) (*LoRAConfig, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err.(*os.PathError).Err
	}
	if err := noDuplicates(b); err != nil {
		return nil, err
	}
	c := &LoRAConfig{Bias: "none", Alpha: 8, R: 8}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	return c, c.validate(all)
}

// validate refuses what would change the meaning of A and B.
func (c *LoRAConfig) validate(all map[string]any) error {
	switch {
	case c.PeftType != "LORA":
		return fmt.Errorf("peft_type %q is not supported, only LORA", c.PeftType)
	case c.R < 1:
		return fmt.Errorf("r = %d; the rank must be at least 1", c.R)
	case math.IsNaN(c.Alpha) || math.IsInf(c.Alpha, 0):
		return fmt.Errorf("lora_alpha = %v", c.Alpha)
	case c.Bias != "none":
		return fmt.Errorf("bias %q is not supported, only none", c.Bias)
	case c.FanInFanOut:
		return errors.New("fan_in_fan_out is not supported")
	case c.Splora != nil && c.Splora.Version != 1:
		return fmt.Errorf("splora.version %d is not known to this program", c.Splora.Version)
	}
	refused := []string{"use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens"}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		config := strings.HasSuffix(key, "_config") && key != "eva_config" // how A began, no more
		if (slices.Contains(refused, key) || config) && !empty(all[key]) {
			return fmt.Errorf("%s is not supported", key)
		}
	}
	if s, ok := all["init_lora_weights"].(string); ok && !slices.Contains([]string{"gaussian", "orthogonal", "eva", "true", "false"}, s) {
		return fmt.Errorf("init_lora_weights %q changes the base weights, which is not supported; convert the adapter with PEFT (path_initial_model_for_weight_conversion)", s)
	}
	return nil
}

// empty reports JSON's ways to say no.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func (a *Adapter) read(f *File) error {
	pairs := map[string]*Module{}
	for _, t := range f.Tensors() {
		name, ok := strings.CutPrefix(t.Name, peftPrefix)
		base, isA := strings.CutSuffix(name, suffixA)
		if !isA {
			var isB bool
			base, isB = strings.CutSuffix(name, suffixB)
			ok = ok && isB
		}
		if !ok {
			return fmt.Errorf("tensor %q is no lora_A.weight or lora_B.weight of a linear layer; such adapters are not supported", t.Name)
		}
		x, err := wide(t)
		if err != nil {
			return err
		}
		m := pairs[base]
		if m == nil {
			m = &Module{Name: base}
			pairs[base] = m
		}
		if isA {
			m.A = x
		} else {
			m.B = x
		}
	}
	for _, m := range pairs {
		if err := a.Config.fit(m); err != nil {
			return err
		}
		a.Modules = append(a.Modules, *m)
	}
	if len(pairs) == 0 {
		return errors.New("it holds no lora_A.weight")
	}
	slices.SortFunc(a.Modules, func(x, y Module) int { return cmp.Compare(x.Name, y.Name) })
	return nil
}

// wide is a matrix as F32 in memory of its own; it must be finite.
func wide(t Tensor) (tensor.Tensor, error) {
	m, err := t.Matrix()
	if err != nil {
		return m, err
	}
	if len(t.Shape) != 2 || m.DType == tensor.I32 || m.DType == tensor.U8 {
		return m, fmt.Errorf("tensor %q is %s %v; want a matrix of F32, BF16 or F16", t.Name, t.DType, t.Shape)
	}
	x := tensor.New(tensor.F32, m.Rows, m.Cols)
	tensor.Widen(x.Float32(), m)
	for i, v := range x.Float32() {
		if v-v != 0 {
			return x, fmt.Errorf("tensor %q holds %v at [%d,%d]", t.Name, v, i/m.Cols, i%m.Cols)
		}
	}
	return x, nil
}

// fit checks a pair against the config and sets its scale.
func (c *LoRAConfig) fit(m *Module) error {
	if m.A.Absent() || m.B.Absent() {
		return fmt.Errorf("%s has only one of lora_A and lora_B", m.Name)
	}
	r, err := pattern(c.RankPattern, "rank_pattern", m.Name, c.R)
	if err != nil {
		return err
	}
	alpha, err := pattern(c.AlphaPattern, "alpha_pattern", m.Name, c.Alpha)
	if err != nil {
		return err
	}
	if m.A.Rows != r || m.B.Cols != r {
		return fmt.Errorf("%s: lora_A is [%d,%d] and lora_B is [%d,%d], but the config gives it rank %d", m.Name, m.A.Rows, m.A.Cols, m.B.Rows, m.B.Cols, r)
	}
	m.Scale = c.scale(alpha, r)
	return nil
}

// Scale is s of the modules that no pattern is for.
func (c *LoRAConfig) Scale() float64 { return c.scale(c.Alpha, c.R) }

func (c *LoRAConfig) scale(alpha float64, r int) float64 {
	if c.RSLoRA {
		return alpha / math.Sqrt(float64(r))
	}
	return alpha / float64(r)
}

// pattern is the value that rank_pattern or alpha_pattern gives a module: PEFT matches ^(.*\.)?KEY$, the first key wins; keys
// that match and disagree are refused, for JSON objects have no order.
func pattern[V int | float64](p map[string]V, field, name string, def V) (V, error) {
	v, by := def, ""
	for key, x := range p {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + key + `)$`)
		if err != nil {
			return v, fmt.Errorf("%s: %q: %w", field, key, err)
		}
		if !re.MatchString(name) {
			continue
		}
		if by != "" && x != v {
			return v, fmt.Errorf("%s: %q and %q both match %s", field, min(by, key), max(by, key), name)
		}
		v, by = x, key
	}
	return v, nil
}
