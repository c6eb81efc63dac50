package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
)

func TestEveryJSONOutputIsOneObject(t *testing.T) {
	w := newWorld(t)
	ok(t, w.train()...)
	must(t, "merge", "--model", w.path("model"), "--adapter", w.path("out"), "--out", w.path("merged"))
	text := w.write(t, "text.txt", strings.Repeat("some text to read ", 40))
	for _, c := range []struct {
		args []string
		keys string
	}{
		{[]string{"eval", "--model", w.path("model"), "--adapter", w.path("out"), "--data", text, "--seq", "16"}, "ppl loss tokens windows"},
		{[]string{"eval", "--model", w.path("merged"), "--data", w.path("rows.jsonl"), "--seq", "16"}, "ppl loss tokens windows"},
		{[]string{"verify", "--base", w.path("model"), "--merged", w.path("merged")}, "ok linears weights pruned extra kept_zero changed density base_density"},
		{[]string{"generate", "--model", w.path("merged"), "--ids", "1,2,3", "--max-new-tokens", "4"}, "ids text prompt_ids"},
		{[]string{"prune", "--model", w.path("model"), "--out", w.path("again"), "--pattern", "0.6", "--calibration", text, "--calibration-samples", "2"},
			"out pattern pruner density layers"},
		{[]string{"plan", "--model", w.path("model")}, "linears_bytes dense_bytes tables_bytes mapped_bytes rows_bytes process_bytes plan total_bytes"},
		{[]string{"plan", "--model", w.write(t, "c.json", tinyConfig), "--pattern", "0.5"}, "linears_bytes dense_bytes tables_bytes mapped_bytes rows_bytes process_bytes plan total_bytes"},
	} {
		o := must(t, append(c.args, "--json")...)
		v := object(t, o)
		for key := range strings.FieldsSeq(c.keys) {
			if _, found := v[key]; !found {
				t.Errorf("splora %s --json has no %q:\n%s", c.args[0], key, o)
			}
			delete(v, key)
		}
		delete(v, "faults")
		if len(v) > 0 {
			t.Errorf("splora %s --json has more: %v", c.args[0], v)
		}
	}
	if o := splora(t, "verify", "--json", "--base", w.path("again"), "--merged", w.path("model")); o.code != exitFailed || object(t, o.stdout)["ok"] != false {
		t.Errorf("a verification that fails: exit code %d\n%s", o.code, o.stdout)
	}
	var ids []int
	if o := ok(t, "tokenize", "--model", w.path("model"), text); json.Unmarshal([]byte(o.stdout), &ids) != nil || len(ids) == 0 {
		t.Errorf("tokenize: %s", o.stdout)
	}
}

