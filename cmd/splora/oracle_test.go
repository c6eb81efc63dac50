package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// The commands against PyTorch, transformers and PEFT. testdata/oracle/oracle.py makes the goldens; check.py beside it does more,
// live.

const oracleDir = "testdata/oracle"

type oracle struct {
	Seq     int
	Folders map[string]struct {
		PPL             float64
		Tokens, Windows int
		Prompt, IDs     []int32
	}
	Curves map[string]struct {
		Settings map[string]any
		Steps    []struct {
			Loss     float64 `json:"loss"`
			GradNorm float64 `json:"grad_norm"`
			LR       float64 `json:"lr"`
			Tokens   int     `json:"tokens"`
		}
	}
}

func readOracle(t *testing.T) (o oracle) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(oracleDir, "oracle.json"))
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// call runs splora in this process and gives its exit code and streams.
func call(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// must is call that has to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := call(args...)
	if code != 0 {
		t.Fatalf("splora %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// answer is must with --json, read into v.
func answer(t *testing.T, v any, args ...string) {
	t.Helper()
	out := must(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("splora %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

type generated struct {
	IDs []int32 `json:"ids"`
}

func commas(ids []int32) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", ",")
}

func relative(got, want float64) float64 { return math.Abs(got-want) / math.Abs(want) }

func TestEvalAndGenerateAgreeWithTransformersOnEveryFamilySpellingAndType(t *testing.T) {
	o := readOracle(t)
	for name, want := range o.Folders {
		t.Run(name, func(t *testing.T) {
			for _, packed := range []bool{false, true} {
				dir := filepath.Join(oracleDir, name)
				if packed {
					dir = filepath.Join(t.TempDir(), "packed")
					must(t, "export", "--model", filepath.Join(oracleDir, name), "--out", dir)
				}
				var p Perplexity
				answer(t, &p, "eval", "--model", dir, "--data", filepath.Join(oracleDir, "ids.jsonl"), "--seq", fmt.Sprint(o.Seq))
				if d := relative(p.PPL, want.PPL); !(d <= 1e-5) || p.Tokens != want.Tokens || p.Windows != want.Windows {
					t.Errorf("packed %v: %+v, want %+v: off by %.1e", packed, p, want, d)
				}
				var g generated
				answer(t, &g, "generate", "--model", dir, "--ids", commas(want.Prompt), "--max-new-tokens", fmt.Sprint(len(want.IDs)))
				if !slices.Equal(g.IDs, want.IDs) {
					t.Errorf("packed %v: generated %v, want %v", packed, g.IDs, want.IDs)
				}
			}
		})
	}
}

func TestGenerationEndsWithAnyOfTheConfiguredEndTokens(t *testing.T) {
	want := readOracle(t).Folders["llama"]
	dir := copyFolder(t, filepath.Join(oracleDir, "llama"))
	for text, n := range map[string]int{`[60, %d]`: 5, `%d`: 3, `null`: len(want.IDs)} {
		if strings.Contains(text, "%") {
			text = fmt.Sprintf(text, want.IDs[n-1])
		}
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(`{"eos_token_id": `+text+`}`), 0o644); err != nil {
			t.Fatal(err)
		}
		var g generated
		answer(t, &g, "generate", "--model", dir, "--ids", commas(want.Prompt), "--max-new-tokens", fmt.Sprint(len(want.IDs)))
		if !slices.Equal(g.IDs, want.IDs[:n]) {
			t.Errorf("eos_token_id %s: %v, want %v", text, g.IDs, want.IDs[:n])
		}
	}
}

// copyFolder is a copy that may be changed.
func copyFolder(t *testing.T, src string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(src))
	if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWandaChoosesAsPublishedFromThePrunedBlocksBefore(t *testing.T) {
	for _, name := range []string{"llama", "mistral", "qwen3"} {
		golden, err := safetensors.Open(filepath.Join(oracleDir, name, "wanda.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		defer golden.Close()
		patterns := map[string]bool{}
		for _, x := range golden.Tensors() {
			p, _, _ := strings.Cut(x.Name, "/")
			patterns[p] = true
		}
		for pattern := range patterns {
			t.Run(name+" "+pattern, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "pruned")
				must(t, "prune", "--model", filepath.Join(oracleDir, name), "--out", out, "--pattern", pattern, "--calibration", filepath.Join(oracleDir, "calibration.jsonl"))
				compareMasks(t, golden, pattern, out)
			})
		}
	}
}

// compareMasks allows another choice only between scores that differ by less than float32's rounding of the statistics.
func compareMasks(t *testing.T, golden *safetensors.File, pattern, dir string) {
	f, err := family.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, wrong := 0, 0
	for _, name := range family.LinearNames(f.Config) {
		l, err := f.Linear(name)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := golden.Tensor(pattern + "/" + name + ".mask")
		s, _ := golden.Tensor(pattern + "/" + name + ".score")
		score, err := s.Matrix()
		if err != nil || len(m.Data) != l.Weight.Len() {
			t.Fatalf("%s: %d mask bytes for %v, %v", name, len(m.Data), l.Weight, err)
		}
		words := sparse.Words(l.Weight.Cols)
		for i := range l.Weight.Rows {
			var lost, won []float32 // scores that only we drop, and that only we keep
			for j := range l.Weight.Cols {
				got, want := l.Mask[i*words+j/64]>>(j%64)&1, uint64(m.Data[i*l.Weight.Cols+j])
				switch x := score.Float32()[i*l.Weight.Cols+j]; {
				case got < want:
					lost = append(lost, x)
				case got > want:
					won = append(won, x)
				}
				all++
			}
			slices.Sort(lost)
			slices.Sort(won)
			wrong += len(lost) + len(won)
			if len(lost) != len(won) {
				t.Fatalf("%s row %d: %d weights too few, %d too many", name, i, len(lost), len(won))
			}
			for k := range lost {
				if !(math.Abs(float64(lost[k]-won[k])) <= 1e-5*float64(lost[k])) {
					t.Errorf("%s row %d: kept one of score %v, dropped one of %v", name, i, won[k], lost[k])
				}
			}
		}
	}
	if float64(wrong) > 1e-3*float64(all) {
		t.Errorf("%d of %d mask bits differ", wrong, all)
	}
	t.Logf("%d of %d mask bits differ", wrong, all)
}

func TestTrainingFollowsThePyTorchLoopOfTheFormula(t *testing.T) {
	for name, c := range readOracle(t).Curves {
		t.Run(name, func(t *testing.T) {
			dir, base, out := filepath.Join(oracleDir, "curves", name), filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "run")
			s := c.Settings
			must(t, "prune", "--model", filepath.Join(oracleDir, s["base"].(string)), "--out", base, "--pattern", "2:4", "--pruner", "magnitude")
			args := []string{"train", "--model", base, "--data", filepath.Join(dir, "rows.jsonl"), "--adapter", filepath.Join(dir, "start"), "--out", out,
				"--seq", "24", "--shuffle=false", "--cache-dir", t.TempDir()}
			for k, v := range s {
				if k != "base" {
					args = append(args, "--"+strings.ReplaceAll(k, "_", "-")+"="+fmt.Sprint(v))
				}
			}
			must(t, args...)
			var worst [3]float64
			for k, r := range readMetrics(t, out) {
				w := c.Steps[k]
				worst[0] = max(worst[0], relative(r.Loss, w.Loss))
				worst[1] = max(worst[1], relative(r.GradNorm, w.GradNorm))
				if w.Tokens != r.Tokens || !(math.Abs(r.LR-w.LR) <= 1e-12) {
					t.Errorf("step %d: %+v, want %+v", k+1, r, w)
				}
			}
			worst[2] = adapterError(t, out, filepath.Join(dir, "final.safetensors"))
			t.Logf("largest relative error: loss %.1e, grad_norm %.1e, adapter %.1e", worst[0], worst[1], worst[2])
			if !(worst[0] <= 1e-5 && worst[1] <= 1e-4 && worst[2] <= 1e-3) {
				t.Error("too far from PyTorch")
			}
		})
	}
}

type metric struct {
	Loss     float64 `json:"loss"`
	GradNorm float64 `json:"grad_norm"`
	LR       float64 `json:"lr"`
	Tokens   int     `json:"tokens"`
}

func readMetrics(t *testing.T, run string) (all []metric) {
	t.Helper()
	f, err := os.Open(filepath.Join(run, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var m metric
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	if len(all) != 10 {
		t.Fatalf("%d steps were recorded, want 10", len(all))
	}
	return all
}

// adapterError is the largest ‖a−b‖/‖b‖ over the A and B of all linears.
func adapterError(t *testing.T, dir, golden string) (worst float64) {
	t.Helper()
	a, err := safetensors.ReadAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := safetensors.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if len(g.Tensors()) != 2*len(a.Modules) {
		t.Fatalf("%d modules are adapted, the golden has %d tensors", len(a.Modules), len(g.Tensors()))
	}
	for _, m := range a.Modules {
		for part, x := range map[string]tensor.Tensor{".A": m.A, ".B": m.B} {
			worst = max(worst, distance(t, g, m.Name+part, x))
		}
	}
	return worst
}

// distance is ‖x−b‖/‖b‖ for the golden tensor b of that name.
func distance(t *testing.T, g *safetensors.File, name string, x tensor.Tensor) float64 {
	t.Helper()
	s, ok := g.Tensor(name)
	if !ok {
		t.Fatalf("the golden has no %s", name)
	}
	b, err := s.Matrix()
	if err != nil || b.Rows != x.Rows || b.Cols != x.Cols {
		t.Fatalf("%s: %v against %v, %v", name, x, b, err)
	}
	var diff, norm float64
	for i, want := range b.Float32() {
		d := float64(x.Float32()[i]) - float64(want)
		diff, norm = diff+d*d, norm+float64(want)*float64(want)
	}
	return math.Sqrt(diff / norm)
}

func TestAnAdapterOfPEFTMergesAsPEFTMergesIt(t *testing.T) {
	out, peft := filepath.Join(t.TempDir(), "merged"), filepath.Join(oracleDir, "peft")
	must(t, "merge", "--model", filepath.Join(oracleDir, "llama"), "--adapter", peft, "--out", out)
	g, err := safetensors.Open(filepath.Join(peft, "merged.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	f, err := family.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range family.LinearNames(f.Config) {
		l, err := f.Linear(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := distance(t, g, name+".weight", l.Weight); !(d <= 1e-7) {
			t.Errorf("%s: off by %.1e", name, d)
		}
	}
}

func TestAnAdapterOfSeveralRanksAndScalesIsTheSameBeforeAndAfterTheMerge(t *testing.T) {
	model, peft := filepath.Join(oracleDir, "llama"), filepath.Join(oracleDir, "peft")
	var base, before, after Perplexity
	data := []string{"--data", filepath.Join(oracleDir, "ids.jsonl"), "--seq", "24"}
	answer(t, &base, append(data, "eval", "--model", model)...)
	answer(t, &before, append(data, "eval", "--model", model, "--adapter", peft)...)
	answer(t, &after, append(data, "eval", "--model", merged(t, model, peft))...)
	if d := relative(before.PPL, after.PPL); !(d <= 1e-6) || base.PPL == before.PPL {
		t.Errorf("base %v, adapted %v, merged %v: off by %.1e", base.PPL, before.PPL, after.PPL, d)
	}
}
