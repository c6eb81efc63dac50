package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// form is the shape of a published model; its weights are random.
type form struct {
	Name                                         string
	Hidden, Inter, Layers, Heads, KVHeads, Vocab int
}

// forms are LLaMA-2 7B and 13B (Touvron et al. 2023), Qwen2.5-32B and LLaMA-2 70B; tiny is for trying the command out.
var forms = []form{
	{"tiny", 128, 384, 2, 4, 2, 320},
	{"7b", 4096, 11008, 32, 32, 32, 32000},
	{"13b", 5120, 13824, 40, 40, 40, 32000},
	{"32b", 5120, 27648, 64, 40, 8, 152064},
	{"70b", 8192, 28672, 80, 64, 8, 32000},
}

func formNamed(name string) (form, error) {
	i := slices.IndexFunc(forms, func(f form) bool { return f.Name == name })
	if i < 0 {
		var names []string
		for _, f := range forms {
			names = append(names, f.Name)
		}
		return form{}, usagef("--shape %q: %s", name, strings.Join(names, ", "))
	}
	return forms[i], nil
}

// config is the form as a LLaMA with room for seq positions.
func (f form) config(seq int) (decoder.Config, error) {
	text, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16",
		"hidden_size": f.Hidden, "intermediate_size": f.Inter, "num_hidden_layers": f.Layers,
		"num_attention_heads": f.Heads, "num_key_value_heads": f.KVHeads, "vocab_size": f.Vocab,
		"max_position_embeddings": max(4096, seq), "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
	})
	if err != nil {
		panic("splora-bench: " + err.Error())
	}
	a, err := family.ParseConfig(text)
	return a.Config, err
}

// linearWeights is the number of weights of the blocks' linears, N of 6·N FLOP per token.
func linearWeights(c decoder.Config) (n int) {
	for j := range decoder.Linears {
		out, in := c.Shape(j)
		n += c.Layers * out * in
	}
	return n
}

// maker makes random weights where they will stay, each matrix by repeating one random tile, so that no host has to hold the model.
// Every matrix has memory of its own: what is read from memory is as much as in a real model.
type maker struct {
	compute.Memory
	pattern sparse.Pattern
	values  []byte // bfloat16, N(0, 0.02²)
	bits    []byte // whole words of the pattern
}

const tile = 8 << 20 // bytes

// newMaker takes an n:m pattern whose m divides 64.
func newMaker(mem compute.Memory, p sparse.Pattern, seed uint64) (*maker, error) {
	if p.Unstructured() || 64%p.M != 0 {
		return nil, usagef("--pattern: random weights are made on a device as n:m with m a power of two up to 64, such as 2:4")
	}
	m := &maker{Memory: mem, pattern: p, values: make([]byte, tile), bits: make([]byte, tile)}
	r := rand.New(rand.NewPCG(seed, 3))
	for i := 0; i < tile; i += 2 {
		h := tensor.ToBF16(float32(r.NormFloat64()) * 0.02)
		m.values[i], m.values[i+1] = byte(h), byte(h>>8)
	}
	for i := 0; i < tile; i += 8 {
		m.word(r, m.bits[i:i+8])
	}
	return m, nil
}

// word sets 64 mask bits.
func (m *maker) word(r *rand.Rand, b []byte) {
	clear(b)
	for g := 0; g < 64; g += m.pattern.M {
		for _, j := range r.Perm(m.pattern.M)[:m.pattern.N] {
			b[(g+j)/8] |= 1 << ((g + j) % 8)
		}
	}
}

// repeater is a backend that repeats by itself what it got once.
type repeater interface {
	Repeat(dst tensor.Tensor, piece []byte)
}

// fill is n new bytes there, repeated from src.
func (m *maker) fill(n int, src []byte) tensor.Mem {
	mem := m.Alloc(n)
	if r, ok := m.Memory.(repeater); ok {
		r.Repeat(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: n, Mem: mem}, src)
		return mem
	}
	for at := 0; at < n; at += len(src) {
		k := min(len(src), n-at)
		m.Upload(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: n, Mem: mem}.Window(at, 1, k), src[:k])
	}
	return mem
}

func (m *maker) table(rows, cols int) tensor.Tensor {
	return tensor.Tensor{DType: tensor.BF16, Rows: rows, Cols: cols, Mem: m.fill(2*rows*cols, m.values)}
}

func (m *maker) norm(n int) tensor.Tensor {
	ones := slices.Repeat([]float32{1}, n)
	return tensor.Tensor{Rows: 1, Cols: n, Mem: m.fill(4*n, tensor.Of(ones).Mem.Host)}
}

func (m *maker) linear(out, in int) (*sparse.Weight, error) {
	if in%64 != 0 {
		return nil, fmt.Errorf("random weights need inputs in multiples of 64, not %d", in)
	}
	kept := out * in / m.pattern.M * m.pattern.N
	return &sparse.Weight{Out: out, In: in, Pattern: m.pattern, Bits: m.fill(out*in/8, m.bits),
		Values: tensor.Tensor{DType: tensor.BF16, Rows: 1, Cols: kept, Mem: m.fill(2*kept, m.values)}}, nil
}

// model makes all weights of c.
func (m *maker) model(c decoder.Config) (_ *decoder.Resident, err error) {
	r := &decoder.Resident{EmbedTable: m.table(c.Vocab, c.Hidden), HeadTable: m.table(c.Vocab, c.Hidden), Norm: m.norm(c.Hidden)}
	for i := range c.Layers {
		b := decoder.Block{AttnNorm: m.norm(c.Hidden), MLPNorm: m.norm(c.Hidden)}
		for j := range decoder.Linears {
			out, in := c.Shape(j)
			b.Linears[j].Name = family.LinearName(i, j)
			if b.Linears[j].W, err = m.linear(out, in); err != nil {
				return nil, err
			}
		}
		r.Blocks = append(r.Blocks, b)
	}
	return r, nil
}

// counter is memory that is only counted, in pieces of align.
type counter struct {
	compute.Memory
	align, n int
}

func (c *counter) Alloc(n int) tensor.Mem {
	c.n += max(1, (n+c.align-1)/c.align) * c.align
	return tensor.Mem{Device: uintptr(c.align)}
}

func (*counter) Upload(tensor.Tensor, []byte) {}