// TestPlanSaysWhatTrainIsGoingToUse, to the byte, for rows that fill --seq; but for the program itself, which only a run of its own
// process shows (TestThePlanIsThePeakOfTheProcess).
func TestPlanSaysWhatTrainIsGoingToUse(t *testing.T) {
	w := newWorld(t)
	must(t, "init", "--config", w.write(t, "c.json", tinyConfig), "--out", w.path("dense"))
	w.tokenizer(t, "dense")
	for name, change := range map[string]*strings.Replacer{
		"qwen2": strings.NewReplacer("LlamaForCausalLM", "Qwen2ForCausalLM", `"llama"`, `"qwen2"`, `"tie_word_embeddings":false`, `"tie_word_embeddings":true`),
		"qwen3": strings.NewReplacer("LlamaForCausalLM", "Qwen3ForCausalLM", `"llama"`, `"qwen3"`, `"hidden_act"`, `"head_dim":16,"hidden_act"`),
	} {
		must(t, "init", "--config", w.write(t, name+".json", change.Replace(tinyConfig)), "--out", w.path(name), "--pattern", "0.5")
		w.tokenizer(t, name)
	}
	must(t, "export", "--model", w.path("model"), "--out", w.path("packed"))
	long := w.write(t, "long.txt", strings.Repeat("a text that is long enough for rows of any length ", 50))
	for i, more := range [][]string{
		{},
		{"--recompute", "none", "--micro-batch", "3"},
		{"--seq", "32", "--rank", "5", "--targets", "q_proj,down_proj"},
		{"--model", w.path("dense"), "--method", "lora"},
		{"--model", w.path("packed")},
		{"--model", w.path("qwen2")},
		{"--model", w.path("qwen3")},
	} {
		args := w.train(append([]string{"--data", long, "--max-steps", "1", "--out", w.path("out" + string(rune('a'+i)))}, more...)...)
		did := ok(t, args...).stderr
		args[0] = "plan"
		said, _, whole := strings.Cut(must(t, args...), "  the program itself")
		if !strings.Contains(strings.ReplaceAll(did, rowsLine.FindString(did), ""), said) || !whole || !strings.Contains(said, "AdamW m, v") {
			t.Errorf("%v: plan says\n%s\ntrain\n%s", more, said, did)
		}
	}
	// A config.json alone gives the same as the model made of it.
	for config, model := range map[string]string{"c.json": "model", "qwen2.json": "qwen2", "qwen3.json": "qwen3"} {
		pattern := map[string]string{"c.json": "2:4"}[config]
		if pattern == "" {
			pattern = "0.5"
		}
		a := object(t, must(t, "plan", "--json", "--model", w.path(config), "--pattern", pattern))
		b := object(t, must(t, "plan", "--json", "--model", w.path(model)))
		for _, own := range []string{"process_bytes", "mapped_bytes", "total_bytes"} {
			delete(a, own)
			delete(b, own)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("plan of %s\n%v\nof the model\n%v", config, a, b)
		}
	}
}

// rowsLine is the plan's line on the tokenised rows, which plan does not have.
var rowsLine = regexp.MustCompile(`(?m)^  the rows, tokenised.*\n`)

func TestAMicroBatchBeyondAllMemoryIsRefusedWithoutBeingPlanned(t *testing.T) {
	if train.HostMemory() == 0 {
		t.Skip("this system does not tell how much memory it has")
	}
	w := newWorld(t)
	must(t, "export", "--model", w.path("model"), "--out", w.path("packed"))
	long := w.write(t, "long.json", strings.Replace(tinyConfig, `"max_position_embeddings":64`, `"max_position_embeddings":1073741824`, 1))
	for _, args := range [][]string{
		{"plan", "--model", w.path("model"), "--micro-batch", "2147483647"},
		{"plan", "--model", w.path("model"), "--micro-batch", "2147483647", "--device", "cuda"},
		{"plan", "--model", long, "--seq", "1073741824"},
		w.train("--model", w.path("packed"), "--micro-batch", "2147483647"),
	} {
		if code, _, errs := call(args...); code != exitFailed || !strings.Contains(errs, "--micro-batch") || !strings.Contains(errs, "this host has") {
			t.Errorf("%q: exit %d\n%s", args, code, errs)
		}
	}
}

func TestARunSavesAndPrintsItsSettingsAsResolved(t *testing.T) {
	w := newWorld(t)
	want := train.Defaults()
	want.Model, want.Data, want.Out, want.CacheDir = w.path("model"), train.List{w.path("rows.jsonl")}, w.path("out"), w.path("cache")
	want.Rank, want.MaxSteps, want.LR, want.Targets = 5, 3, 0.002, train.List{"q_proj", "v_proj"}
	file := w.write(t, "run.yaml", "model: "+want.Model+"\ndata:\n  - "+want.Data[0]+"\nout: "+want.Out+"\ncache_dir: "+want.CacheDir+
		"\nrank: 7 # a flag says 5\nmax_steps: 3\nlr: 2e-3\ntargets: q_proj, v_proj\n")
	o := ok(t, "train", "--config", file, "--rank", "5")
	saved := train.Defaults()
	if err := saved.ReadYAML(w.path("out/config.yaml")); err != nil {
		t.Fatal(err)
	}
	want.Seq = saved.Seq // 0 was the model's, which the run has looked up
	if string(saved.YAML()) != string(want.YAML()) || saved.Seq != 64 {
		t.Errorf("saved\n%s\nwant\n%s", saved.YAML(), want.YAML())
	}
	for _, s := range []string{"rank: 5", "lr: 0.002", "schedule: cosine", "seq: 64"} {
		if !strings.Contains(o.stderr, s) {
			t.Errorf("%q is not shown:\n%s", s, o.stderr)
		}
	}
	in, err := os.ReadFile(w.path("out/checkpoint-3/config.yaml"))
	if err != nil || string(in) != string(want.YAML()) {
		t.Errorf("the checkpoint's config.yaml (%v):\n%s", err, in)
	}
	// What was saved is a configuration to run: here the same run, which is done.
	if o := ok(t, "train", "--config", w.path("out/config.yaml")); strings.Contains(o.stderr, "step 1/") {
		t.Errorf("the run began anew:\n%s", o.stderr)
	}
}

