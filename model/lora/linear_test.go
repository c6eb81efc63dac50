package lora

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/tensor"
)

const (
	single      = 2e-6 // float32 sums of some dozens of products
	differences = 1e-5 // and central differences with h = 1e-4 in float64
)

func TestForwardIsTheFormulaAndAddsByBeta(t *testing.T) {
	for _, method := range []Method{SPLoRA, LoRA} {
		r := rand.New(rand.NewPCG(1, uint64(method)))
		l, tw := layer(t, r, method)
		x, y0 := random(r, 9, 22), random(r, 9, 13)
		want := tw.forward(x)
		y := tensor.New(tensor.F32, 9, 13)
		for i := range y.Float32() {
			y.Float32()[i] = float32(math.NaN()) // β = 0 must not read it
		}
		dev := device(t)
		l.Forward(dev, y, x.tensor(), 0)
		near(t, method.String()+" y", y, want, single)
		y = y0.tensor()
		l.Forward(dev, y, x.tensor(), 1)
		for i := range want.v {
			want.v[i] += y0.v[i]
		}
		near(t, method.String()+" y with β = 1", y, want, single)
	}
}

func TestGradientsAreThoseOfFiniteDifferencesIncludingTheFactorS(t *testing.T) {
	for _, method := range []Method{SPLoRA, LoRA} {
		for _, drop := range []float32{0, 0.3} {
			if method == SPLoRA && drop > 0 {
				continue
			}
			r := rand.New(rand.NewPCG(2, uint64(method)))
			l, tw := layer(t, r, method)
			dev := device(t)
			x, dy := random(r, 9, 22), random(r, 9, 13)
			if drop > 0 {
				ids := tensor.Of([]int32{4, 7, 1, 0, 9, -3, 8, 2, 6})
				l.Drop = Dropout{P: drop, Seed: 99, IDs: ids}
				ones := random(r, 9, 22)
				for i := range ones.v {
					ones.v[i] = 1
				}
				m := tensor.New(tensor.F32, 9, 22)
				dev.Dropout(m, ones.tensor(), ids, 99, drop)
				tw.drop = zeros(9, 22)
				for i, v := range m.Float32() {
					tw.drop.v[i] = float64(v)
				}
				y := tensor.New(tensor.F32, 9, 13)
				l.Forward(dev, y, x.tensor(), 0)
				near(t, "y with dropout", y, tw.forward(x), single)
			}
			dx := tensor.New(tensor.F32, 9, 22)
			l.Backward(dev, dx, dy.tensor(), x.tensor(), 0)
			near(t, method.String()+" dx", dx, tw.differences(x, x, dy), differences)
			near(t, method.String()+" dA", l.DA, tw.differences(tw.a, x, dy), differences)
			near(t, method.String()+" dB", l.DB, tw.differences(tw.b, x, dy), differences)
			if dev.Acts.Mark() != 0 {
				t.Errorf("%s leaves %d bytes on the stack", method, dev.Acts.Mark())
			}
		}
	}
}

func TestBackwardAddsToWhatIsThere(t *testing.T) {
	for _, method := range []Method{SPLoRA, LoRA} {
		r := rand.New(rand.NewPCG(3, uint64(method)))
		l, tw := layer(t, r, method)
		dev := device(t)
		x, dy, dx0 := random(r, 5, 22), random(r, 5, 13), random(r, 5, 22)
		dx := dx0.tensor()
		l.Backward(dev, dx, dy.tensor(), x.tensor(), 1)
		l.Backward(dev, tensor.Tensor{}, dy.tensor(), x.tensor(), 0) // nobody wants dx
		want := tw.differences(x, x, dy)
		for i := range want.v {
			want.v[i] += dx0.v[i]
		}
		near(t, method.String()+" dx", dx, want, differences)
		for what, d := range map[string]struct {
			got tensor.Tensor
			p   matrix
		}{"dA": {l.DA, tw.a}, "dB": {l.DB, tw.b}} {
			want := tw.differences(d.p, x, dy)
			for i := range want.v {
				want.v[i] *= 2
			}
			near(t, method.String()+" "+what+" of two", d.got, want, differences)
		}
	}
}

func TestAFrozenLayerIsItsWeightAndHasNoGradientOfItsOwn(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	l, tw := layer(t, r, SPLoRA)
	l.A, l.B, l.DA, l.DB = tensor.Tensor{}, tensor.Tensor{}, tensor.Tensor{}, tensor.Tensor{}
	tw.s = 0
	dev := device(t)
	x, dy := random(r, 6, 22), random(r, 6, 13)
	y, dx := tensor.New(tensor.F32, 6, 13), tensor.New(tensor.F32, 6, 22)
	l.Forward(dev, y, x.tensor(), 0)
	l.Backward(dev, dx, dy.tensor(), x.tensor(), 0)
	near(t, "y", y, tw.forward(x), single)
	near(t, "dx", dx, tw.differences(x, x, dy), differences)
}

func TestDroppingTheMaskFromTheGradientWouldBeSeen(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	l, _ := layer(t, r, SPLoRA)
	dev := device(t)
	x, dy := random(r, 40, 22), random(r, 40, 13)
	l.Backward(dev, tensor.Tensor{}, dy.tensor(), x.tensor(), 0)
	g := times(dy.t(), x.t()) // dyᵀ·x without M
	unmasked := times(matrix{3, 13, transposed(l.B)}, g.t())
	var ab, aa, bb float64
	for i, v := range l.DA.Float32() {
		ab, aa, bb = ab+float64(v)*unmasked.v[i], aa+float64(v)*float64(v), bb+unmasked.v[i]*unmasked.v[i]
	}
	if c := ab / math.Sqrt(aa*bb); !(c < 0.9 && c > 0.5) {
		t.Errorf("cosine of the exact and the unmasked gradient is %.2f; at half density it is near 0.71", c)
	}
}

func transposed(t tensor.Tensor) []float64 {
	m := zeros(t.Rows, t.Cols)
	for i, v := range t.Float32() {
		m.v[i] = float64(v)
	}
	return m.t().v
}
