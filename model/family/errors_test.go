package family

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/safetensors"
)

// edit copies a folder, with its one weight file (stem) written again under change, which gets every tensor and returns nil
// to drop it.
func edit(t *testing.T, src *Folder, stem string, change func(x *safetensors.Tensor) *safetensors.Tensor) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "edited")
	if err := os.CopyFS(dir, os.DirFS(src.Dir)); err != nil {
		t.Fatal(err)
	}
	f := src.weights.Files[0]
	if stem == "mask" {
		f = src.masks.File()
	}
	var specs []safetensors.Spec
	data := map[string][]byte{}
	for _, x := range f.Tensors() {
		x.Data = slices.Clone(x.Data)
		if strings.HasPrefix(x.Name, "__pad__") {
			continue
		}
		if y := change(&x); y != nil {
			specs, data[y.Name] = append(specs, y.Spec), y.Data
		}
	}
	w, err := safetensors.Create(filepath.Join(dir, stem+".safetensors"), specs, f.Metadata, 0)
	if err != nil {
		t.Fatal(err)
	}
	for n, b := range data {
		w.Write(n, b)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// on changes the named tensor only.
func on(name string, f func(x *safetensors.Tensor) *safetensors.Tensor) func(*safetensors.Tensor) *safetensors.Tensor {
	return func(x *safetensors.Tensor) *safetensors.Tensor {
		if x.Name == name {
			return f(x)
		}
		return x
	}
}

// put sets bytes of a tensor.
func put(at int, b ...byte) func(x *safetensors.Tensor) *safetensors.Tensor {
	return func(x *safetensors.Tensor) *safetensors.Tensor {
		copy(x.Data[at:], b)
		return x
	}
}

func drop(*safetensors.Tensor) *safetensors.Tensor { return nil }

func rename(to string) func(x *safetensors.Tensor) *safetensors.Tensor {
	return func(x *safetensors.Tensor) *safetensors.Tensor { x.Name = to; return x }
}

func reshape(dt safetensors.DType, shape ...int) func(x *safetensors.Tensor) *safetensors.Tensor {
	return func(x *safetensors.Tensor) *safetensors.Tensor { x.DType, x.Shape = dt, shape; return x }
}

// load opens and loads a folder.
func load(dir string) error {
	f, err := Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Load()
	return err
}

func refused(t *testing.T, dir string, want ...string) {
	t.Helper()
	err := load(dir)
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v\nwant %q", err, w)
		}
	}
}

const q0, up1 = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"

func TestAWrongTensorIsNamedWithItsFile(t *testing.T) {
	f := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16"})
	for _, c := range []struct {
		change func(*safetensors.Tensor) *safetensors.Tensor
		want   []string
	}{
		{on(q0+".weight", drop), []string{`tensor "` + q0 + `.weight" is missing`, "edited", "LlamaForCausalLM", "[40 44]"}},
		{on(q0+".bias", drop), []string{`tensor "` + q0 + `.bias" is missing`}},
		{on("lm_head.weight", drop), []string{`tensor "lm_head.weight" is missing`}},
		{on(up1+".weight", reshape("BF16", 44, 266)), []string{"model.safetensors", `"` + up1 + `.weight" has the shape [44 266], config.json wants [266 44]`}},
		{on(normName, reshape("BF16", 1, 44)), []string{`"model.norm.weight" has the shape [1 44], config.json wants [44]`}},
		{on(q0+".weight", reshape("I16", 40, 44)), []string{`"` + q0 + `.weight" is I16; known: F32, F16, BF16`}},
		{on(q0+".bias", rename("model.layers.0.self_attn.q_proj.scale")), []string{"is missing"}},
		{on(q0+".weight", put(0, 0xc0, 0x7f)), []string{"the mask of " + q0, "prune again"}},
		{on(embedName, put(2*(44*3+5), 0xc0, 0x7f)), []string{"model.safetensors", `tensor "model.embed_tokens.weight" holds NaN at [3,5]`}},
		{on(embedName, put(2*(20*44-1), 0x80, 0xff)), []string{`holds -Inf at [19,43]`}},
		{on(normName, put(2*7, 0x80, 0x7f)), []string{`"model.norm.weight" holds +Inf at [7]`}},
		{on(q0+".bias", put(2*9, 0x81, 0x7f)), []string{q0 + `.bias" holds NaN at [9]`}},
	} {
		refused(t, edit(t, f, "model", c.change), c.want...)
	}
	extra := edit(t, f, "model", func(x *safetensors.Tensor) *safetensors.Tensor {
		return on("lm_head.weight", rename("model.layers.2.mlp.up_proj.weight"))(x)
	})
	patchConfig(t, extra, `"tie_word_embeddings":true,`)
	refused(t, extra, "model.layers.2.mlp.up_proj.weight", "does not belong to LlamaForCausalLM")
	tied := edit(t, f, "model", func(x *safetensors.Tensor) *safetensors.Tensor { return x })
	patchConfig(t, tied, `"tie_word_embeddings":true,`)
	if g, err := Open(tied); err != nil || len(g.Notes) != 1 || !strings.Contains(g.Notes[0], "lm_head.weight is stored but not used") {
		t.Errorf("%v", err)
	}
}

