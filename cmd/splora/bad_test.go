package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/safetensors"
)

// refused runs a command that must end with the code and one error line that holds all of want, before any step, without a
// trace of a panic, and leave nothing in the folders.
func (w world) refused(t *testing.T, args []string, code int, want ...string) {
	t.Helper()
	o := splora(t, args...)
	w.clear(t, o, code, want...)
	for _, out := range []string{"out", "new"} {
		if list, err := os.ReadDir(w.path(out)); err == nil && len(list) > 0 {
			t.Errorf("%s holds %v", out, list)
		}
	}
	if left, _ := filepath.Glob(w.path(".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// clear checks how an error is told.
func (w world) clear(t *testing.T, o outcome, code int, want ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d", o.code, code)
	}
	lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "splora: ") })
	if first < 0 {
		t.Fatalf("no line begins with \"splora: \":\n%s", o.stderr)
	}
	said := strings.Join(lines[first:], "\n")
	for _, s := range want {
		if s = strings.ReplaceAll(s, "DIR", w.dir); !strings.Contains(said, s) {
			t.Errorf("want %q in\n%s", s, said)
		}
	}
	if strings.Count("\n"+said, "\nsplora: ") != 1 || strings.Contains(o.stderr, "goroutine ") || strings.Contains(o.stderr, "panic") || strings.Contains(said, "%!") {
		t.Errorf("not one clear error:\n%s", o.stderr)
	}
	if strings.Contains(o.stderr, "step 1/") {
		t.Errorf("only after the first step:\n%s", o.stderr)
	}
	if o.stdout != "" {
		t.Errorf("on stdout: %q", o.stdout)
	}
}

