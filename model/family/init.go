package family

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// InitConfig describes a model of random weights.
type InitConfig struct {
	// Config is the text of a config.json, and Path the name that errors in it have; default config.json.
	Config []byte
	Path   string
	// Pattern is "2:4", "0.5", … for the blocks' linears; "" is dense. Which weights are kept is random, too; an unstructured
	// pattern removes the same number from every row.
	Pattern string
	// Packed writes the packed form instead of Hugging Face's.
	Packed bool
	// DType is "float32", "bfloat16" or "float16"; "" is what the config says.
	DType string
	Seed  uint64
}

// Init writes a model of random weights: N(0, 0.02²), norms 1, biases 0. It holds one linear at a time, so that any size can be
// made; the numbers depend on the seed alone, not on the form. See Rewrite for out and ctx.
func Init(ctx context.Context, out string, c InitConfig) error {
	r := &random{seed: c.Seed}
	if err := r.config(c); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return aside(out, func(dir string) error {
		if c.Packed {
			return writePacked(dir, until{ctx, r})
		}
		return writeHF(dir, until{ctx, r}, nil)
	})
}

// random is a source of random numbers.
type random struct {
	arch     Architecture
	json     []byte
	dtype    tensor.DType
	sparse   bool
	pattern  sparse.Pattern
	sparsity float64
	seed     uint64
	shapes   map[string][2]int
}

func (r *random) config(c InitConfig) (err error) {
	if r.arch, err = ParseConfig(c.Config); err != nil {
		return fmt.Errorf("%s: %w", cmp.Or(c.Path, "config.json"), err)
	}
	r.dtype = r.arch.DType
	if c.DType != "" {
		if r.dtype, err = ParseDType(c.DType); err != nil {
			return err
		}
	}
	if c.Pattern != "" {
		r.pattern, r.sparsity, err = sparse.ParsePattern(c.Pattern)
		r.sparse = r.sparsity > 0
		if err != nil {
			return err
		}
	}
	r.shapes = map[string][2]int{}
	for i := range r.arch.Config.Layers {
		for k := range linears {
			out, in := r.arch.Config.Shape(k)
			r.shapes[LinearName(i, k)] = [2]int{out, in}
		}
	}
	r.json, err = patch(c.Config, r.arch, r.dtype)
	return err
}

// patch writes type, architecture and model_type into a config.json (transformers wants all three), and leaves it alone where
// they are there.
func patch(text []byte, a Architecture, t tensor.DType) ([]byte, error) {
	f := fields{}
	if err := json.Unmarshal(text, &f.m); err != nil {
		return nil, err
	}
	_, named := f.m["architectures"]
	_, typed := f.m["model_type"]
	if named && typed && f.text("dtype", f.text("torch_dtype", "")) == t.String() {
		return text, nil
	}
	for _, fam := range families() {
		if fam.architecture == a.Name {
			f.m["architectures"], f.m["model_type"] = json.RawMessage(fmt.Sprintf("[%q]", a.Name)), json.RawMessage(fmt.Sprintf("%q", fam.modelType))
		}
	}
	key := "dtype"
	if _, ok := f.m["torch_dtype"]; ok {
		key = "torch_dtype"
		delete(f.m, "dtype")
	}
	f.m[key] = json.RawMessage(fmt.Sprintf("%q", t))
	b, err := json.MarshalIndent(f.m, "", "  ")
	return append(b, '\n'), err
}

func (r *random) text() []byte    { return r.json }
func (r *random) names() []string { return LinearNames(r.arch.Config) }

func (r *random) rest() []safetensors.Spec {
	var specs []safetensors.Spec
	for _, p := range others(r.arch.Config) {
		specs = append(specs, safetensors.Spec{Name: p.name, DType: safetensors.Of(r.dtype), Shape: p.shape})
	}
	return specs
}

// copy writes a norm, a bias, or the embedding some rows at a time.
func (r *random) copy(s safetensors.Spec, w *writer) error {
	if len(s.Shape) == 1 {
		t := tensor.New(r.dtype, 1, s.Shape[0])
		v := make([]float32, t.Cols)
		for i := range v {
			if strings.HasSuffix(s.Name, "norm.weight") {
				v[i] = 1
			}
		}
		tensor.Narrow(t, v)
		return w.Write(s.Name, t.Mem.Host)
	}
	const rows = 1024
	for i := 0; i < s.Shape[0]; i += rows {
		t := tensor.New(r.dtype, min(rows, s.Shape[0]-i), s.Shape[1])
		r.fill(s.Name, t, nil, i)
		if err := w.Write(s.Name, t.Mem.Host); err != nil {
			return err
		}
	}
	return nil
}

// fill sets the rows of t, which are rows first… of the named matrix, and their masks.
func (r *random) fill(name string, t tensor.Tensor, mask []uint64, first int) {
	h := fnv.New64a()
	h.Write([]byte(name))
	key, words := h.Sum64(), sparse.Words(t.Cols)
	n := min(runtime.GOMAXPROCS(0), t.Rows)
	var wg sync.WaitGroup
	for p := range n {
		wg.Go(func() {
			v := make([]float32, t.Cols)
			for i := t.Rows * p / n; i < t.Rows*(p+1)/n; i++ {
				g := rand.New(rand.NewPCG(r.seed, key+uint64(first+i)))
				for j := range v {
					v[j] = float32(0.02 * g.NormFloat64())
				}
				if mask != nil {
					r.choose(g, mask[i*words:(i+1)*words], v)
				}
				tensor.Narrow(t.Slice(i, i+1), v)
			}
		})
	}
	wg.Wait()
}

// choose draws which weights of a row are kept, and clears the others.
func (r *random) choose(g *rand.Rand, bits []uint64, v []float32) {
	m, n := r.pattern.M, 0
	if r.pattern.Unstructured() {
		m = len(v)
	}
	for j := range v {
		left := min(m-j%m, len(v)-j)
		if j%m == 0 {
			n = min(r.keep(len(v)), left)
		}
		if g.IntN(left) < n {
			bits[j/64] |= 1 << (j % 64)
			n--
		} else {
			v[j] = 0
		}
	}
}

// keep is the number of kept weights of a group.
func (r *random) keep(in int) int {
	if r.pattern.Unstructured() {
		return in - sparse.Removed(in, r.sparsity)
	}
	return r.pattern.N
}

func (r *random) Linear(name string) (Linear, error) {
	s := r.shapes[name]
	l := Linear{Name: name, Weight: tensor.New(r.dtype, s[0], s[1]), Pattern: r.pattern}
	if r.sparse {
		l.Mask = make([]uint64, s[0]*sparse.Words(s[1]))
	}
	r.fill(name, l.Weight, l.Mask, 0)
	return l, nil
}

func (r *random) packed(name string) (*sparse.Weight, error) {
	l, err := r.Linear(name)
	if err != nil {
		return nil, err
	}
	return sparse.Pack(l.Weight, l.Mask, l.Pattern)
}

func (r *random) outline(name string) (outline, error) {
	s := r.shapes[name]
	o := outline{dtype: safetensors.Of(r.dtype), out: s[0], in: s[1], dense: !r.sparse, pattern: r.pattern}
	if o.nnz = s[0] * r.pattern.Keep(s[1]); r.pattern.Unstructured() {
		o.nnz = s[0] * r.keep(s[1])
	}
	return o, nil
}

var _ source = &random{}
