package decoder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// BenchmarkStep is a step's forward and backward on 512 tokens of a model of four blocks, C = 512, rank 16, by the form of the masked
// linears: `go test -bench Step ./model/decoder`.
func BenchmarkStep(b *testing.B) {
	for _, keep := range []float64{0.5, 0.3} {
		for memory, form := range []string{"reuse", "fused"} {
			b.Run(fmt.Sprintf("keep%v/%s", keep, form), func(b *testing.B) {
				m, batch := benchModel(b, keep, Memory(memory))
				best := math.Inf(1)
				for b.Loop() {
					start := processorTime()
					m.Adapters.ZeroGrads(m)
					if _, _, err := m.LossGrad(batch); err != nil {
						b.Fatal(err)
					}
					best = min(best, processorTime()-start)
				}
				b.ReportMetric(best*1e3, "cpu-ms/step")
			})
		}
	}
}

// processorTime is that of all threads, in seconds, which a busy neighbour changes less than the clock on the wall.
func processorTime() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return float64(t.Nano()) / 1e9
}

// benchModel keeps a fraction of the weights: 2:4 for a half.
func benchModel(b *testing.B, keep float64, memory Memory) (*Model, Batch) {
	const n, vocab = 512, 512
	be := cpu.New(cpu.Config{})
	b.Cleanup(func() { be.Close() })
	c := Config{Vocab: vocab, Hidden: 512, Inter: 1408, Layers: 4, Heads: 8, KVHeads: 8, HeadDim: 64, Eps: 1e-5, MaxPositions: n, Tied: true, Rope: Rope{Theta: 1e4}}
	r := rand.New(rand.NewPCG(1, 1))
	w := &Resident{EmbedTable: noise(r, vocab, c.Hidden), Norm: ones(c.Hidden)}
	w.HeadTable = w.EmbedTable
	for i := range c.Layers {
		k := Block{AttnNorm: ones(c.Hidden), MLPNorm: ones(c.Hidden)}
		for j, name := range Linears {
			out, in := c.Shape(j)
			k.Linears[j] = Base{Name: fmt.Sprintf("model.layers.%d.%s", i, name), W: thinned(b, r, noise(r, out, in), keep)}
		}
		w.Blocks = append(w.Blocks, k)
	}
	lc := lora.Config{Rank: 16, Alpha: 32}
	shapes, err := Targets(c, w, lc)
	if err != nil {
		b.Fatal(err)
	}
	a := lora.New(be, lc, shapes, true)
	a.Init(be, 1)
	m, err := New(be, c, w, a, Options{Seq: n, Memory: memory})
	if err != nil {
		b.Fatal(err)
	}
	batch := Batch{B: 1, T: n, Tokens: make([]int32, n), Targets: make([]int32, n)}
	for i := range n {
		batch.Tokens[i], batch.Targets[i] = int32(r.IntN(vocab)), int32(r.IntN(vocab))
	}
	return m, batch
}

func noise(r *rand.Rand, rows, cols int) tensor.Tensor {
	t := tensor.New(tensor.F32, rows, cols)
	for i := range t.Float32() {
		t.Float32()[i] = float32(r.NormFloat64()) / 32
	}
	return t
}

func ones(n int) tensor.Tensor {
	t := tensor.New(tensor.F32, 1, n)
	for i := range t.Float32() {
		t.Float32()[i] = 1
	}
	return t
}

func thinned(b *testing.B, r *rand.Rand, w tensor.Tensor, keep float64) *sparse.Weight {
	mask, p := make([]uint64, w.Rows*sparse.Words(w.Cols)), sparse.Pattern{}
	for i := range w.Len() {
		if r.Float64() < keep {
			mask[i/w.Cols*sparse.Words(w.Cols)+i%w.Cols/64] |= 1 << (i % w.Cols % 64)
		}
	}
	if keep == 0.5 {
		p = sparse.Pattern{N: 2, M: 4}
		for i := range mask {
			mask[i] = 0x35ac6935ac69c35a // of every four bits two
		}
	}
	packed, err := sparse.Pack(w, mask, p)
	if err != nil {
		b.Fatal(err)
	}
	return packed
}