// rewrite writes a model's weights again, in shards of at most maxShard bytes (0: one file), each tensor under change, which
// gives nil to drop it.
func rewrite(t *testing.T, dir string, maxShard int64, change func(x *safetensors.Tensor) *safetensors.Tensor) {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	var specs []safetensors.Spec
	var values [][]byte
	for _, x := range f.Tensors() {
		x.Data = slices.Clone(x.Data)
		if y := change(&x); y != nil {
			specs, values = append(specs, y.Spec), append(values, y.Data)
		}
	}
	meta := f.Metadata
	f.Close()
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	out, err := safetensors.CreateFolder(dir, "model", specs, meta, 0, maxShard)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range specs {
		if err := out.Write(s.Name, values[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func asItIs(x *safetensors.Tensor) *safetensors.Tensor { return x }

// only applies f to one tensor.
func only(name string, f func(x *safetensors.Tensor)) func(x *safetensors.Tensor) *safetensors.Tensor {
	return func(x *safetensors.Tensor) *safetensors.Tensor {
		if x.Name == name {
			f(x)
		}
		return x
	}
}

const up = "model.layers.1.mlp.up_proj.weight"

// badModels are ways to spoil a model folder, and what is said about it.
var badModels = map[string]struct {
	spoil func(t *testing.T, dir string)
	code  int
	want  []string
}{
	"no folder": {func(t *testing.T, dir string) { os.RemoveAll(dir) }, 1, []string{"DIR/bad"}},
	"missing shard": {func(t *testing.T, dir string) {
		rewrite(t, dir, 40_000, asItIs)
		list, _ := filepath.Glob(filepath.Join(dir, "model-00002-*"))
		os.Remove(list[0])
	}, 1, []string{"model-00002-of-"}},
	"truncated shard": {func(t *testing.T, dir string) {
		rewrite(t, dir, 40_000, asItIs)
		list, _ := filepath.Glob(filepath.Join(dir, "model-00002-*"))
		st, _ := os.Stat(list[0])
		os.Truncate(list[0], st.Size()-2)
	}, 1, []string{"model-00002-of-"}},
	"empty weights file": {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "model.safetensors"), 0) }, 1, []string{"model.safetensors"}},
	"no weights":         {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "model.safetensors")) }, 1, []string{"DIR/bad", "model.safetensors"}},
	"missing tensor": {func(t *testing.T, dir string) {
		rewrite(t, dir, 0, func(x *safetensors.Tensor) *safetensors.Tensor {
			if x.Name == up {
				return nil
			}
			return x
		})
	}, 1, []string{up, "missing"}},
	"wrong shape": {func(t *testing.T, dir string) {
		rewrite(t, dir, 0, only(up, func(x *safetensors.Tensor) { x.Shape = []int{32, 48} }))
	}, 1, []string{up, "[32 48]", "[48 32]"}},
	"wrong dtype": {func(t *testing.T, dir string) {
		rewrite(t, dir, 0, only(up, func(x *safetensors.Tensor) { x.DType = "I16" }))
	}, 1, []string{up, "I16", "BF16"}},
	"NaN weights": {func(t *testing.T, dir string) {
		rewrite(t, dir, 0, only("model.embed_tokens.weight", func(x *safetensors.Tensor) { x.Data[2*(32*3+5)], x.Data[2*(32*3+5)+1] = 0xc0, 0x7f }))
	}, 1, []string{"model.embed_tokens.weight", "NaN at [3,5]"}},
	"NaN in a linear without a mask file": {func(t *testing.T, dir string) {
		os.Remove(filepath.Join(dir, "mask.safetensors"))
		rewrite(t, dir, 0, only(up, func(x *safetensors.Tensor) { x.Data[2], x.Data[3] = 0xc0, 0x7f }))
	}, 1, []string{up, "NaN"}},
	"mask of other weights": {func(t *testing.T, dir string) {
		rewrite(t, dir, 0, only(up, func(x *safetensors.Tensor) { x.Data[0] ^= 1 }))
	}, 1, []string{"model.layers.1.mlp.up_proj", "mask"}},
	"mask of another shape": {func(t *testing.T, dir string) {
		// The masks of a model with other widths, but under the same names.
		other := filepath.Join(filepath.Dir(dir), "other")
		config := filepath.Join(filepath.Dir(dir), "other.json")
		os.WriteFile(config, []byte(strings.Replace(tinyConfig, `"intermediate_size":48`, `"intermediate_size":64`, 1)), 0o644)
		ok(t, "init", "--config", config, "--out", other, "--pattern", "2:4")
		os.Rename(filepath.Join(other, "mask.safetensors"), filepath.Join(dir, "mask.safetensors"))
	}, 1, []string{"model.layers.0.mlp", "mask"}},
	"truncated mask": {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "mask.safetensors"), 1000) }, 1, []string{"mask.safetensors"}},
	"unknown architecture": {func(t *testing.T, dir string) {
		replace(t, filepath.Join(dir, "config.json"), "LlamaForCausalLM", "MambaForCausalLM")
	}, 1, []string{"MambaForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}},
	"malformed config.json": {func(t *testing.T, dir string) { replace(t, filepath.Join(dir, "config.json"), ":", "=") }, 1, []string{"config.json"}},
	"unsupported rope": {func(t *testing.T, dir string) {
		replace(t, filepath.Join(dir, "config.json"), "{", `{"rope_scaling":{"rope_type":"yarn","factor":4.0},`)
	}, 1, []string{"yarn"}},
	"no tokenizer":        {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "tokenizer.json")) }, 1, []string{"tokenizer"}},
	"malformed tokenizer": {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "tokenizer.json"), 500) }, 1, []string{"tokenizer.json"}},
	"tokenizer of another model": {func(t *testing.T, dir string) {
		replace(t, filepath.Join(dir, "config.json"), `560`, `500`)
		rewrite(t, dir, 0, func(x *safetensors.Tensor) *safetensors.Tensor {
			if x.Shape[0] == 560 {
				x.Shape[0], x.Data = 500, x.Data[:500*32*2]
			}
			return x
		})
	}, 1, []string{"560", "500", "tokenizer"}},
}

// replace changes the first occurrence of a text in a file.
func replace(t *testing.T, path, from, to string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(b), from) {
		err = fmt.Errorf("%s does not hold %q", path, from)
	}
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(b), from, to, 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestABadModelIsRefusedBeforeTheFirstStep(t *testing.T) {
	for name, bad := range badModels {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			bad.spoil(t, w.copyModel(t, "bad"))
			w.refused(t, w.train("--model", w.path("bad")), bad.code, bad.want...)
			if !strings.Contains(name, "tokenizer") && name != "NaN weights" { // export needs no tokenizer and only copies the embedding
				w.refused(t, []string{"export", "--model", w.path("bad"), "--out", w.path("new")}, bad.code, bad.want...)
			}
		})
	}
}