func TestATiedModelWhoseStoredHeadIsAnotherIsRefused(t *testing.T) {
	f := made(t, InitConfig{DType: "bfloat16"})
	embed, err := f.Raw(embedName)
	if err != nil {
		t.Fatal(err)
	}
	tied := func(change func(*safetensors.Tensor) *safetensors.Tensor) string {
		dir := edit(t, f, "model", on(headName, func(x *safetensors.Tensor) *safetensors.Tensor {
			copy(x.Data, embed.Data)
			return change(x)
		}))
		patchConfig(t, dir, `"tie_word_embeddings":true,`)
		return dir
	}
	if err := load(tied(put(0))); err != nil {
		t.Errorf("a stored head that is the embedding: %v", err)
	}
	refused(t, tied(put(2*(20*44-1), 0x80, 0x3f)), "model.safetensors", `"lm_head.weight" differs from "model.embed_tokens.weight"`, "tie_word_embeddings", "false")
	refused(t, tied(reshape("BF16", 44, 20)), `"lm_head.weight" differs`)
	refused(t, tied(reshape("I16", 20, 44)), `"lm_head.weight"`)
	wide := tied(func(x *safetensors.Tensor) *safetensors.Tensor {
		return &safetensors.Tensor{Spec: safetensors.Spec{Name: headName, DType: "F32", Shape: x.Shape}, Data: widen(x.Data)}
	})
	if err := load(wide); err != nil {
		t.Errorf("a stored head that is the embedding in float32: %v", err)
	}
}

// widen is bfloat16 as float32.
func widen(half []byte) []byte {
	b := make([]byte, 0, 2*len(half))
	for i := 0; i < len(half); i += 2 {
		b = append(b, 0, 0, half[i], half[i+1])
	}
	return b
}

// patchConfig puts fields into a config.json.
func patchConfig(t *testing.T, dir, fields string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "config.json"), bytes.Replace(b, []byte("{"), []byte("{"+fields), 1), 0o644)
}

func TestNaNIsFoundInEveryTypeAndPlace(t *testing.T) {
	for dt, nan := range map[string][]byte{"float32": {0, 0, 0xc0, 0x7f}, "bfloat16": {0x81, 0xff}, "float16": {0, 0x7c}} {
		f := made(t, InitConfig{DType: dt})
		os.Remove(filepath.Join(f.Dir, safetensors.MaskFile))
		n := len(nan)
		for _, at := range []int{0, 1, 2, 3, 4, 5, 6, 7, 44*266 - 1} {
			dir := edit(t, f, "model", on(up1+".weight", put(at*n, nan...)))
			refused(t, dir, up1+`.weight" holds`)
		}
	}
}

func TestAMaskThatDoesNotFitIsNamedWithWhatToDo(t *testing.T) {
	f := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16"})
	advice := "prune again, or delete it"
	kept := func(x *safetensors.Tensor) *safetensors.Tensor {
		l, err := f.Linear(q0)
		if err != nil {
			t.Fatal(err)
		}
		for j := range 44 {
			if l.Mask[0]>>j&1 == 1 {
				x.Data[2*j] ^= 1
				return x
			}
		}
		return x
	}
	pruned := func(x *safetensors.Tensor) *safetensors.Tensor {
		l, _ := f.Linear(q0)
		for j := range 44 {
			if l.Mask[2]>>j&1 == 0 {
				copy(x.Data[2*(44*2+j):], []byte{1, 0})
				return x
			}
		}
		return x
	}
	refused(t, edit(t, f, "model", on(q0+".weight", kept)), "mask.safetensors: the mask of "+q0+" belongs to other weights (sha256", advice)
	refused(t, edit(t, f, "model", on(q0+".weight", pruned)), "mask of "+q0+" does not fit: 1 weights are not zero where M = 0, the first at [2,", "(bits 0x1)", advice)
	refused(t, edit(t, f, "mask", on(q0+".mask", put(0, 0xff))), "mask of "+q0+" does not keep its pattern", "row 0 keeps 4 of the inputs 0…3", advice)
	// A mask of another model: the same linear, another shape.
	other := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16", Config: llamaConfig(obj{"num_hidden_layers": 3})})
	dir := edit(t, f, "model", func(x *safetensors.Tensor) *safetensors.Tensor { return x })
	copyFile(t, filepath.Join(other.Dir, safetensors.MaskFile), dir)
	refused(t, dir, "the mask of "+q0+" is for a weight [16 16], but the weight is [40 44]", advice)
	three := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16", Config: llamaConfig(func() obj { o := obj{}; json.Unmarshal(llamaConfig(small), &o); o["num_hidden_layers"] = 3; return o }())})
	copyFile(t, filepath.Join(three.Dir, safetensors.MaskFile), dir)
	refused(t, dir, `"model.layers.2.mlp.down_proj" is no linear layer of this model`, advice)
}

