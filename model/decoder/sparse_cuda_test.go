//go:build cuda

package decoder_test

import (
	"math"
	"testing"

	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// TestOnTheDeviceTheSparseTensorCoresTrainAsTheDenseProducts: the twin is --memory reuse. Sums of the forward products are in another order,
// and a result that is rounded otherwise is off by 2⁻⁸.
func TestOnTheDeviceTheSparseTensorCoresTrainAsTheDenseProducts(t *testing.T) {
	arch := decoder.Config{Vocab: 77, Hidden: 128, Inter: 192, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 32, MaxPositions: 100, Eps: 1e-5, Rope: decoder.Rope{Theta: 1e4}}
	be := cudatest.Open(t, cuda.Config{SparseCores: true})
	w, lc := random(arch).On(be), lora.Config{Rank: 4, Alpha: 6}
	const n = 2 * 33
	in := decoder.Batch{B: 2, T: 33, Tokens: make([]int32, n), Targets: make([]int32, n)}
	for i := range n {
		in.Tokens[i], in.Targets[i] = int32(i*7%arch.Vocab), int32(i*5%arch.Vocab)
	}
	var losses [2]float64
	var grads [2][]float32
	var plans [2]decoder.Plan
	for i, memory := range []decoder.Memory{decoder.MemoryReuse, decoder.MemoryFused} {
		shapes, err := decoder.Targets(arch, w, lc)
		if err != nil {
			t.Fatal(err)
		}
		ad := lora.New(be, lc, shapes, true)
		ad.Init(be, 3)
		for k := range ad.Windows { // B ≠ 0
			_, B := ad.Of(k, ad.Params)
			v := make([]float32, B.Len())
			for j := range v {
				v[j] = float32(j*37%19-9) / 200
			}
			be.Upload(B, tensor.Of(v).Mem.Host)
		}
		m, err := decoder.New(be, arch, w, ad, decoder.Options{Batch: 2, Seq: 33, Memory: memory, DType: tensor.BF16})
		if err != nil {
			t.Fatal(err)
		}
		if err := be.Profile(); err != nil {
			t.Fatal(err)
		}
		loss, _, err := m.LossGrad(in)
		if err != nil {
			t.Fatal(err)
		}
		times, err := be.Times()
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		for _, op := range times {
			if op.Op == "spmm_bf16" {
				calls = op.Calls
			}
		}
		if (calls > 0) != (memory == decoder.MemoryFused) {
			t.Errorf("memory %v: the sparse tensor cores were called %d times", memory, calls)
		}
		grads[i], losses[i], plans[i] = make([]float32, ad.Grads.Len()), loss, m.Plan
		be.Download(tensor.Of(grads[i]).Mem.Host, ad.Grads)
		if m.Weight.Peak() != m.Plan.Slot || m.Acts.Peak() != m.Plan.Stack {
			t.Errorf("planned %+v, leased %d and %d", m.Plan, m.Weight.Peak(), m.Acts.Peak())
		}
	}
	if plans[0] != plans[1] {
		t.Errorf("%+v and %+v", plans[0], plans[1])
	}
	var d, norm float64
	for i, g := range grads[0] {
		d += math.Pow(float64(g)-float64(grads[1][i]), 2)
		norm += math.Pow(float64(g), 2)
	}
	if e := math.Sqrt(d / norm); !(e <= 1e-2) || !(math.Abs(losses[0]-losses[1]) <= 1e-3*losses[0]) {
		t.Errorf("losses %v, gradients apart %.1e", losses, e)
	}
}