func TestBadRowsAreRefusedWithFileAndLine(t *testing.T) {
	long := fmt.Sprintf(`{"text":%q}`, strings.Repeat("the ", 200))
	good := `{"text":"good"}` + "\n"
	for name, c := range map[string]struct {
		rows string
		more []string
		want []string
	}{
		"malformed line":               {good + `{"text":"x"` + "\n" + good, nil, []string{"DIR/bad.jsonl:2", "JSON"}},
		"not an object":                {good + good + `"text"` + "\n", nil, []string{"DIR/bad.jsonl:3"}},
		"unknown kind":                 {good + `{"words":"x"}` + "\n", nil, []string{"DIR/bad.jsonl:2", "words"}},
		"text is a number":             {good + `{"text":3}` + "\n", nil, []string{"DIR/bad.jsonl:2", "text"}},
		"empty text":                   {good + `{"text":""}` + "\n", nil, []string{"DIR/bad.jsonl:2"}},
		"empty completion of nothing":  {good + `{"messages":[]}` + "\n", nil, []string{"DIR/bad.jsonl:2"}},
		"no trained token":             {good + `{"input_ids":[1,2,3],"labels":[-100,-100,-100]}` + "\n", nil, []string{"DIR/bad.jsonl:2", "trained"}},
		"only the first label trained": {good + `{"input_ids":[1,2,3],"labels":[1,-100,-100]}` + "\n", nil, []string{"DIR/bad.jsonl:2", "trained"}},
		"labels of another length":     {good + `{"input_ids":[1,2,3],"labels":[1,2]}` + "\n", nil, []string{"DIR/bad.jsonl:2", "labels"}},
		"id outside the vocabulary":    {good + `{"input_ids":[1,560,3]}` + "\n", nil, []string{"DIR/bad.jsonl:2", "560"}},
		"over-long":                    {good + long + "\n", []string{"--too-long", "error"}, []string{"DIR/bad.jsonl:2", "64", "--too-long"}},
		"no trained token is left":     {fmt.Sprintf(`{"prompt":%q,"completion":"x"}`+"\n", strings.Repeat("the ", 200)), nil, []string{"DIR/bad.jsonl:1", "trained token", "--seq"}},
		"no rows":                      {"\n\n", nil, []string{"DIR/bad.jsonl", "no rows"}},
		"no chat template": {good + `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}` + "\n", nil,
			[]string{"DIR/bad.jsonl:2", "chat"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			args := w.train(append([]string{"--data", w.write(t, "bad.jsonl", c.rows)}, c.more...)...)
			w.refused(t, args, exitFailed, c.want...)
			if left, _ := filepath.Glob(w.path("cache/*.[ra]*")); len(left) > 0 {
				t.Errorf("the cache holds %v", left)
			}
		})
	}
	w := newWorld(t)
	w.refused(t, w.train("--data", w.path("absent.jsonl")), exitFailed, "DIR/absent.jsonl")
	w.refused(t, w.train("--eval-data", w.path("absent.jsonl")), exitFailed, "DIR/absent.jsonl")
	o := ok(t, w.train("--data", w.write(t, "long.jsonl", good+long+"\n"))...)
	if !strings.Contains(o.stderr, "1 truncated, 0 split, 0 dropped") {
		t.Errorf("over-long rows are not counted:\n%s", o.stderr)
	}
	o = ok(t, w.train("--out", w.path("out2"), "--data", w.path("long.jsonl"), "--too-long", "split")...)
	if !strings.Contains(o.stderr, "0 truncated, 1 split, 0 dropped") {
		t.Errorf("over-long rows are not counted:\n%s", o.stderr)
	}
}

