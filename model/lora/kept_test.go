package lora

import (
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// walking is a backend that walks kept weights when told to, and counts.
type walking struct {
	*cpu.Backend
	always bool
	walks  *int
}

func (b walking) WalksKept(_ *sparse.Weight, x tensor.DType, _ int) bool {
	return b.always && x == tensor.F32
}

func (b walking) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	*b.walks++
	b.Backend.KeptForward(y, x, slot, w, bm, am, s, beta)
}

func (b walking) KeptInput(dx, dy, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	*b.walks++
	b.Backend.KeptInput(dx, dy, slot, w, bm, am, s, beta)
}

func (b walking) KeptAdapter(da, db, dy, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s float32) {
	*b.walks++
	b.Backend.KeptAdapter(da, db, dy, x, slot, w, bm, am, s)
}

// walker is a device that walks kept weights always, or never, and its counter.
func walker(t testing.TB, always bool) (compute.Device, *int) {
	dev, n := device(t), new(int)
	dev.Backend = walking{dev.Backend.(*cpu.Backend), always, n}
	return dev, n
}

func TestWalkingTheKeptWeightsGivesYAndTheGradientsOfTheFormula(t *testing.T) {
	for method, want := range map[Method]int{SPLoRA: 3, LoRA: 2} { // plain LoRA has no masked gradient
		r := rand.New(rand.NewPCG(6, uint64(method)))
		l, tw := layer(t, r, method)
		l.Kept = true
		dev, walks := walker(t, true)
		x, dy, y0, dx0 := random(r, 9, 22), random(r, 9, 13), random(r, 9, 13), random(r, 9, 22)
		wantY, wantX := tw.forward(x), tw.differences(x, x, dy)
		for i := range wantY.v {
			wantY.v[i] += y0.v[i]
		}
		for i := range wantX.v {
			wantX.v[i] += dx0.v[i]
		}
		y, dx := y0.tensor(), dx0.tensor()
		l.Forward(dev, y, x.tensor(), 1)
		l.Backward(dev, dx, dy.tensor(), x.tensor(), 1)
		near(t, method.String()+" y", y, wantY, single)
		near(t, method.String()+" dx", dx, wantX, differences)
		near(t, method.String()+" dA", l.DA, tw.differences(tw.a, x, dy), differences)
		near(t, method.String()+" dB", l.DB, tw.differences(tw.b, x, dy), differences)
		if *walks != want || dev.Acts.Mark() != 0 {
			t.Errorf("%s: %d walks over kept weights, want %d; %d bytes left on the stack", method, *walks, want, dev.Acts.Mark())
		}
		dev.Weight.Return(dev.Weight.Lease("free", tensor.F32, 1, 1))
	}
}

func TestTheSlotIsTakenWhereItIsWantedFasterOrAllThereIs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	x, dy := random(r, 9, 22), random(r, 9, 13)
	for what, c := range map[string]struct{ kept, always, dense bool }{
		"Kept is not set":        {false, true, false},
		"the backend expects so": {true, false, false},
		"the weight is dense":    {true, true, true},
	} {
		l, _ := layer(t, r, SPLoRA)
		l.Kept = c.kept
		if c.dense {
			w, err := sparse.Pack(random(r, 13, 22).tensor(), nil, sparse.Pattern{})
			if err != nil {
				t.Fatal(err)
			}
			l.W = w
		}
		dev, walks := walker(t, c.always)
		l.Forward(dev, tensor.New(tensor.F32, 9, 13), x.tensor(), 0)
		l.Backward(dev, tensor.New(tensor.F32, 9, 22), dy.tensor(), x.tensor(), 0)
		if *walks != 0 {
			t.Errorf("%s, but the kept weights are walked %d times", what, *walks)
		}
	}
}