func copyFile(t *testing.T, from, dir string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(from)), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAMinusZeroWhereTheMaskIsZeroPasses(t *testing.T) {
	f := made(t, InitConfig{Pattern: "1:4", DType: "bfloat16"})
	l, _ := f.Linear(q0)
	j := 0
	for l.Mask[0]>>j&1 == 1 {
		j++
	}
	dir := edit(t, f, "model", on(q0+".weight", put(2*j, 0, 0x80)))
	os.Remove(filepath.Join(dir, safetensors.MaskFile))
	g := opened(t, dir)
	if _, err := g.Load(); err != nil {
		t.Fatal(err)
	}
	if m, err := g.Linear(q0); err != nil || m.Mask[0] != l.Mask[0] {
		t.Errorf("−0 counts as a weight: %#x, want %#x", m.Mask[0], l.Mask[0])
	}
}

func TestABrokenPackedFolderIsRefused(t *testing.T) {
	f := made(t, InitConfig{Pattern: "0.5", DType: "bfloat16", Packed: true})
	for _, c := range []struct {
		change func(*safetensors.Tensor) *safetensors.Tensor
		want   string
	}{
		{on(q0+".values", put(0, 0x80, 0x7f)), q0 + `.values" holds +Inf at [0]`},
		{on(q0+".starts", put(4, 77)), q0 + ": sparse: start 1 is 77"},
		{on(q0+".bits", put(0, 0xff, 0xff)), q0 + ": sparse: "},
		{on(q0+".bits", put(7, 0xff)), "bits beyond its 44 inputs"},
		{on(q0+".bits", drop), q0 + " lacks its values or its bits"},
		{on(q0+".starts", drop), q0 + ": sparse: [40,44] has 41 starts, found 0"},
		{on(q0+".values", reshape("I16", 40*22)), "is I16"},
		{on(normName, drop), "is missing"},
	} {
		refused(t, edit(t, f, "packed", c.change), c.want)
	}
	marker := edit(t, f, "packed", func(x *safetensors.Tensor) *safetensors.Tensor { return x })
	os.WriteFile(filepath.Join(marker, "splora.json"), []byte(`{"format":"splora-packed","version":2}`), 0o644)
	refused(t, marker, "splora.json", "version 2", "export the model again")
	os.WriteFile(filepath.Join(marker, "splora.json"), []byte(`{`), 0o644)
	refused(t, marker, "splora.json")
}

func TestAFolderThatIsNoModelIsRefused(t *testing.T) {
	empty := t.TempDir()
	refused(t, empty, "holds no config.json", "as Hugging Face saves it")
	os.WriteFile(filepath.Join(empty, "config.json"), llamaConfig(nil), 0o644)
	refused(t, empty, "neither model.safetensors nor its index is there")
	os.WriteFile(filepath.Join(empty, "pytorch_model.bin"), nil, 0o644)
	refused(t, empty, "pickled weights")
	os.WriteFile(filepath.Join(empty, "config.json"), llamaConfig(obj{"architectures": []string{"GPT2LMHeadModel"}}), 0o644)
	refused(t, empty, "config.json: unknown architecture GPT2LMHeadModel")
	sharded := filepath.Join(t.TempDir(), "m")
	if err := os.CopyFS(sharded, os.DirFS(filepath.Join("testdata", "mistral"))); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(sharded, "model-00003-of-00004.safetensors"))
	refused(t, sharded, "model-00003-of-00004.safetensors", "no such file", "model.safetensors.index.json")
}

func TestBadRequestsToInitAreRefused(t *testing.T) {
	for want, c := range map[string]InitConfig{
		`pattern "4:2"`:             {Config: llamaConfig(nil), Pattern: "4:2"},
		`"int8" is not supported`:   {Config: llamaConfig(nil), DType: "int8"},
		"unknown architecture":      {Config: llamaConfig(obj{"architectures": []string{"X"}})},
		"hidden_size is missing":    {Config: llamaConfig(obj{"hidden_size": nil})},
		"it is no JSON object: une": {},
	} {
		if err := Init(t.Context(), filepath.Join(t.TempDir(), "x"), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