func TestWrongUsageEndsWithCode2AndNamesTheFlag(t *testing.T) {
	w := newWorld(t)
	w.write(t, "unknown.yaml", "model: m\nlearning_rate: 3\n")
	w.write(t, "mistyped.yaml", "model: m\n\nrank: many\n")
	w.write(t, "torn.yaml", "model: [m\n")
	model, out, packed := []string{"--model", w.path("model")}, []string{"--out", w.path("new")}, w.path("packed")
	must(t, "export", "--model", w.path("model"), "--out", packed)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"fly"}, []string{`unknown command "fly"`}},
		{[]string{"trian"}, []string{`"train"`}},
		{[]string{"train", "--config", w.path("unknown.yaml")}, []string{"DIR/unknown.yaml", "[2:1]", "learning_rate"}},
		{[]string{"train", "--config", w.path("mistyped.yaml")}, []string{"DIR/mistyped.yaml", "[3:7]", "rank"}},
		{[]string{"train", "--config", w.path("torn.yaml")}, []string{"DIR/torn.yaml"}},
		{[]string{"train", "--config", w.path("absent.yaml")}, []string{"DIR/absent.yaml"}},
		{[]string{"train"}, []string{"--model is missing"}},
		{w.train("--accum", "2"), []string{"--accum", "--global-batch"}},
		{w.train("--warmup-steps", "2", "--warmup-ratio", "0.1"), []string{"--warmup-steps", "--warmup-ratio"}},
		{w.train("--epochs", "2"), []string{"--epochs has no effect", "--max-steps"}},
		{[]string{"train", "--config", w.write(t, "steps.yaml", "max_steps: 7\n"), "--epochs", "2"}, []string{"--epochs has no effect", "--max-steps 7"}},
		{w.train("--learning-rate", "1"), []string{"--learning-rate"}},
		{w.train("--rank", "many"), []string{"--rank"}},
		{w.train("--rank", "0"), []string{"--rank 0"}},
		{w.train("--method", "qlora"), []string{"--method", "splora", "lora"}},
		{w.train("--targets", "q_proj,r_proj"), []string{"r_proj", "q_proj"}},
		{w.train("--dropout", "0.1"), []string{"--dropout"}},
		{w.train("--seq", "65"), []string{"train: --seq 65", "give --seq 64 or less"}},
		{w.train("--schedule", "exponential"), []string{"--schedule", "cosine"}},
		{w.train("--too-long", "drop"), []string{"--too-long", "truncate"}},
		{w.train("--lr", "NaN"), []string{"--lr"}},
		{w.train("--lr", "Inf"), []string{"--lr"}},
		{w.train("--alpha", "+Inf"), []string{"--alpha"}},
		{w.train("--keep-best"), []string{"--eval-data"}},
		{w.train("extra"), []string{"extra"}},
		{w.train("--resume", "none", "--resume"), []string{"--resume"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--pattern", "4:2"}, model, out), []string{"4:2"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--pattern", "1.5"}, model, out), []string{"1.5"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--pattern", "half"}, model, out), []string{"half"}},
		{slices.Concat([]string{"prune", "--pruner", "obs"}, model, out), []string{"obs", "wanda"}},
		{slices.Concat([]string{"prune"}, model, out), []string{"--calibration"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--calibration", w.path("rows.jsonl")}, model, out), []string{"--calibration has no effect", "magnitude"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--calibration-samples", "128"}, model, out), []string{"--calibration-samples has no effect"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--calibration-seq", "9"}, model, out), []string{"--calibration-seq has no effect"}},
		{slices.Concat([]string{"prune", "--pruner", "magnitude", "--seed", "1"}, model, out), []string{"--seed has no effect"}},
		{slices.Concat([]string{"prune", "--calibration", w.path("rows.jsonl"), "--adapter", w.path("rows.jsonl")}, model, out), []string{"--adapter"}},
		{slices.Concat([]string{"export", "--format", "gguf"}, model, out), []string{"gguf", "packed"}},
		{slices.Concat([]string{"export"}, model), []string{"--out"}},
		{[]string{"init", "--config", w.write(t, "c.json", tinyConfig), "--out", w.path("new"), "--pattern", "2/4"}, []string{"2/4"}},
		{[]string{"init", "--config", w.path("c.json"), "--out", w.path("new"), "--dtype", "int4"}, []string{"int4"}},
		{slices.Concat([]string{"eval", "--data", w.path("rows.jsonl"), "--seq", "65"}, model), []string{"--seq 65", "64"}},
		{slices.Concat([]string{"generate"}, model), []string{"--prompt", "--ids"}},
		{slices.Concat([]string{"generate", "--ids", "1", "--prompt", "x"}, model), []string{"--prompt", "--ids"}},
		{slices.Concat([]string{"generate", "--ids", ""}, model), []string{"--ids is empty"}},
		{slices.Concat([]string{"generate", "--ids", " "}, model), []string{"--ids is empty"}},
		{slices.Concat([]string{"generate", "--ids", "1", "--adapter", ""}, model), []string{"--adapter is empty"}},
		{slices.Concat([]string{"eval", "--data", w.path("rows.jsonl"), "--adapter", ""}, model), []string{"--adapter is empty"}},
		{slices.Concat([]string{"merge", "--adapter", ""}, model, out), []string{"--adapter is empty"}},
		{slices.Concat([]string{"export", "--out", ""}, model), []string{"--out is empty"}},
		{slices.Concat([]string{"generate", "--ids", "560"}, model), []string{"560"}},
		{slices.Concat([]string{"generate", "--ids", "1", "--max-new-tokens", "64"}, model), []string{"64"}},
		{slices.Concat([]string{"generate", "--ids", "1", "--max-new-tokens", "9223372036854775807"}, model), []string{"max_position_embeddings 64"}},
		{slices.Concat([]string{"generate", "--ids", "1", "--max-new-tokens", "4", "--threads", "-5"}, model), []string{"--threads -5"}},
		{slices.Concat([]string{"eval", "--data", w.path("rows.jsonl"), "--seq", "8", "--threads", "65537"}, model), []string{"--threads 65537", "4096"}},
		{[]string{"plan"}, []string{"plan: --model is missing", "config.json"}},
		{slices.Concat([]string{"plan", "--threads", "65537"}, model), []string{"--threads 65537", "4096"}},
		{slices.Concat([]string{"plan", "--pattern", "9"}, []string{"--model", w.path("c.json")}), []string{"9"}},
		{slices.Concat([]string{"plan", "--pattern", "2:4"}, model), []string{"--pattern has no effect", "folder"}},
		{slices.Concat([]string{"plan", "--base", "streamed"}, model), []string{"--base streamed", "DIR/model", "export"}},
		{[]string{"plan", "--base", "streamed", "--model", w.path("c.json")}, []string{"--base streamed", "DIR/c.json"}},
		{[]string{"plan", "--base", "streamed", "--device", "cuda", "--model", packed}, []string{"--base streamed", "--device cpu"}},
		{w.train("--base", "streamed"), []string{"--base streamed", "DIR/model", "export"}},
		{[]string{"plan", "--seq", "65", "--model", w.path("c.json")}, []string{"plan: --seq 65", "give --seq 64 or less"}},
		{[]string{"help", "flying"}, []string{"flying"}},
		{[]string{"help", "train", "fast"}, []string{`splora train has no command or topic "fast"`}},
		{[]string{"help", "resume", "fast"}, []string{`"fast"`}},
		{[]string{"quickstart", "--ranks", "0"}, []string{"--ranks 0"}},
		{[]string{"quickstart", "--ranks", "257"}, []string{"--ranks 257: 1 to 256"}},
		{[]string{"doctor", "--ranks", "257"}, []string{"--ranks 257: 1 to 256"}},
	} {
		t.Run(strings.ReplaceAll(strings.Join(c.args, " "), w.dir, ""), func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(c.args...) // in this process: there are many
			w.clear(t, outcome{code, stdout, stderr}, exitUsage, c.want...)
			if exists(w.path("out")) || exists(w.path("new")) {
				t.Error("a folder was made")
			}
		})
	}
}

