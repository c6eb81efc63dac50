package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
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

// What must hold bit for bit from prune to verify, on the oracle's folders: F32, BF16, F16, sharded.

// prunedBase is an oracle folder without its weights in row 3 of every q_proj, pruned by magnitude: n:m keeps n zeros of
// every m of that row.
func prunedBase(t *testing.T, name, pattern string) string {
	t.Helper()
	src, err := family.Open(filepath.Join(oracleDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dense, dir := filepath.Join(t.TempDir(), "dense"), filepath.Join(t.TempDir(), "base")
	err = family.Rewrite(t.Context(), src, dense, func(l family.Linear) (family.Linear, error) {
		if strings.HasSuffix(l.Name, "q_proj") {
			row := l.Weight.Cols * l.Weight.DType.Size()
			b := bytes.Clone(l.Weight.Mem.Host)
			clear(b[3*row : 4*row])
			l.Weight.Mem = tensor.Mem{Host: b}
			l.Mask, l.Pattern = nil, sparse.Pattern{}
		}
		return l, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, "prune", "--model", dense, "--out", dir, "--pattern", pattern, "--pruner", "magnitude")
	return dir
}

// trained is the adapter of a few steps.
func trained(t *testing.T, base string, more ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "run")
	must(t, append([]string{"train", "--model", base, "--data", filepath.Join(oracleDir, "ids.jsonl"), "--out", out, "--seq", "24", "--rank", "3", "--alpha", "9",
		"--lr", "0.02", "--max-steps", "4", "--accum", "2", "--cache-dir", t.TempDir()}, more...)...)
	return out
}

func merged(t *testing.T, base, adapter string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "merged")
	must(t, "merge", "--model", base, "--adapter", adapter, "--out", out)
	return out
}

func readFile(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// poke overwrites the bits of weight k of a tensor in model.safetensors.
func poke(t *testing.T, dir, name string, size, k int, bits uint32) {
	t.Helper()
	b := readFile(t, dir, "model.safetensors")
	n := binary.LittleEndian.Uint64(b)
	var header map[string]struct {
		At []int `json:"data_offsets"`
	}
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	at := 8 + int(n) + header[name].At[0] + k*size
	var word [4]byte
	binary.LittleEndian.PutUint32(word[:], bits)
	copy(b[at:at+size], word[:size])
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOneExtraNonZeroBeItSubnormalFailsVerifyByNameAndPlace(t *testing.T) {
	const name, row = "model.layers.1.mlp.down_proj", 11
	for folder, c := range map[string]struct {
		size int
		sign uint32
	}{"llama": {4, 1 << 31}, "mistral": {2, 1 << 15}, "qwen2": {2, 1 << 15}} {
		base := prunedBase(t, folder, "2:4")
		f, err := family.Open(base)
		if err != nil {
			t.Fatal(err)
		}
		l, err := f.Linear(name)
		if err != nil {
			t.Fatal(err)
		}
		mask := l.Mask[row*sparse.Words(l.Weight.Cols)]
		col := 9
		for mask>>col&1 == 1 {
			col++
		}
		k := row*l.Weight.Cols + col
		f.Close()
		for bits, want := range map[uint32]int{0: 0, c.sign: 0, 1: 1, c.sign | 1: 1} {
			m := copyFolder(t, base)
			poke(t, m, name+".weight", c.size, k, bits)
			code, out, errs := call("verify", "--base", base, "--merged", m)
			if code != want {
				t.Fatalf("%s with bits %#x at a pruned place: exit %d, want %d\n%s%s", folder, bits, code, want, out, errs)
			}
			if place := fmt.Sprintf("[%d,%d] (bits %#x)", row, col, bits); want == 1 && (!strings.Contains(errs, name) || !strings.Contains(errs, place)) {
				t.Errorf("%s: the error names neither %s nor %s: %s", folder, name, place, errs)
			}
		}
	}
}

func TestVerifyNamesWhatElseIsNotAsInTheBase(t *testing.T) {
	base := prunedBase(t, "llama", "2:4")
	kept := 0
	f, err := family.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.Linear("model.layers.0.mlp.up_proj")
	if err != nil {
		t.Fatal(err)
	}
	for l.Mask[0]>>kept&1 == 0 {
		kept++
	}
	f.Close()
	biased := copyFolder(t, filepath.Join(oracleDir, "qwen2")) // has biases that a LLaMA does not have
	retyped := copyFolder(t, base)                             // the same bytes, said to be integers
	file := filepath.Join(retyped, "model.safetensors")
	typed := bytes.Replace(readFile(t, retyped, "model.safetensors"), []byte(`"model.norm.weight":{"dtype":"F32"`), []byte(`"model.norm.weight":{"dtype":"I32"`), 1)
	if err := os.WriteFile(file, typed, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := call("verify", "--base", base, "--merged", retyped); code != 1 || !strings.Contains(out, "FAULT model.norm.weight differs from the base\n") {
		t.Errorf("retyped: exit %d:\n%s", code, out)
	}
	for want, c := range map[string]struct {
		dir, name string
		k         int
		bits      uint32
	}{
		fmt.Sprintf("model.layers.0.mlp.up_proj: the value at [0,%d] is NaN or infinite", kept): {copyFolder(t, base), l.Name + ".weight", kept, 0x7f800001},
		"model.norm.weight differs from the base":                                               {copyFolder(t, base), "model.norm.weight", 5, 0x3f800000},
		"model.embed_tokens.weight differs from the base":                                       {copyFolder(t, base), "model.embed_tokens.weight", 61*16 - 1, 0},
		"model.layers.0.self_attn.q_proj.bias is not in the base":                               {dir: biased},
	} {
		if c.name != "" {
			poke(t, c.dir, c.name, 4, c.k, c.bits)
		}
		code, out, _ := call("verify", "--base", base, "--merged", c.dir)
		if code != 1 || !strings.Contains(out, "FAULT "+want+"\n") {
			t.Errorf("exit %d, want the fault %q:\n%s", code, want, out)
		}
	}
}

func TestABaseWithNothingPrunedIsNotVerified(t *testing.T) {
	dense := filepath.Join(oracleDir, "llama")
	code, out, errs := call("verify", "--json", "--base", dense, "--merged", dense)
	if code != exitFailed || out != "" || !strings.Contains(errs, "no weight of "+dense+" is pruned") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestAKeptZeroTrainsResumesMergesAndVerifiesAsKept(t *testing.T) {
	for _, c := range [][2]string{{"llama", "float32"}, {"mistral", "float32"}, {"qwen3", "float32"}, {"mistral", "bfloat16"}} {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			base := prunedBase(t, c[0], "2:4")
			run := trained(t, base, "--save-every", "2", "--keep-last", "0", "--dtype", c[1])
			resumed := trained(t, base, "--save-every", "2", "--resume", filepath.Join(run, "checkpoint-2"), "--dtype", c[1])
			if !bytes.Equal(readFile(t, run, safetensors.AdapterFile), readFile(t, resumed, safetensors.AdapterFile)) {
				t.Error("the resumed run ends with another adapter")
			}
			m := merged(t, base, resumed)
			var before, after Verification
			answer(t, &before, "verify", "--base", base, "--merged", base)
			answer(t, &after, "verify", "--base", base, "--merged", m)
			if before.KeptZero < 2*8 || after.KeptZero > before.KeptZero/4 || after.Extra != 0 || after.Pruned != before.Pruned || after.Pruned*2 != after.Weights {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if !slices.EqualFunc(masks(t, base), masks(t, m), func(a, b safetensors.Mask) bool {
				return a.Linear == b.Linear && a.Pattern == b.Pattern && bytes.Equal(a.Bits, b.Bits)
			}) {
				t.Error("the merged folder has other masks than its base")
			}
		})
	}
}

func masks(t *testing.T, dir string) []safetensors.Mask {
	t.Helper()
	m, err := safetensors.ReadMasks(dir)
	if err != nil || m == nil {
		t.Fatal(m, err)
	}
	t.Cleanup(func() { m.Close() })
	return m.All()
}

func TestTheMergedModelIsTheAdaptedOneUpToOneRounding(t *testing.T) {
	for folder, tol := range map[string]float64{"llama": 1e-6, "qwen3": 1e-6, "mistral": 2e-2, "qwen2": 5e-3} {
		for _, method := range []string{"splora", "lora"} {
			base := prunedBase(t, folder, "2:4")
			run := trained(t, base, "--method", method)
			var dense, adapted, result Perplexity
			data := []string{"--data", filepath.Join(oracleDir, "ids.jsonl"), "--seq", "24"}
			answer(t, &dense, append(data, "eval", "--model", base)...)
			answer(t, &adapted, append(data, "eval", "--model", base, "--adapter", run)...)
			answer(t, &result, append(data, "eval", "--model", merged(t, base, run))...)
			if d := relative(result.PPL, adapted.PPL); !(d <= tol) || !(relative(dense.PPL, adapted.PPL) > 0.05) {
				t.Errorf("%s %s: base %v, adapted %v, merged %v: off by %.1e", folder, method, dense.PPL, adapted.PPL, result.PPL, d)
			}
		}
	}
}

func TestBFloat16EvaluatesAndGeneratesAsFloat32DoesUpToItsRounding(t *testing.T) {
	base := prunedBase(t, "qwen3", "2:4")
	run := trained(t, base)
	args := []string{"eval", "--model", base, "--adapter", run, "--data", filepath.Join(oracleDir, "ids.jsonl"), "--seq", "24"}
	var full, half Perplexity
	answer(t, &full, args...)
	answer(t, &half, append(args, "--dtype", "bfloat16")...)
	if d := relative(half.PPL, full.PPL); !(d <= 0.01) || d == 0 {
		t.Errorf("perplexity %v in bfloat16, %v in float32", half.PPL, full.PPL)
	}
	var text struct{ IDs []int32 }
	answer(t, &text, "generate", "--model", base, "--adapter", run, "--ids", "1,2,3,4,5", "--max-new-tokens", "4", "--dtype", "bfloat16")
	if len(text.IDs) == 0 {
		t.Error("nothing was generated")
	}
	if code, _, err := call(append(args, "--dtype", "float16")...); code != exitUsage || !strings.Contains(err, "float32 or bfloat16") {
		t.Errorf("--dtype float16: exit %d, %s", code, err)
	}
}

func TestPlainLoRAMergesDenseWhereItAdapts(t *testing.T) {
	base := prunedBase(t, "llama", "0.5")
	m := merged(t, base, trained(t, base, "--method", "lora", "--targets", "q_proj"))
	code, out, errs := call("verify", "--json", "--base", base, "--merged", m)
	var v Verification
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err, errs)
	}
	if code != 1 || len(v.Faults) != 2 || !strings.HasPrefix(v.Faults[1], "model.layers.1.self_attn.q_proj: 128 values") {
		t.Errorf("exit %d, faults %q", code, v.Faults)
	}
	all := merged(t, base, trained(t, base, "--method", "lora"))
	_, out, _ = call("verify", "--json", "--base", base, "--merged", all)
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Density != 1 || v.Extra != v.Pruned {
		t.Errorf("%v, %+v", err, v)
	}
	if n := len(masks(t, all)); n != 0 {
		t.Errorf("the dense result has %d masks", n)
	}
}

func TestAPackedBaseDoesWhatItsFolderDoesAndComesBackBitForBit(t *testing.T) {
	for folder, pattern := range map[string]string{"llama": "0.6", "mistral": "2:4", "qwen2": "1:4", "linear-rope": "0.5"} {
		t.Run(folder+" "+pattern, func(t *testing.T) {
			base := prunedBase(t, folder, pattern)
			packed, back := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "back")
			must(t, "export", "--model", base, "--format", "packed", "--out", packed)
			must(t, "export", "--model", packed, "--format", "hf", "--out", back)
			same(t, base, back, "model.safetensors", "mask.safetensors", "config.json")

			run, packedRun := trained(t, base), trained(t, packed)
			same(t, run, packedRun, safetensors.AdapterFile)
			one, two := merged(t, base, run), merged(t, packed, packedRun)
			same(t, one, two, "model.safetensors", "mask.safetensors")
			must(t, "export", "--model", two, "--format", "packed", "--out", filepath.Join(two, "..", "packed"))
			must(t, "verify", "--base", packed, "--merged", two)
			must(t, "verify", "--base", packed, "--merged", filepath.Join(two, "..", "packed"))

			var p, q Perplexity
			for dir, p := range map[string]*Perplexity{base: &p, packed: &q} {
				answer(t, p, "eval", "--model", dir, "--adapter", run, "--data", filepath.Join(oracleDir, "ids.jsonl"), "--seq", "24")
			}
			if p != q {
				t.Errorf("perplexity %+v, packed %+v", p, q)
			}
			for dir, out := range map[string]string{base: "a", packed: "b"} {
				must(t, "prune", "--model", dir, "--out", filepath.Join(back, out), "--pattern", "0.8", "--calibration", filepath.Join(oracleDir, "calibration.jsonl"))
			}
			same(t, filepath.Join(back, "a"), filepath.Join(back, "b"), "model.safetensors", "mask.safetensors")
		})
	}
}

// same compares files of two folders.
func same(t *testing.T, a, b string, names ...string) {
	t.Helper()
	for _, name := range names {
		if !bytes.Equal(readFile(t, a, name), readFile(t, b, name)) {
			t.Errorf("%s differs in %s and %s", name, a, b)
		}
	}
}
