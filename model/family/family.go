// Package family is what makes a folder of files a model.
//
//	config.json + *.safetensors + mask.safetensors   →   decoder.Config + decoder.Resident (packed)
//
// A family (LLaMA, Mistral, Qwen2, Qwen3: one file each) is a reading of config.json; the names of tensors are the same
// for all. A folder is Hugging Face's, or packed: our own form, which is mapped as it stands (packed.go). Masks come from
// mask.safetensors; a folder without one has M = (W ≠ 0), and Notes says so.
package family

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/tensor"
)

// Architecture is what a config.json says.
type Architecture struct {
	Name   string // "LlamaForCausalLM"
	Config decoder.Config
	// DType is what torch_dtype or dtype names (F32 if nothing does); the files decide what is stored.
	DType tensor.DType
	// Notes are things in the file that have no effect here, for the log.
	Notes []string
}

// family is one reading of config.json. read is called before the common part is read and sets the defaults that differ.
type family struct {
	architecture, modelType string
	read                    func(f *fields, c *decoder.Config)
}

func families() []family {
	return []family{
		{"LlamaForCausalLM", "llama", llama},
		{"MistralForCausalLM", "mistral", mistral},
		{"Qwen2ForCausalLM", "qwen2", qwen2},
		{"Qwen3ForCausalLM", "qwen3", qwen3},
	}
}

// Known are the architectures that are read.
func Known() []string {
	var names []string
	for _, f := range families() {
		names = append(names, f.architecture)
	}
	return names
}

// ReadConfig reads a config.json file.
func ReadConfig(path string) (Architecture, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Architecture{}, fmt.Errorf("family: %w", err)
	}
	a, err := ParseConfig(b)
	if err != nil {
		return a, fmt.Errorf("family: %s: %w", path, err)
	}
	return a, nil
}

// ParseConfig reads the text of a config.json, as transformers 4 or 5 writes it. What would change the model and is not
// supported is refused by name.
func ParseConfig(text []byte) (Architecture, error) {
	f := &fields{}
	if err := json.Unmarshal(text, &f.m); err != nil {
		return Architecture{}, fmt.Errorf("it is no JSON object: %w", err)
	}
	fam, err := f.family()
	if err != nil {
		return Architecture{}, err
	}
	a := Architecture{Name: fam.architecture}
	a.Config = decoder.Config{KVHeads: -1, HeadDim: -1}
	fam.read(f, &a.Config)
	f.common(&a)
	if f.err == nil {
		f.err = check(a.Config)
	}
	a.Notes = f.notes
	return a, f.err
}

// family finds the family by "architectures", or by "model_type" where that is absent, as in a config that never was a model's.
func (f *fields) family() (family, error) {
	var names []string
	f.get("architectures", &names)
	kind := f.text("model_type", "")
	if f.err != nil {
		return family{}, f.err
	}
	for _, fam := range families() {
		named := slices.Contains(names, fam.architecture)
		if named && kind != "" && kind != fam.modelType {
			return family{}, fmt.Errorf("architectures says %s, whose model_type is %q, and model_type says %q: correct the one that is wrong", fam.architecture, fam.modelType, kind)
		}
		if named || len(names) == 0 && kind == fam.modelType {
			return fam, nil
		}
	}
	known := strings.Join(Known(), ", ")
	if len(names) == 0 && kind == "" {
		return family{}, fmt.Errorf("neither architectures nor model_type is there; known architectures: %s", known)
	}
	if len(names) == 0 {
		return family{}, fmt.Errorf("unknown model_type %q; known architectures: %s", kind, known)
	}
	return family{}, fmt.Errorf("unknown architecture %s; known: %s", strings.Join(names, ", "), known)
}

// Names of tensors outside of the blocks.
const (
	embedName = "model.embed_tokens.weight"
	normName  = "model.norm.weight"
	headName  = "lm_head.weight"
)

// linears are the module paths inside of a block, in decoder.Linears' order.
var linears = [7]string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}

// LinearName is the module path of linear k (decoder.Q … decoder.Down) of a block: "model.layers.0.self_attn.q_proj".
func LinearName(block, k int) string { return fmt.Sprintf("model.layers.%d.%s", block, linears[k]) }

// LinearNames are the module paths of all blocks' linears, block by block.
func LinearNames(c decoder.Config) []string {
	var names []string
	for i := range c.Layers {
		for k := range linears {
			names = append(names, LinearName(i, k))
		}
	}
	return names
}

// param is one tensor that the architecture has.
type param struct {
	name  string
	shape []int
}

// others are all parameters but the blocks' linear weights, in the model's order.
func others(c decoder.Config) []param {
	ps := []param{{embedName, []int{c.Vocab, c.Hidden}}}
	for i := range c.Layers {
		at := fmt.Sprintf("model.layers.%d.", i)
		ps = append(ps, param{at + "input_layernorm.weight", []int{c.Hidden}}, param{at + "post_attention_layernorm.weight", []int{c.Hidden}})
		if c.QKNorm {
			ps = append(ps, param{at + "self_attn.q_norm.weight", []int{c.HeadDim}}, param{at + "self_attn.k_norm.weight", []int{c.HeadDim}})
		}
		for k, has := range c.Bias {
			if has {
				out, _ := c.Shape(k)
				ps = append(ps, param{LinearName(i, k) + ".bias", []int{out}})
			}
		}
	}
	ps = append(ps, param{normName, []int{c.Hidden}})
	if !c.Tied {
		ps = append(ps, param{headName, []int{c.Vocab, c.Hidden}})
	}
	return ps
}

// configPath is the config.json of a folder.
func configPath(dir string) string { return filepath.Join(dir, "config.json") }

// readConfigText is the bytes of dir/config.json.
func readConfigText(dir string) ([]byte, error) {
	b, err := os.ReadFile(configPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("family: %s holds no config.json; a model is a folder as Hugging Face saves it, or a packed one", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("family: %w", err)
	}
	return b, nil
}
