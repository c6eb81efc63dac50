package family

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/splora/splora/model/tensor"
)

// llamaConfig is a config.json with some fields changed; a nil value removes the field.
func llamaConfig(change map[string]any) []byte {
	m := map[string]any{"architectures": []string{"LlamaForCausalLM"}, "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24,
		"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
	maps.Copy(m, change)
	for k, v := range m {
		if v == nil {
			delete(m, k)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

type obj = map[string]any

func TestSizesThatAreNullAreThoseThatFollow(t *testing.T) {
	a, err := ParseConfig(llamaConfig(obj{"head_dim": json.RawMessage("null"), "num_key_value_heads": json.RawMessage("null")}))
	if err != nil || a.Config.HeadDim != 4 || a.Config.KVHeads != 4 {
		t.Errorf("%+v, %v", a.Config, err)
	}
}

func TestRotaryParametersMayBeSaidTwice(t *testing.T) {
	a, err := ParseConfig(llamaConfig(obj{"rope_parameters": obj{"rope_type": "linear", "factor": 4, "rope_theta": 5e5}, "rope_scaling": obj{"type": "linear", "factor": 4.0}}))
	if r := a.Config.Rope; err != nil || r.Scaling != "linear" || r.Factor != 4 || r.Theta != 5e5 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatIsNotSupportedIsRefusedByName(t *testing.T) {
	for want, change := range map[string]obj{
		"unknown architecture GPT2LMHeadModel; known: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM": {"architectures": []string{"GPT2LMHeadModel"}},
		"unknown architecture Qwen3MoeForCausalLM":                {"architectures": []string{"Qwen3MoeForCausalLM"}, "model_type": "llama"},
		`unknown model_type "gemma3"`:                             {"architectures": nil, "model_type": "gemma3"},
		"neither architectures nor model_type":                    {"architectures": nil},
		`rope type "yarn" is not supported`:                       {"rope_scaling": obj{"rope_type": "yarn", "factor": 4.0}},
		`rope type "dynamic" is not supported`:                    {"rope_scaling": obj{"type": "dynamic", "factor": 4.0}},
		`rope type "longrope" is not supported`:                   {"rope_parameters": obj{"rope_type": "longrope", "factor": 4.0}},
		"rope_parameters and rope_scaling disagree":               {"rope_parameters": obj{"rope_type": "default"}, "rope_scaling": obj{"type": "linear", "factor": 2}},
		"rope_parameters and rope_scaling disagree in factor":     {"rope_parameters": obj{"rope_type": "linear", "factor": 4}, "rope_scaling": obj{"type": "linear", "factor": 2}},
		`model_type says "mistral"`:                               {"model_type": "mistral"},
		"num_key_value_heads is -2":                               {"num_key_value_heads": -2},
		"head_dim is -2":                                          {"head_dim": -2},
		"rope_parameters.full_attention: rotary parameters that":  {"rope_parameters": obj{"full_attention": obj{"rope_type": "default"}}},
		"rope_scaling.factor is 0":                                {"rope_scaling": obj{"type": "linear"}},
		"rope_scaling.low_freq_factor is 0":                       {"rope_scaling": obj{"rope_type": "llama3", "factor": 8}},
		"want low < high":                                         {"rope_scaling": obj{"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}},
		"rope_theta is -1":                                        {"rope_theta": -1},
		"rope_theta is -2":                                        {"rope_theta": -2, "rope_parameters": obj{"rope_theta": 1e4}},
		"partial_rotary_factor 0.5 is not supported":              {"partial_rotary_factor": 0.5},
		"rope_parameters.partial_rotary_factor 0.25":              {"rope_parameters": obj{"partial_rotary_factor": 0.25}},
		`hidden_act "gelu" is not supported; known: silu`:         {"hidden_act": "gelu"},
		`quant_method "awq"`:                                      {"quantization_config": obj{"quant_method": "awq"}},
		`dtype: "float8_e4m3fn" is not supported`:                 {"torch_dtype": "float8_e4m3fn"},
		"hidden_size is missing":                                  {"hidden_size": nil},
		"num_hidden_layers is 0":                                  {"num_hidden_layers": 0},
		"num_hidden_layers is 1000000":                            {"num_hidden_layers": 1000000},
		"vocab_size is -5":                                        {"vocab_size": -5},
		`hidden_size is "16"`:                                     {"hidden_size": "16"},
		"head_dim is 3; the rotation needs an even one":           {"head_dim": 3},
		"no multiple of num_key_value_heads 3":                    {"num_key_value_heads": 3},
		"num_key_value_heads is 0":                                {"num_key_value_heads": 0},
		"hidden_size 18 is no multiple of num_attention_heads 4":  {"hidden_size": 18},
		"rms_norm_eps is -1":                                      {"rms_norm_eps": -1},
		"max_position_embeddings is 0":                            {"max_position_embeddings": 0},
		`layer_types[0] is "chunked_attention"`:                   {"layer_types": []string{"chunked_attention"}},
		"sliding_window is 0; it must be positive, or null":       {"architectures": []string{"MistralForCausalLM"}, "sliding_window": 0},
		"layer_types has 2 entries for 1 layers":                  {"architectures": []string{"Qwen2ForCausalLM"}, "layer_types": []string{"full_attention", "full_attention"}},
		"layer_types[0] is sliding_attention, but":                {"architectures": []string{"Qwen3ForCausalLM"}, "layer_types": []string{"sliding_attention"}},
		`layer_types[0] is "linear_attention", which is not supp`: {"architectures": []string{"Qwen3ForCausalLM"}, "layer_types": []string{"linear_attention"}},
		"is_encoder_decoder is not supported":                     {"is_encoder_decoder": true},
	} {
		if a, err := ParseConfig(llamaConfig(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v gives %v; want %q (%+v)", change, err, want, a.Config)
		}
	}
	for _, text := range []string{"", "[]", "null", "{", `{"architectures": "LlamaForCausalLM"}`} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if _, err := ParseConfig(llamaConfig(nil)); err != nil {
		t.Error(err)
	}
}

func TestTheStorageTypeIsReadInBothSpellings(t *testing.T) {
	for _, c := range []struct {
		change obj
		want   tensor.DType
	}{{nil, tensor.F32}, {obj{"torch_dtype": "bfloat16"}, tensor.BF16}, {obj{"dtype": "float16"}, tensor.F16}, {obj{"dtype": nil, "torch_dtype": "float16"}, tensor.F16}} {
		if a, err := ParseConfig(llamaConfig(c.change)); err != nil || a.DType != c.want {
			t.Errorf("%v: %v %v", c.change, a.DType, err)
		}
	}
}

func TestDropoutInTheConfigIsNoted(t *testing.T) {
	a, err := ParseConfig(llamaConfig(obj{"attention_dropout": 0.1}))
	if err != nil || len(a.Notes) != 1 || !strings.Contains(a.Notes[0], "attention_dropout") {
		t.Errorf("%v %v", a.Notes, err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(llamaConfig(nil))
	f.Add(llamaConfig(obj{"architectures": []string{"Qwen3ForCausalLM"}, "layer_types": []string{"full_attention"}, "rope_scaling": obj{"type": "linear", "factor": 2}}))
	f.Add([]byte(`{"model_type":"mistral","sliding_window":null,"rope_parameters":{"a":{}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := ParseConfig(text)
		if err != nil {
			return
		}
		c := a.Config
		if c.Layers < 1 || c.Heads%c.KVHeads != 0 || c.HeadDim%2 != 0 || c.Windows != nil && len(c.Windows) != c.Layers {
			t.Fatalf("accepted: %+v", c)
		}
		if c.Layers < 64 && len(others(c)) < 4 {
			t.Fatal("no parameters")
		}
	})
}
