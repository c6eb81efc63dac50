package decoder_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// The backend's buffers after a whole step are the oracle: the survey never says less, and with one thread, whose buffers are all
// used, little more.
func TestASurveySaysBeforehandWhatTheBackendComesToHold(t *testing.T) {
	for _, c := range []struct {
		hidden, inter, heads, kv, seq, batch, rank int
		recompute                                  decoder.Recompute
		memory                                     decoder.Memory
		dtype                                      tensor.DType
	}{
		{192, 260, 4, 4, 130, 1, 4, decoder.RecomputeBlock, decoder.MemoryFused, tensor.F32},
		{192, 260, 4, 2, 150, 2, 20, decoder.RecomputeNone, decoder.MemoryFused, tensor.F32},
		{192, 260, 4, 1, 400, 1, 16, decoder.RecomputeBlock, decoder.MemoryReuse, tensor.F32},
		{192, 260, 4, 2, 210, 1, 16, decoder.RecomputeBlock, decoder.MemoryReuse, tensor.BF16},
		{192, 260, 4, 4, 97, 2, 16, decoder.RecomputeNone, decoder.MemoryFused, tensor.BF16},
		{192, 256, 4, 4, 97, 2, 16, decoder.RecomputeNone, decoder.MemoryFused, tensor.BF16},
		{384, 200, 6, 6, 97, 3, 8, decoder.RecomputeNone, decoder.MemoryReuse, tensor.F32},
	} {
		for _, isa := range append(cpu.ISAs(), "") {
			threads := 1
			if isa == "" {
				threads = 3
			}
			name := fmt.Sprintf("%s, %d threads, %+v", isa, threads, c)
			arch := decoder.Config{Vocab: 777, Hidden: c.hidden, Inter: c.inter, Layers: 1, Heads: c.heads, KVHeads: c.kv, HeadDim: c.hidden / c.heads,
				MaxPositions: 1000, Eps: 1e-5, Rope: decoder.Rope{Theta: 1e4}}
			if isa == "go" && c.seq > 130 {
				continue // slow, and attention without tiles needs little
			}
			be := cpu.New(cpu.Config{Threads: threads, ISA: isa})
			w, lc := random(arch), lora.Config{Rank: c.rank}
			o := decoder.Options{Batch: c.batch, Seq: c.seq, Recompute: c.recompute, Memory: c.memory, DType: c.dtype}
			said, err := decoder.Estimate(be, arch, w, &lc, true, o)
			if err != nil {
				t.Fatal(err)
			}
			sketched, err := decoder.Estimate(be, arch, decoder.Sketch(arch, tensor.BF16, sparse.Pattern{N: 2, M: 4}, 0), &lc, true, o)
			if err != nil || sketched != said {
				t.Errorf("%s: of a sketch %+v, of the model %+v (%v)", name, sketched, said, err)
			}
			if held := step(t, be, shy{be, be}, arch, w, lc, o); held > said.Scratch || threads == 1 && said.Scratch > held*5/4+(64<<10) {
				t.Errorf("%s: said %d bytes, held %d", name, said.Scratch, held)
			}
			if isa == "" {
				fresh := cpu.New(cpu.Config{Threads: threads})
				model(t, fresh, fresh, arch, w, lc, o)
				if held := fresh.Scratch(); held != said.Scratch {
					t.Errorf("%s: said %d bytes, reserved %d", name, said.Scratch, held)
				}
				if held := step(t, fresh, fresh, arch, w, lc, o); held != said.Scratch {
					t.Errorf("%s: said %d bytes, reserved and held %d", name, said.Scratch, held)
				}
				fresh.Close()
			}
			be.Close()
		}
	}
}

// shy is a backend that does not tell what it needs, so that its buffers grow as they are used.
type shy struct {
	compute.Backend
	compute.SparseLinear
}

// model is a model with adapters on b, which is be or shy.
func model(t *testing.T, be *cpu.Backend, b compute.Backend, c decoder.Config, w decoder.Weights, lc lora.Config, o decoder.Options) (*decoder.Model, *lora.Adapters) {
	t.Helper()
	shapes, err := decoder.Targets(c, w, lc)
	if err != nil {
		t.Fatal(err)
	}
	ad := lora.New(b, lc, shapes, true)
	ad.Init(be, 1)
	m, err := decoder.New(b, c, w, ad, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, ad
}

// step is a training step; it gives be's buffers afterwards.
func step(t *testing.T, be *cpu.Backend, b compute.Backend, c decoder.Config, w decoder.Weights, lc lora.Config, o decoder.Options) int {
	t.Helper()
	m, ad := model(t, be, b, c, w, lc, o)
	n := o.Batch * o.Seq
	in := decoder.Batch{B: o.Batch, T: o.Seq, Tokens: make([]int32, n), Targets: make([]int32, n)}
	for i := range in.Tokens {
		in.Tokens[i], in.Targets[i] = int32(i*7%c.Vocab), int32(i*5%c.Vocab)
	}
	if _, _, err := m.LossGrad(in); err != nil {
		t.Fatal(err)
	}
	be.AdamW(ad.Params, ad.Grads, ad.M, ad.V, compute.AdamW{LR: 1e-3, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Bias1: 0.1, Bias2: 0.01, Scale: 1})
	be.SumSquares(ad.Grads)
	return be.Scratch()
}

// random is a model stored in bfloat16, its linears 2:4.
func random(c decoder.Config) *decoder.Resident {
	rng := rand.New(rand.NewPCG(1, 2))
	matrix := func(rows, cols int) tensor.Tensor {
		t := tensor.New(tensor.BF16, rows, cols)
		for i := range t.Uint16() {
			t.Uint16()[i] = tensor.ToBF16(float32(rng.NormFloat64()) * 0.05)
		}
		return t
	}
	ones := func() tensor.Tensor {
		v := make([]float32, c.Hidden)
		for i := range v {
			v[i] = 1
		}
		return tensor.Of(v)
	}
	r := &decoder.Resident{EmbedTable: matrix(c.Vocab, c.Hidden), HeadTable: matrix(c.Vocab, c.Hidden), Norm: ones(), Blocks: make([]decoder.Block, c.Layers)}
	for i := range r.Blocks {
		b := &r.Blocks[i]
		b.AttnNorm, b.MLPNorm = ones(), ones()
		for j, name := range decoder.Linears {
			out, in := c.Shape(j)
			mask := make([]uint64, out*sparse.Words(in))
			for k := range out * in {
				if k%in%4%2 == k/in%2 {
					mask[k/in*sparse.Words(in)+k%in/64] |= 1 << (k % in % 64)
				}
			}
			w, err := sparse.Pack(matrix(out, in), mask, sparse.Pattern{N: 2, M: 4})
			if err != nil {
				panic(err)
			}
			b.Linears[j] = decoder.Base{Name: fmt.Sprintf("model.layers.%d.%s", i, name), W: w}
		}
	}
	return r
}