func TestAFileWithACommaInItsNameIsNamedInAListOfTheConfiguration(t *testing.T) {
	w := newWorld(t)
	rows, err := os.ReadFile(w.path("rows.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	comma := w.write(t, "a, b.jsonl", string(rows))
	w.refused(t, []string{"train", "--model", w.path("model"), "--data", comma, "--out", w.path("new")}, exitFailed, "DIR/a:")
	file := w.write(t, "run.yaml", "model: "+w.path("model")+"\ndata:\n  - \""+comma+"\"\nout: "+w.path("out")+"\ncache_dir: "+w.path("cache")+"\nmax_steps: 1\n")
	ok(t, "train", "--config", file)
	ok(t, "train", "--config", w.path("out/config.yaml"), "--out", w.path("again"))
}

func TestHelpTopicsListsEveryPage(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	index := must(t, "help", "topics")
	for _, p := range pages {
		name := strings.TrimSuffix(filepath.Base(p), ".md")
		text, err := docs.ReadFile("docs/" + filepath.Base(p))
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		if !strings.Contains(index, "    "+name+" ") || !strings.Contains(index, title) {
			t.Errorf("%s is not in the index:\n%s", name, index)
		}
		if page := must(t, "help", name); !strings.Contains(page, strings.TrimSpace(string(text))) {
			t.Errorf("splora help %s:\n%s", name, page)
		}
	}
	help := must(t, "--help")
	for command := range strings.FieldsSeq("quickstart init prune train merge verify eval generate tokenize export plan") {
		if !strings.Contains(help, "\n  "+command+" ") {
			t.Errorf("splora --help does not name %s:\n%s", command, help)
		}
		if h := must(t, command, "--help"); !strings.Contains(h, "Usage:") {
			t.Errorf("splora %s --help:\n%s", command, h)
		}
	}
}

func TestCompletionKnowsCommandsFlagsAndWords(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if o := must(t, "completion", shell); !strings.Contains(o, "splora") {
			t.Errorf("completion %s: %q", shell, o)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"tr"}, "train\t"},
		{[]string{"help", "re"}, "resume\t"},
		{[]string{"train", "--warm"}, "--warmup-steps\t"},
		{[]string{"train", "--schedule", ""}, "cosine\n"},
		{[]string{"train", "--too-long", "s"}, "split\n"},
		{[]string{"train", "--targets", ""}, "all-linear\n"},
		{[]string{"export", "--format", ""}, "packed\n"},
		{[]string{"prune", "--pruner", ""}, "magnitude\n"},
	} {
		if o := must(t, append([]string{"__complete"}, c.args...)...); !strings.Contains(o, c.want) {
			t.Errorf("%q completes to %q, want %q", c.args, o, c.want)
		}
	}
}

// TestLogsAsJSONAreOneRecordALine, each with the rank and the generation once they are known.
func TestLogsAsJSONAreOneRecordALine(t *testing.T) {
	w := newWorld(t)
	args := w.train("--log-format", "json", "--save-every", "1", "--eval-data", w.path("rows.jsonl"))
	for range 2 { // the second time from its checkpoint
		o := start(t, "launch", nil, args...).wait()
		if o.code != exitDone {
			t.Fatalf("exit code %d\n%s", o.code, o.stderr)
		}
		steps := 0
		for line := range strings.Lines(o.stderr) {
			record, fromRank := strings.CutPrefix(line, "[0] ")
			if !fromRank {
				continue
			}
			v := object(t, record)
			if v["msg"] == "step" {
				steps++
			}
			if v["job"] == nil || v["local_rank"] != 0.0 || (v["msg"] == "step" || v["msg"] == "run") && (v["rank"] != 0.0 || v["generation"] != 1.0) {
				t.Errorf("%s", line)
			}
		}
		if records(t, w.path("out")); steps == 0 {
			t.Errorf("no steps:\n%s", o.stderr)
		}
		os.RemoveAll(w.path("out/checkpoint-4"))
	}
}

