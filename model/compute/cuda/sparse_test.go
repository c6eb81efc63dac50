//go:build cuda

package cuda_test

import (
	"bytes"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func TestTheSparseTensorCoresAreTakenWhereTheyAreAskedForAndFit(t *testing.T) {
	asked, not := cudatest.Open(t, cuda.Config{SparseCores: true}), cudatest.Open(t, cuda.Config{})
	weight := func(in int, p sparse.Pattern, removed float64) *sparse.Weight {
		return sparse.Sketch(40, in, tensor.BF16, p, removed)
	}
	two := sparse.Pattern{N: 2, M: 4}
	for _, c := range []struct {
		w     *sparse.Weight
		x     tensor.DType
		takes bool
	}{
		{weight(128, two, 0), tensor.BF16, true}, {weight(128, two, 0), tensor.F32, false}, {weight(96, two, 0), tensor.BF16, false},
		{weight(128, sparse.Pattern{N: 1, M: 4}, 0), tensor.BF16, false}, {weight(128, sparse.Pattern{}, 0.5), tensor.BF16, false},
	} {
		for _, b := range []compute.SparseLinear{asked, asked.Survey().(compute.SparseLinear), cuda.Planner{SparseCores: true}.Survey().(compute.SparseLinear)} {
			if b.WalksKept(c.w, c.x, 100) != c.takes || b.KeptSlot(c.w, c.x) != c.w.Out*c.w.In {
				t.Errorf("[%d,%d] %+v, %s: taken %v, with a slot of %d", c.w.Out, c.w.In, c.w.Pattern, c.x, !c.takes, b.KeptSlot(c.w, c.x))
			}
		}
		for _, b := range []compute.SparseLinear{not, not.Survey().(compute.SparseLinear), cuda.Planner{}.Survey().(compute.SparseLinear)} {
			if b.WalksKept(c.w, c.x, 100) {
				t.Errorf("[%d,%d] %+v, %s is taken, and nobody asked for it", c.w.Out, c.w.In, c.w.Pattern, c.x)
			}
		}
	}
	if n := asked.KeptSlot(sparse.Sketch(1, 64, tensor.BF16, two, 0), tensor.BF16); 2*n != 1152 {
		t.Errorf("a slot of %d elements for one row, which takes a tile of 1152 bytes", n)
	}
}

// TestAnInputThatIsNotAlignedGoesThroughTheSlotWhole: the sparse tensor cores' copies are of 16 bytes.
func TestAnInputThatIsNotAlignedGoesThroughTheSlotWhole(t *testing.T) {
	b := cudatest.Open(t, cuda.Config{SparseCores: true})
	const n, out, in = 3, 40, 128
	mask, v := make([]uint64, out*in/64), make([]float32, out*in)
	for i := range v {
		v[i] = float32(i%23) - 11
	}
	for i := range mask {
		mask[i] = 0x3569ac3569ac3569 // each nibble has two
	}
	host, err := sparse.Pack(tensor.Of(v).Reshape(out, in), mask, sparse.Pattern{N: 2, M: 4})
	if err != nil {
		t.Fatal(err)
	}
	w := *host
	w.Values.Mem, w.Bits = b.Alloc(host.Values.Bytes()), b.Alloc(len(host.Bits.Host))
	b.Upload(w.Values, host.Values.Mem.Host)
	b.Upload(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: len(host.Bits.Host), Mem: w.Bits}, host.Bits.Host)
	room := tensor.Tensor{DType: tensor.BF16, Rows: 1, Cols: n*in + 1, Mem: b.Alloc(2 * (n*in + 1))}
	slot := tensor.Tensor{DType: tensor.BF16, Rows: 1, Cols: out * in, Mem: b.Alloc(2 * out * in)}
	var results [2][]byte
	for off := range results {
		x := room.Window(off, n, in)
		raw := tensor.New(tensor.BF16, n, in)
		for i := range raw.Uint16() {
			raw.Uint16()[i] = tensor.ToBF16(float32(i%7) - 3)
		}
		b.Upload(x, raw.Mem.Host)
		y := tensor.Tensor{DType: tensor.BF16, Rows: n, Cols: out, Mem: b.Alloc(2 * n * out)}
		b.KeptForward(y, x, slot, &w, tensor.Tensor{}, tensor.Tensor{}, 0, 0)
		results[off] = make([]byte, y.Bytes())
		b.Download(results[off], y)
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(results[0], results[1]) || bytes.Count(results[0], []byte{0}) == len(results[0]) { // the sums are small integers
		t.Errorf("aligned %x\nnot %x", results[0], results[1])
	}
}

// TestASurveyKnowsTheCopiesOfALargeAdapter: ranks beyond 64 are two products with copies of A and B in 16 bits.
func TestASurveyKnowsTheCopiesOfALargeAdapter(t *testing.T) {
	s := cudatest.Open(t, cuda.Config{SparseCores: true}).Survey()
	const out, in, r = 4096, 32768, 65
	w := sparse.Sketch(out, in, tensor.BF16, sparse.Pattern{N: 2, M: 4}, 0)
	of := func(dt tensor.DType, rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: compute.Nowhere}
	}
	b, a := of(tensor.F32, out, r), of(tensor.F32, r, in)
	s.(compute.SparseLinear).KeptAdapter(a, b, of(tensor.BF16, 3, out), of(tensor.BF16, 3, in), of(tensor.BF16, out, in), w, b, a, 1)
	if want := 2 * r * (out + in); s.Scratch() != want {
		t.Errorf("%d bytes, want %d", s.Scratch(), want)
	}
}