// TestAnAdapterMustFitTheModelAndTheRun: of another rank, of other linears, of another model.
func TestAnAdapterMustFitTheModelAndTheRun(t *testing.T) {
	w := newWorld(t)
	ok(t, w.train("--out", w.path("adapter"), "--max-steps", "1")...)
	w.write(t, "other.json", strings.Replace(tinyConfig, `"intermediate_size":48`, `"intermediate_size":64`, 1))
	ok(t, "init", "--config", w.path("other.json"), "--out", w.path("other"), "--pattern", "2:4")
	w.tokenizer(t, "other")
	from := []string{"--adapter", w.path("adapter")}
	w.refused(t, w.train(append(from, "--rank", "4")...), exitFailed, "DIR/adapter", "--rank")
	w.refused(t, w.train(append(from, "--alpha", "4")...), exitFailed, "DIR/adapter", "--alpha")
	w.refused(t, w.train(append(from, "--targets", "q_proj")...), exitFailed, "DIR/adapter", "--targets")
	w.refused(t, w.train(append(from, "--method", "lora")...), exitFailed, "DIR/adapter", "--method")
	w.refused(t, w.train(append(from, "--model", w.path("other"))...), exitFailed, "DIR/adapter", "mlp.", "another model")
	w.refused(t, []string{"merge", "--model", w.path("other"), "--adapter", w.path("adapter"), "--out", w.path("new")}, exitFailed, "mlp.gate_proj", "[64,32]")
	w.refused(t, []string{"eval", "--model", w.path("other"), "--adapter", w.path("adapter"), "--data", w.path("rows.jsonl")}, exitFailed, "DIR/adapter", "mlp.", "another model")
	w.refused(t, []string{"eval", "--model", w.path("model"), "--adapter", w.path("model"), "--data", w.path("rows.jsonl")}, exitFailed, "DIR/model", "adapter_config.json")
	os.Truncate(w.path("adapter/adapter_model.safetensors"), 300)
	w.refused(t, w.train(from...), exitFailed, "DIR/adapter", "adapter_model.safetensors")
}

