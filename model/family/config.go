package family

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/tensor"
)

// fields are the values of a config.json; the first error sticks.
type fields struct {
	m     map[string]json.RawMessage
	at    string // "rope_scaling." inside of an object
	err   error
	notes []string
}

// get sets dst from a field and reports whether it is there and not null.
func (f *fields) get(key string, dst any) bool {
	v, ok := f.m[key]
	if !ok || string(v) == "null" {
		return false
	}
	if err := json.Unmarshal(v, dst); err != nil {
		f.fail("%s%s is %.40s: %w", f.at, key, v, err)
		return false
	}
	return true
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// null reports a field that is there and null.
func (f *fields) null(key string) bool { return string(f.m[key]) == "null" }

// given reports a field that is there and not null.
func (f *fields) given(key string) bool { return f.m[key] != nil && !f.null(key) }

func (f *fields) text(key, def string) string {
	f.get(key, &def)
	return def
}

func (f *fields) flag(key string, def bool) bool {
	f.get(key, &def)
	return def
}

func (f *fields) real(key string, def float64) float64 {
	f.get(key, &def)
	return def
}

func (f *fields) count(key string, def int) int {
	f.get(key, &def)
	return def
}

// size is a number that must be there.
func (f *fields) size(key string) int {
	n := 0
	if !f.get(key, &n) {
		f.fail("%s is missing", key)
	}
	return n
}

// object is an object's fields.
func (f *fields) object(key string) (*fields, bool) {
	o := &fields{at: f.at + key + "."}
	ok := f.get(key, &o.m)
	return o, ok
}

// common reads what all families share.
func (f *fields) common(a *Architecture) {
	c := &a.Config
	c.Vocab, c.Hidden, c.Inter = f.size("vocab_size"), f.size("hidden_size"), f.size("intermediate_size")
	c.Layers, c.Heads = f.size("num_hidden_layers"), f.size("num_attention_heads")
	c.KVHeads = f.count("num_key_value_heads", c.KVHeads)
	if c.KVHeads < 0 && !f.given("num_key_value_heads") || f.null("num_key_value_heads") {
		c.KVHeads = c.Heads
	}
	c.HeadDim = f.count("head_dim", c.HeadDim)
	if c.HeadDim < 0 && !f.given("head_dim") && c.Heads > 0 {
		if c.Hidden%c.Heads != 0 {
			f.fail("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is not given", c.Hidden, c.Heads)
		}
		c.HeadDim = c.Hidden / c.Heads
	}
	c.MaxPositions = f.count("max_position_embeddings", c.MaxPositions)
	c.Eps = float32(f.real("rms_norm_eps", 1e-6))
	c.Tied = f.flag("tie_word_embeddings", false)
	f.activation(c)
	f.rope(c)
	f.refuse()
	a.DType = f.dtype()
	if p := f.real("attention_dropout", 0); p != 0 {
		f.notes = append(f.notes, fmt.Sprintf("config.json: attention_dropout %v is not applied", p))
	}
}

func (f *fields) activation(c *decoder.Config) {
	switch act := f.text("hidden_act", "silu"); act {
	case "silu", "swish":
		c.Act = compute.SiLU
	default:
		f.fail("hidden_act %q is not supported; known: silu", act)
	}
}

// dtype is dtype (transformers 5) or torch_dtype (transformers 4).
func (f *fields) dtype() tensor.DType {
	name := f.text("dtype", f.text("torch_dtype", "float32"))
	t, err := ParseDType(name)
	if err != nil {
		f.fail("dtype: %w", err)
	}
	return t
}

// ParseDType reads float32, bfloat16 or float16.
func ParseDType(name string) (tensor.DType, error) {
	for _, t := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F16} {
		if name == t.String() {
			return t, nil
		}
	}
	return tensor.F32, fmt.Errorf("%q is not supported; known: float32, bfloat16, float16", name)
}

// refuse names what would change the model.
func (f *fields) refuse() {
	if v, ok := f.m["quantization_config"]; ok && !f.null("quantization_config") {
		var q struct {
			Method string `json:"quant_method"`
		}
		_ = json.Unmarshal(v, &q) // only for the message
		f.fail("quantization_config (quant_method %q): quantised weights are not supported; use the model in float32, float16 or bfloat16", q.Method)
	}
	if p := f.real("partial_rotary_factor", 1); p != 1 {
		f.fail("partial_rotary_factor %v is not supported", p)
	}
	if f.flag("is_encoder_decoder", false) {
		f.fail("is_encoder_decoder is not supported")
	}
}

// agree refuses rope_parameters and rope_scaling of different kinds, or with different values.
func (f *fields) agree(parameters, scaling *fields) {
	if a, b := ropeKind(parameters), ropeKind(scaling); a != b {
		f.fail("rope_parameters and rope_scaling disagree: %q and %q", a, b)
	}
	for _, key := range slices.Sorted(maps.Keys(scaling.m)) {
		var a, b any
		parameters.get(key, &a)
		scaling.get(key, &b)
		if key != "type" && key != "rope_type" && !reflect.DeepEqual(a, b) {
			f.fail("rope_parameters and rope_scaling disagree in %s: %v and %v", key, a, b)
		}
	}
}