// TestTheLastErrorIsOfTheLogsFormat, whether the flags, the file or the run is wrong.
func TestTheLastErrorIsOfTheLogsFormat(t *testing.T) {
	w := newWorld(t)
	file := w.write(t, "run.yaml", "log_format: json\n")
	for _, args := range [][]string{
		w.train("--log-format", "json", "--rank", "0"),
		w.train("--config", file, "--rank", "0"),
		w.train("--log-format=json", "--resume", w.path("nowhere")),
		w.train("--log-format", "json", "--flies"),
	} {
		code, _, errs := call(args...)
		lines := strings.Split(strings.TrimSpace(errs), "\n")
		if v := object(t, lines[len(lines)-1]); code == exitDone || v["level"] != "error" || v["msg"] == nil || v["ts"] == nil {
			t.Errorf("%v: exit %d\n%s", args, code, errs)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAnOutputThatDoesNotArriveIsAFailure(t *testing.T) {
	w := newWorld(t)
	ok(t, w.train("--max-steps", "1")...)
	for _, args := range [][]string{
		{"--help"},
		{"help", "topics"},
		{"completion", "bash"},
		{"merge", "--model", w.path("model"), "--adapter", w.path("out"), "--out", w.path("merged")},
		{"verify", "--base", w.path("model"), "--merged", w.path("merged")},
		{"export", "--model", w.path("model"), "--out", w.path("packed")},
		{"generate", "--model", w.path("model"), "--ids", "1,2", "--max-new-tokens", "2"},
		{"plan", "--model", w.path("model")},
	} {
		var errs strings.Builder
		if code := run(t.Context(), args, nil, full{}, &errs); code != exitFailed || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%s: exit %d\n%s", args[0], code, &errs)
		}
	}
}

func TestAnAdapterOfAnotherModelIsSaidToBe(t *testing.T) {
	w := newWorld(t)
	ok(t, w.train("--out", w.path("adapter"), "--max-steps", "1")...)
	must(t, "init", "--config", w.write(t, "c.json", tinyConfig), "--out", w.path("other"), "--pattern", "2:4", "--seed", "8")
	w.tokenizer(t, "other")
	for name, args := range map[string][]string{
		"merge":    {"--out", w.path("merged")},
		"eval":     {"--data", w.path("rows.jsonl"), "--seq", "16"},
		"generate": {"--ids", "1,2", "--max-new-tokens", "1"},
		"train":    w.train("--max-steps", "1")[1:],
	} {
		for model, want := range map[string]bool{"model": false, "other": true} {
			more := []string{"--model", w.path(model), "--adapter", w.path("adapter")}
			if name != "eval" && name != "generate" {
				more = append(more, "--out", w.path(name+model))
			}
			code, _, errs := call(slices.Concat([]string{name}, args, more)...)
			if said := strings.Contains(errs, "note: "+w.path("adapter")+" was trained on a model with other content than "+w.path(model)); code != exitDone || said != want {
				t.Errorf("%s on %s: exit %d\n%s", name, model, code, errs)
			}
		}
	}
}

func TestABugEndsTheProgramAsAFailureWithItsStack(t *testing.T) {
	var errs strings.Builder
	if code := guarded(&errs, func() int { panic("compute: the plan is wrong") }); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(errs.String(), "splora: bug: compute: the plan is wrong\n") || !strings.Contains(errs.String(), "TestABugEnds") {
		t.Errorf("%s", &errs)
	}
	if code := guarded(&errs, func() int { return exitStopped }); code != exitStopped {
		t.Errorf("exit code %d", code)
	}
}