// TestACheckpointOfAnotherRunIsNotGoneOnFrom: of another model, of other rows, of other settings, damaged, or not there.
func TestACheckpointOfAnotherRunIsNotGoneOnFrom(t *testing.T) {
	w := newWorld(t)
	ok(t, w.train("--save-every", "2")...)
	kept := w.tree(t, "out")
	w.write(t, "c.json", tinyConfig)
	ok(t, "init", "--config", w.path("c.json"), "--out", w.path("other"), "--pattern", "2:4", "--seed", "8")
	w.tokenizer(t, "other")
	w.write(t, "other.jsonl", `{"text":"other rows"}`+"\n")
	for _, c := range []struct {
		more []string
		code int
		want []string
	}{
		{[]string{"--model", w.path("other")}, exitUsage, []string{"DIR/out/checkpoint-4", "another model", "--model"}},
		{[]string{"--data", w.path("other.jsonl")}, exitUsage, []string{"DIR/out/checkpoint-4", "--data"}},
		{[]string{"--rank", "4"}, exitUsage, []string{"DIR/out/checkpoint-4", "--rank was 3 and now is 4"}},
		{[]string{"--resume", w.path("nowhere")}, exitFailed, []string{"DIR/nowhere"}},
		{[]string{"--resume", "none"}, exitUsage, []string{"DIR/out", "--out"}},
	} {
		w.clear(t, splora(t, w.train(c.more...)...), c.code, c.want...)
		if now := w.tree(t, "out"); now != kept {
			t.Errorf("%v changed the run's folder:\n%s\nbefore:\n%s", c.more, now, kept)
		}
	}
	for _, n := range []string{"2", "4"} {
		os.Truncate(w.path("out/checkpoint-"+n+"/optimizer.safetensors"), 100)
	}
	w.clear(t, splora(t, w.train()...), exitFailed, "none of the 2 checkpoints", "DIR/out")
	w.clear(t, splora(t, w.train("--resume", w.path("out/checkpoint-4"))...), exitFailed, "checkpoint-4", "optimizer.safetensors", "damaged")
}

func TestInitNamesTheFileThatIsNoConfiguration(t *testing.T) {
	w := newWorld(t)
	for _, text := range []string{"{", "[]", strings.Replace(tinyConfig, "LlamaForCausalLM", "MambaForCausalLM", 1)} {
		w.refused(t, []string{"init", "--config", w.write(t, "c.json", text), "--out", w.path("new")}, exitFailed, "DIR/c.json")
	}
}

// tree lists a folder's files with their sizes.
func (w world) tree(t *testing.T, name string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(w.path(name), func(path string, st os.FileInfo, err error) error {
		if err == nil && !st.IsDir() {
			fmt.Fprintln(&b, path, st.Size(), st.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAnOutThatCannotBeWrittenIsSaidBeforeTheFirstStep(t *testing.T) {
	w := newWorld(t)
	file := w.write(t, "file", "")
	w.refused(t, w.train("--out", filepath.Join(file, "out")), exitFailed, "--out", "DIR/file")
	w.refused(t, w.train("--out", file), exitFailed, "--out", "DIR/file")
	w.refused(t, w.train("--out", "/proc/out"), exitFailed, "/proc/out")
	w.refused(t, w.train("--cache-dir", filepath.Join(file, "cache")), exitFailed, "DIR/file")
	for _, command := range [][]string{
		{"export"}, {"prune", "--pruner", "magnitude"},
	} {
		w.refused(t, append(command, "--model", w.path("model"), "--out", file), exitFailed, "DIR/file")
		w.refused(t, append(command, "--model", w.path("model"), "--out", filepath.Join(file, "out")), exitFailed, "DIR/file")
		w.refused(t, append(command, "--model", w.path("model"), "--out", w.path("model")), exitFailed, "DIR/model")
	}
}

// object checks that text is exactly one JSON object and gives it.
func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if d.More() {
		t.Errorf("more than one JSON value:\n%s", text)
	}
	return v
}