// rope reads rope_parameters (transformers 5) or rope_theta and rope_scaling (transformers 4).
func (f *fields) rope(c *decoder.Config) {
	theta := f.real("rope_theta", 10000)
	o, ok := f.object("rope_parameters")
	if s, old := f.object("rope_scaling"); old {
		if ok && len(o.m) > 0 && len(s.m) > 0 {
			f.agree(o, s)
		}
		if !ok || len(o.m) == 0 {
			o, ok = s, true
		}
	}
	c.Rope = decoder.Rope{Theta: o.real("rope_theta", theta), Scaling: ropeKind(o)}
	if p := o.real("partial_rotary_factor", 1); p != 1 {
		f.fail("%spartial_rotary_factor %v is not supported", o.at, p)
	}
	for key, v := range o.m {
		if len(v) > 0 && v[0] == '{' {
			f.fail("%s%s: rotary parameters that differ by layer are not supported", o.at, key)
		}
	}
	switch r := &c.Rope; r.Scaling {
	case "default":
		r.Scaling = ""
	case "linear":
		r.Factor = o.positive("factor")
	case "llama3":
		r.Factor = o.positive("factor")
		r.LowFreqFactor, r.HighFreqFactor = o.positive("low_freq_factor"), o.positive("high_freq_factor")
		r.OriginalMaxPositions = o.count("original_max_position_embeddings", f.count("original_max_position_embeddings", c.MaxPositions))
		if o.err == nil && (r.HighFreqFactor <= r.LowFreqFactor || r.OriginalMaxPositions < 1) {
			f.fail("%slow_freq_factor %v, high_freq_factor %v, original_max_position_embeddings %d: want low < high and a positive length", o.at, r.LowFreqFactor, r.HighFreqFactor, r.OriginalMaxPositions)
		}
	default:
		f.fail("rope type %q is not supported; known: default, linear, llama3", r.Scaling)
	}
	if o.err != nil {
		f.fail("%w", o.err)
	}
	for _, t := range []float64{theta, c.Rope.Theta} { // the one in rope_parameters goes before the other, which must make sense all the same
		if !(t > 0) || math.IsInf(t, 0) {
			f.fail("rope_theta is %v", t)
		}
	}
}

// ropeKind is rope_type, or type as older configs say.
func ropeKind(o *fields) string { return o.text("rope_type", o.text("type", "default")) }

// positive is a number > 0 that must be there.
func (f *fields) positive(key string) float64 {
	x := f.real(key, 0)
	if !(x > 0) || math.IsInf(x, 0) {
		f.fail("%s%s is %v; it must be there and positive", f.at, key, x)
	}
	return x
}

// window is a layer's sliding window: full attention where none is set.
func (f *fields) window(def int) int {
	if f.null("sliding_window") {
		return 0
	}
	w := f.count("sliding_window", def)
	if w < 1 {
		f.fail("sliding_window is %d; it must be positive, or null for full attention", w)
	}
	return w
}

// qwenWindows is layer_types, or use_sliding_window with max_window_layers: the layers from that number on have the window.
func (f *fields) qwenWindows() []int {
	w := 0
	if f.flag("use_sliding_window", false) {
		w = f.window(4096)
	}
	var types []string
	layers, from := f.count("num_hidden_layers", 0), f.count("max_window_layers", 28)
	if layers < 0 || layers > maxLayers {
		return nil // check refuses it
	}
	if !f.get("layer_types", &types) {
		for i := range layers {
			types = append(types, map[bool]string{true: "sliding_attention", false: "full_attention"}[w > 0 && i >= from])
		}
	}
	if len(types) != layers {
		f.fail("layer_types has %d entries for %d layers", len(types), layers)
	}
	windows := make([]int, len(types))
	for i, t := range types {
		switch {
		case t == "sliding_attention" && w > 0:
			windows[i] = w
		case t == "sliding_attention":
			f.fail("layer_types[%d] is sliding_attention, but use_sliding_window is off or sliding_window is null", i)
		case t != "full_attention":
			f.fail("layer_types[%d] is %q, which is not supported; known: full_attention, sliding_attention", i, t)
		}
	}
	if !slices.ContainsFunc(windows, func(w int) bool { return w > 0 }) {
		return nil
	}
	return windows
}

// only refuses layer_types other than kind, for families whose layers are all alike.
func (f *fields) only(kind string) {
	var types []string
	f.get("layer_types", &types)
	for i, t := range types {
		if t != kind {
			f.fail("layer_types[%d] is %q; this architecture has %s in every layer", i, t, kind)
		}
	}
}

// Limits of what a config may claim, so that sizes cannot overflow.
const maxLayers, maxSize = 4096, 1 << 24

// check refuses sizes that no model has.
func check(c decoder.Config) error {
	for _, v := range []struct {
		name string
		n    int
		max  int
	}{{"vocab_size", c.Vocab, maxSize}, {"hidden_size", c.Hidden, maxSize}, {"intermediate_size", c.Inter, maxSize},
		{"num_hidden_layers", c.Layers, maxLayers}, {"num_attention_heads", c.Heads, 1 << 16}, {"num_key_value_heads", c.KVHeads, 1 << 16},
		{"head_dim", c.HeadDim, 1 << 16}, {"max_position_embeddings", c.MaxPositions, 1 << 30}} {
		if v.n < 1 || v.n > v.max {
			return fmt.Errorf("%s is %d; it must be from 1 to %d", v.name, v.n, v.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads %d is no multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim is %d; the rotation needs an even one", c.HeadDim)
	case c.Heads*c.HeadDim > maxSize:
		return fmt.Errorf("num_attention_heads × head_dim is %d, at most %d", c.Heads*c.HeadDim, maxSize)
	case !(c.Eps >= 0) || c.Eps > 1:
		return fmt.Errorf("rms_norm_eps is %v", c.Eps)
	}
	return nil
}
