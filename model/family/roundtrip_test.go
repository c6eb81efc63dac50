package family

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// small is a model whose rows are no multiple of 64, 8 or the pattern, and longer than one block of starts.
var small = obj{"hidden_size": 44, "intermediate_size": 266, "num_hidden_layers": 2, "attention_bias": true, "head_dim": 10}

// made is an open folder of random weights.
func made(t testing.TB, c InitConfig) *Folder {
	t.Helper()
	if c.Config == nil {
		c.Config = llamaConfig(small)
	}
	dir := filepath.Join(t.TempDir(), "m")
	if err := Init(t.Context(), dir, c); err != nil {
		t.Fatal(err)
	}
	return opened(t, dir)
}

func opened(t testing.TB, dir string) *Folder {
	t.Helper()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// rewritten is src with awkward kept values: ±0, subnormals and the largest numbers survive like any other.
func rewritten(t testing.TB, src *Folder) *Folder {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	dir := filepath.Join(t.TempDir(), "awkward")
	err := Rewrite(t.Context(), src, dir, func(l Linear) (Linear, error) {
		w := tensor.New(l.Weight.DType, l.Weight.Rows, l.Weight.Cols)
		copy(w.Mem.Host, l.Weight.Mem.Host)
		size := w.DType.Size()
		odd := []uint32{0, 1 << (8*size - 1), 1, 1<<(8*size-1) | 1, 0x3c00}
		for n := range w.Len() {
			i, j := n/w.Cols, n%w.Cols
			if kept := l.Mask == nil || l.Mask[i*sparse.Words(w.Cols)+j/64]>>(j%64)&1 == 1; kept && r.IntN(4) == 0 {
				b := binary.LittleEndian.AppendUint32(nil, odd[r.IntN(len(odd))])
				copy(w.Mem.Host[n*size:(n+1)*size], b)
			}
		}
		l.Weight = w
		return l, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return opened(t, dir)
}

// content are all files of a folder.
func content(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	m := map[string][]byte{}
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if m[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func same(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for n, b := range want {
		if !bytes.Equal(got[n], b) {
			t.Errorf("%s differs (%d and %d bytes)", n, len(got[n]), len(b))
		}
	}
	if len(got) != len(want) {
		t.Errorf("files %v, want %v", sortedKeys(got), sortedKeys(want))
	}
}

func TestPackedAndBackIsTheSameFolderByteForByte(t *testing.T) {
	for p, types := range map[string][]string{"": {"float16"}, "2:4": {"bfloat16", "float32"}, "0.6": {"float16", "bfloat16"}, "3:7": {"float32"}, "1:4": {"bfloat16"}} {
		for _, dt := range types {
			t.Run(p+" "+dt, func(t *testing.T) {
				hf := rewritten(t, made(t, InitConfig{Pattern: p, DType: dt, Seed: 7}))
				for _, n := range []string{"tokenizer.json", "chat_template.jinja", "generation_config.json", "tokenizer_config.json"} {
					if err := os.WriteFile(filepath.Join(hf.Dir, n), []byte("{\"is\":\""+n+"\"}"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
				if err := WritePacked(t.Context(), hf, a); err != nil {
					t.Fatal(err)
				}
				packed := opened(t, a)
				if !packed.Packed {
					t.Fatal("not recognised as packed")
				}
				if err := WriteHF(t.Context(), packed, b); err != nil {
					t.Fatal(err)
				}
				same(t, content(t, b), content(t, hf.Dir))
				again := filepath.Join(t.TempDir(), "again")
				if err := WritePacked(t.Context(), packed, again); err != nil {
					t.Fatal(err)
				}
				same(t, content(t, again), content(t, a))
			})
		}
	}
}

func TestBothFormsLoadTheSameModel(t *testing.T) {
	for _, p := range []string{"", "2:4", "0.6"} {
		hf := rewritten(t, made(t, InitConfig{Pattern: p, DType: "bfloat16", Seed: 9}))
		dir := filepath.Join(t.TempDir(), "p")
		if err := WritePacked(t.Context(), hf, dir); err != nil {
			t.Fatal(err)
		}
		packed := opened(t, dir)
		a, err := hf.Load()
		if err != nil {
			t.Fatal(err)
		}
		b, err := packed.Load()
		if err != nil {
			t.Fatal(err)
		}
		got, want := loaded(packed, b), loaded(hf, a)
		for n := range want {
			if digest(got[n]) != digest(want[n]) {
				t.Errorf("%s: %s differs", p, n)
			}
		}
		for i := range a.Blocks {
			for k := range linears {
				x, y := a.Blocks[i].Linears[k].W, b.Blocks[i].Linears[k].W
				if x.Pattern != y.Pattern || x.NNZ() != y.NNZ() || !bytes.Equal(x.Values.Mem.Host, y.Values.Mem.Host) || !bytes.Equal(x.Bits.Host, y.Bits.Host) || !bytes.Equal(x.Starts.Host, y.Starts.Host) {
					t.Errorf("%s: %s is packed differently", p, LinearName(i, k))
				}
			}
		}
		if p != "" && (len(hf.Notes) != 1 || hf.Notes[0] != packed.Notes[0] || strings.Contains(hf.Notes[0], "derived")) {
			t.Errorf("notes %q and %q", hf.Notes, packed.Notes)
		}
	}
}

func TestAPackedFolderIsMappedNotCopied(t *testing.T) {
	for _, p := range []string{"2:4", "0.5"} {
		f := made(t, InitConfig{Pattern: p, DType: "bfloat16", Packed: true})
		r, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		w := r.Blocks[1].Linears[6].W
		for part, mem := range map[string]tensor.Mem{"values": w.Values.Mem, "bits": w.Bits, "starts": w.Starts} {
			x, ok := f.weights.Tensor(LinearName(1, 6) + "." + part)
			if !ok && !(part == "starts" && w.Computed()) {
				t.Fatalf("no %s", part)
			}
			if ok && &x.Data[0] != &mem.Host[0] {
				t.Errorf("%s %s are a copy", p, part)
			}
		}
		if e, _ := f.weights.Tensor(embedName); &e.Data[0] != &r.Embed().Mem.Host[0] {
			t.Error("the embedding is a copy")
		}
		for _, file := range f.weights.Files {
			for _, x := range file.Tensors() {
				if at := int64(len(file.Header)) + 8 + offset(file, x); !strings.HasPrefix(x.Name, "__pad__") && at%64 != 0 {
					t.Errorf("%s begins at byte %d of the file", x.Name, at)
				}
			}
		}
	}
}

// offset is where a tensor begins in the data, summed from those before it.
func offset(f *safetensors.File, x safetensors.Tensor) (n int64) {
	for _, t := range f.Tensors() {
		if t.Name == x.Name {
			return n
		}
		n += t.Bytes()
	}
	panic("not there")
}

func TestAFolderWithoutMasksHasTheNonZeroWeights(t *testing.T) {
	f := rewritten(t, made(t, InitConfig{Pattern: "2:4", DType: "bfloat16", Seed: 1}))
	if err := os.Remove(filepath.Join(f.Dir, safetensors.MaskFile)); err != nil {
		t.Fatal(err)
	}
	f = opened(t, f.Dir)
	r, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Blocks {
		for k, b := range r.Blocks[i].Linears {
			x, _ := f.weights.Tensor(LinearName(i, k) + ".weight")
			n := 0
			for j := 0; j < len(x.Data); j += 2 {
				if binary.LittleEndian.Uint16(x.Data[j:])<<1 != 0 {
					n++
				}
			}
			if b.W.NNZ() != n || b.W.Dense() {
				t.Errorf("%s keeps %d of %d non-zero weights", b.Name, b.W.NNZ(), n)
			}
		}
	}
	if len(f.Notes) != 1 || !strings.Contains(f.Notes[0], "no mask.safetensors: masks are derived") || !strings.Contains(f.Notes[0], "14 unstructured") {
		t.Errorf("notes %q", f.Notes)
	}
}

func TestAPrunedMinusZeroComesBackFromThePackedFormAsZero(t *testing.T) {
	f := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16"})
	dir := edit(t, f, "model", on(q0+".weight", func(x *safetensors.Tensor) *safetensors.Tensor {
		for i := 0; i < len(x.Data); i += 2 {
			if x.Data[i]|x.Data[i+1] == 0 {
				x.Data[i+1] = 0x80 // −0, as w·0 leaves it where w < 0
			}
		}
		return x
	}))
	os.Remove(filepath.Join(dir, safetensors.MaskFile))
	packed, back := filepath.Join(t.TempDir(), "packed"), filepath.Join(t.TempDir(), "back")
	if err := WritePacked(t.Context(), opened(t, dir), packed); err != nil {
		t.Fatal(err)
	}
	if err := WriteHF(t.Context(), opened(t, packed), back); err != nil {
		t.Fatal(err)
	}
	for _, name := range LinearNames(f.Config) {
		want, _ := f.Linear(name)
		got, err := opened(t, back).Linear(name)
		if err != nil || !bytes.Equal(got.Weight.Mem.Host, want.Weight.Mem.Host) || !slices.Equal(got.Mask, want.Mask) || got.Pattern != want.Pattern {
			t.Errorf("%s: another weight or mask, %v", name, err)
		}
	}
}

func TestDerivedMasksFindThePatternAndTheDenseLinears(t *testing.T) {
	sparse := made(t, InitConfig{Pattern: "2:4", Seed: 1})
	os.Remove(filepath.Join(sparse.Dir, safetensors.MaskFile))
	sparse = opened(t, sparse.Dir)
	if r, err := sparse.Load(); err != nil || r.Blocks[0].Linears[3].W.Pattern.String() != "2:4" {
		t.Error(err, sparse.Notes)
	}
	dense := made(t, InitConfig{Seed: 1})
	os.Remove(filepath.Join(dense.Dir, safetensors.MaskFile))
	dense = opened(t, dense.Dir)
	if r, err := dense.Load(); err != nil || !r.Blocks[0].Linears[3].W.Dense() {
		t.Error(err)
	}
	if !strings.Contains(sparse.Notes[0], "14 2:4; 50.11 %") || !strings.Contains(dense.Notes[0], "14 dense (every weight is kept); 100 %") {
		t.Errorf("notes %q %q", sparse.Notes, dense.Notes)
	}
}

func TestInitKeepsWhatThePatternSaysAndDependsOnTheSeedAlone(t *testing.T) {
	for p, keep := range map[string]func(in int) int{
		"2:4": func(in int) int { return in/4*2 + min(2, in%4) },
		"0.7": func(in int) int { return in - in*7/10 },
		"":    func(in int) int { return in },
	} {
		f := made(t, InitConfig{Pattern: p, DType: "bfloat16", Seed: 3})
		r, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range r.Blocks[1].Linears {
			for i := range b.W.Out {
				if x, y := b.W.Row(i); y-x != keep(b.W.In) {
					t.Fatalf("%s: row %d of %s keeps %d of %d", p, i, b.Name, y-x, b.W.In)
				}
			}
		}
		sum, sq, n := 0.0, 0.0, 0
		v := make([]float32, r.Embed().Len())
		tensor.Widen(v, r.Embed())
		for _, x := range v {
			sum, sq, n = sum+float64(x), sq+float64(x)*float64(x), n+1
		}
		if mean, variance := sum/float64(n), sq/float64(n); !(mean*mean < 2e-5) || !(variance > 3e-4 && variance < 5e-4) {
			t.Errorf("mean %v, mean square %v of %d; want 0 and 4e-4", mean, variance, n)
		}
		for _, x := range r.FinalNorm().Float32() {
			if x != 1 {
				t.Errorf("norm %v", x)
			}
		}
		g := made(t, InitConfig{Pattern: p, DType: "bfloat16", Seed: 3, Packed: true})
		dir := filepath.Join(t.TempDir(), "x")
		if err := WritePacked(t.Context(), f, dir); err != nil {
			t.Fatal(err)
		}
		same(t, content(t, dir), content(t, g.Dir))
		other := made(t, InitConfig{Pattern: p, DType: "bfloat16", Seed: 4})
		if bytes.Equal(content(t, other.Dir)["model.safetensors"], content(t, f.Dir)["model.safetensors"]) {
			t.Error("the seed has no effect")
		}
		for _, want := range []string{`"dtype": "bfloat16"`, `"model_type": "llama"`, "LlamaForCausalLM", `"hidden_size": 44`} {
			if !strings.Contains(string(f.ConfigJSON), want) {
				t.Errorf("config.json lacks %s: %s", want, f.ConfigJSON)
			}
		}
	}
}

func TestRewriteReplacesTheLinearsAndCopiesTheRest(t *testing.T) {
	src := opened(t, filepath.Join("testdata", "qwen2"))
	out := filepath.Join(t.TempDir(), "deep", "er", "out")
	var order []string
	w := tensor.Tensor{}
	err := Rewrite(t.Context(), src, out, func(l Linear) (Linear, error) {
		order = append(order, l.Name)
		if w.Len() != l.Weight.Len() { // the memory is used again
			w = tensor.New(l.Weight.DType, l.Weight.Rows, l.Weight.Cols)
		}
		w = w.Reshape(l.Weight.Rows, l.Weight.Cols)
		clear(w.Mem.Host)
		w.Uint16()[len(order)%w.Cols] = 0x3f80
		mask := make([]uint64, w.Rows*sparse.Words(w.Cols))
		mask[0] = 1<<(len(order)%w.Cols) | 1<<3
		return Linear{Name: l.Name, Weight: w, Mask: mask}, nil
	})
	if err != nil || !slices.Equal(order, LinearNames(src.Config)) {
		t.Fatal(err, order)
	}
	f := opened(t, out)
	r, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range order {
		w := r.Blocks[n/7].Linears[n%7].W
		kept := 2
		if n+1 == 3 {
			kept = 1
		}
		if w.NNZ() != kept || !w.Kept(0, n+1) || !w.Kept(0, 3) {
			t.Errorf("%s keeps %d weights, want %d: a kept zero is lost", name, w.NNZ(), kept)
		}
	}
	for _, s := range src.weights.Tensors() {
		if x, ok := f.weights.Tensor(s.Name); !ok || !strings.Contains(s.Name, "proj.weight") && !bytes.Equal(x.Data, s.Data) {
			t.Errorf("%s is lost or changed", s.Name)
		}
	}
	want := content(t, src.Dir)
	got := content(t, out)
	for _, n := range []string{"config.json", "generation_config.json"} {
		if !bytes.Equal(got[n], want[n]) {
			t.Errorf("%s is changed", n)
		}
	}
	if es, _ := os.ReadDir(filepath.Dir(out)); len(es) != 1 {
		t.Errorf("something is left aside: %v", es)
	}
}

func TestAFailedRewriteLeavesNothing(t *testing.T) {
	src := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16"})
	fill := func(change func(l *Linear)) func(Linear) (Linear, error) {
		return func(l Linear) (Linear, error) {
			w := tensor.New(l.Weight.DType, l.Weight.Rows, l.Weight.Cols)
			copy(w.Mem.Host, l.Weight.Mem.Host)
			l.Weight = w
			if strings.Contains(l.Name, "1.mlp.up") {
				change(&l)
			}
			return l, nil
		}
	}
	for want, f := range map[string]func(Linear) (Linear, error){
		"no more": func(l Linear) (Linear, error) { return l, errors.New("no more") },
		"non-zero values where M = 0": fill(func(l *Linear) {
			for i := range l.Weight.Uint16() {
				l.Weight.Uint16()[i] |= 1
			}
		}),
		"up_proj is not finite in bfloat16 at [0,": fill(func(l *Linear) {
			for j := range l.Weight.Cols {
				if l.Mask[0]>>j&1 == 1 {
					l.Weight.Uint16()[j] = 0xff80
					break
				}
			}
		}),
		"the pattern 2:4 keeps 2":   fill(func(l *Linear) { l.Mask = slices.Clone(l.Mask); l.Mask[0] = 0xf }),
		"was to be replaced, found": fill(func(l *Linear) { l.Weight = l.Weight.Reshape(l.Weight.Cols, l.Weight.Rows) }),
	} {
		parent := t.TempDir()
		err := Rewrite(t.Context(), src, filepath.Join(parent, "out"), f)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if es, _ := os.ReadDir(parent); len(es) != 0 {
			t.Errorf("%s: something is left: %v", want, es)
		}
	}
	full := t.TempDir()
	os.WriteFile(filepath.Join(full, "mine"), nil, 0o644)
	if err := WriteHF(t.Context(), src, full); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a folder with files in it: %v", err)
	}
	if _, err := os.Stat(filepath.Join(full, "mine")); err != nil {
		t.Error(err)
	}
	if err := WriteHF(t.Context(), src, t.TempDir()); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestTheHashIsOfTheModelInEitherForm(t *testing.T) {
	hash := func(f *Folder) string {
		h, err := f.Hash()
		if err != nil || len(h) != 64 {
			t.Fatal(h, err)
		}
		return h
	}
	big := llamaConfig(obj{"hidden_size": 520, "intermediate_size": 260, "vocab_size": 260}) // larger than what is hashed whole
	seen := map[string]string{}
	for _, config := range [][]byte{llamaConfig(small), big} {
		for _, p := range []string{"", "2:4", "0.6"} {
			hf := made(t, InitConfig{Config: config, Pattern: p, DType: "bfloat16", Seed: 1})
			dir := filepath.Join(t.TempDir(), "p")
			if err := WritePacked(t.Context(), hf, dir); err != nil {
				t.Fatal(err)
			}
			h := hash(hf)
			if g := hash(opened(t, dir)); g != h {
				t.Errorf("%s: the packed form has another hash", p)
			}
			other := hash(made(t, InitConfig{Config: config, Pattern: p, DType: "bfloat16", Seed: 2}))
			for _, x := range []string{h, other} {
				if seen[x] != "" {
					t.Errorf("%s has the hash of %s", p, seen[x])
				}
				seen[x] = p
			}
		}
	}
	// One kept weight of value 0 more is another model, though the weights are the same.
	f := made(t, InitConfig{Pattern: "0.5", Seed: 1})
	dir := edit(t, f, "mask", on(q0+".mask", func(x *safetensors.Tensor) *safetensors.Tensor { x.Data[0] = 0xff; return x }))
	if hash(opened(t, dir)) == hash(f) {
		t.Error("another mask has the same hash")
	}
}

func TestOtherTensorsAreListedAndReadRaw(t *testing.T) {
	f := opened(t, filepath.Join("testdata", "qwen2"))
	dir := filepath.Join(t.TempDir(), "p")
	if err := WritePacked(t.Context(), f, dir); err != nil {
		t.Fatal(err)
	}
	p := opened(t, dir)
	if len(f.Others()) != 1+2*(2+3)+1 || len(p.Others()) != len(f.Others()) || len(f.Tensors()) != len(f.Others())+14 {
		t.Errorf("%d and %d others", len(f.Others()), len(p.Others()))
	}
	for _, s := range f.Others() {
		a, err := f.Raw(s.Name)
		b, err2 := p.Raw(s.Name)
		if err != nil || err2 != nil || !bytes.Equal(a.Data, b.Data) || a.DType != b.DType || int64(len(a.Data)) != s.Bytes() {
			t.Errorf("%s: %v %v", s.Name, err, err2)
		}
	}
	if _, err := f.Raw("x"); err == nil || !strings.Contains(err.Error(), `no tensor is named "x"`) {
		t.Error(err)
	}
	if _, err := f.Linear("x"); err == nil || !strings.Contains(err.Error(), `no linear layer is named "x"`) {
		t.Error(err)
	}
}

func TestLinksAndFoldersAmongTheTokenizersFiles(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(src, "blob"), []byte("x"), 0o600)
	if err := os.Symlink("blob", filepath.Join(src, "tokenizer.json")); err != nil {
		t.Skip(err)
	}
	os.Mkdir(filepath.Join(src, "tokenizer"), 0o755)
	os.WriteFile(filepath.Join(src, "model.safetensors"), []byte("x"), 0o600)
	if err := CopyAux(src, dst); err != nil {
		t.Fatal(err)
	}
	if c := content(t, dst); len(c) != 1 || string(c["tokenizer.json"]) != "x" {
		t.Errorf("%v", sortedKeys(c))
	}
	if st, err := os.Lstat(filepath.Join(dst, "tokenizer.json")); err != nil || st.Mode() != fs.FileMode(0o644) {
		t.Error(st.Mode(), err)
	}
	os.Symlink("gone", filepath.Join(src, "tokenizer.model"))
	if err := CopyAux(src, dst); err == nil {
		t.Error("a dangling link is copied")
	}
}

func ExampleKnown() {
	fmt.Println(strings.Join(Known(), " "))
	// Output: LlamaForCausalLM MistralForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM
}

func TestAFolderIsVacantUnlessSomethingIsThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for out, want := range map[string]bool{filepath.Join(dir, "new"): true, t.TempDir(): true, dir: false, file: false} {
		if err := Vacant(out); (err == nil) != want {
			t.Errorf("%s: %v", out, err)
		}
	}
}

// A mount point (as a container's --out is) cannot be replaced either; it goes the way of the working directory.
func TestAnEmptyFolderThatCannotBeReplacedIsFilled(t *testing.T) {
	src := made(t, InitConfig{Pattern: "2:4", DType: "bfloat16"})
	t.Chdir(t.TempDir())
	for _, write := range []func(dir string) error{
		func(dir string) error {
			return Rewrite(t.Context(), src, dir, func(Linear) (Linear, error) { return Linear{}, errors.New("no more") })
		},
		func(dir string) error { return WritePacked(t.Context(), src, dir) },
	} {
		err := write(".")
		names, _ := os.ReadDir(".")
		if err != nil {
			if err.Error() != "no more" || len(names) != 0 {
				t.Errorf("%v; left: %v", err, names)
			}
			continue
		}
		f, err := Open(".")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, n := range names {
			if strings.HasPrefix(n.Name(), ".") {
				t.Errorf("left: %s", n.Name())
			}
		}
		want, _ := src.Hash()
		if got, err := f.Hash(); err != nil || got != want {
			t.Errorf("another model: %v", err)
		}
	}
	if names, _ := os.ReadDir("."); len(names) == 0 {
		t.Error("nothing is written")
	}
}

func TestALinkToAnEmptyFolderStaysALink(t *testing.T) {
	src := made(t, InitConfig{DType: "bfloat16"})
	far, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(far, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteHF(t.Context(), src, link); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(far, "config.json")); err != nil {
		t.Error(err)
	}
	if to, err := os.Readlink(link); to != far {
		t.Errorf("%q: %v", to, err)
	}
}

func TestAnEndedContextEndsEveryWritingAndLeavesNothing(t *testing.T) {
	src := made(t, InitConfig{Config: llamaConfig(small), Pattern: "2:4", Seed: 1})
	ended, end := context.WithCancel(t.Context())
	end()
	for name, write := range map[string]func(out string) error{
		"Init": func(out string) error { return Init(ended, out, InitConfig{Config: llamaConfig(small), Seed: 1}) },
		"Init packed": func(out string) error {
			return Init(ended, out, InitConfig{Config: llamaConfig(small), Pattern: "2:4", Packed: true})
		},
		"WriteHF":     func(out string) error { return WriteHF(ended, src, out) },
		"WritePacked": func(out string) error { return WritePacked(ended, src, out) },
	} {
		parent := t.TempDir()
		if err := write(filepath.Join(parent, "out")); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(parent); len(left) != 0 {
			t.Errorf("%s leaves %v", name, left)
		}
	}
}
