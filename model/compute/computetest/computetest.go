// Package computetest is the conformance suite that every backend must pass. The oracle of an operation is its definition
// written once more in float64, without blocks, tricks or threads; gradients are checked against central differences of it.
//
//	‖got − want‖₂ / ‖want‖₂ ≤ tolerance, per tensor
//
// What takes activations is run with both compute types: with BF16 the float64 definition gets the same bfloat16 numbers, and its
// results may differ by one rounding, 2⁻⁸ of an element at most.
package computetest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// rounding is the tolerance of an operation that rounds to float32 at each of a few hundred steps.
const rounding = 1e-6

// once is the tolerance of n results that are rounded to bfloat16 once: of a few each may be the worst, 2⁻⁸ off; of many the norm of the
// errors is 1.7e-3 of theirs (truncation would make it 3e-3).
func once(n int) float64 {
	if n < 64 {
		return 0x1p-8
	}
	return 2.3e-3
}

// oneCase is one operation's check; what it computes is recorded, so that two backends can be compared bit by bit.
type oneCase struct {
	name string
	run  func(e *env)
}

// suite is a list of cases that are run once, or with each compute type.
type suite struct {
	cases []oneCase
	types []tensor.DType
}

var (
	f32Only = []tensor.DType{tensor.F32}
	both    = []tensor.DType{tensor.F32, tensor.BF16}
)

// each calls f with every case, its type and a name for both.
func each(f func(name string, c oneCase, dt tensor.DType)) {
	for _, s := range []suite{{memoryCases, f32Only}, {rowCases, both}, {gemmCases, f32Only}, {gemmHalfCases, f32Only}, {mergeCases, both}, {maskedCases, both}, {keptCases, f32Only},
		{keptHalfCases, f32Only},
		{elementwiseCases, both}, {dropoutCases, both}, {normCases, both}, {attentionCases, both}, {lossCases, both}, {updateCases, f32Only}} {
		for _, c := range s.cases {
			for _, dt := range s.types {
				name := c.name
				if dt != tensor.F32 {
					name += ", " + dt.String()
				}
				f(name, c, dt)
			}
		}
	}
}

// Run checks every operation of b.
func Run(t *testing.T, b compute.Backend) {
	each(func(name string, c oneCase, dt tensor.DType) {
		t.Run(name, func(t *testing.T) {
			c.run(newEnv(t, b, dt))
			if err := b.Sync(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// SameBits checks that every result of the others equals that of b bit by bit: for backends that differ in their number of
// threads.
func SameBits(t *testing.T, b compute.Backend, others ...compute.Backend) {
	each(func(name string, c oneCase, dt tensor.DType) {
		t.Run(name, func(t *testing.T) {
			want := newEnv(t, b, dt)
			c.run(want)
			for _, o := range others {
				got := newEnv(t, o, dt)
				c.run(got)
				got.same(b.Name()+" and "+o.Name(), want.record)
			}
		})
	})
}

// same compares what was recorded.
func (e *env) same(who string, want []result) {
	e.Helper()
	if len(e.record) != len(want) || len(want) == 0 {
		e.Fatalf("%s: %d and %d results", who, len(want), len(e.record))
	}
	for i, r := range e.record {
		if !bytes.Equal(r.bits, want[i].bits) {
			e.Errorf("%s: %s differs", who, r.what)
		}
	}
}

// env is a backend under test with the numbers of one case.
type env struct {
	*testing.T
	b      compute.Backend
	dt     tensor.DType // the compute type
	rng    *rand.Rand
	record []result
}

type result struct {
	what string
	bits []byte
}

func newEnv(t *testing.T, b compute.Backend, dt tensor.DType) *env {
	return &env{T: t, b: b, dt: dt, rng: rand.New(rand.NewPCG(1, 2))}
}

// up puts values on the backend.
func up[E float32 | int32 | uint16](e *env, dt tensor.DType, v []E, rows, cols int) tensor.Tensor {
	e.Helper()
	if len(v) != rows*cols {
		panic(fmt.Sprintf("computetest: %d values for [%d,%d]", len(v), rows, cols))
	}
	t := tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: e.b.Alloc(rows * cols * dt.Size())}
	e.b.Upload(t, bytesOf(v))
	return t
}

func bytesOf[E any](v []E) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}

// f32 puts a matrix on the backend.
func (e *env) f32(v []float32, rows, cols int) tensor.Tensor { return up(e, tensor.F32, v, rows, cols) }

// i32 puts a vector on the backend.
func (e *env) i32(v []int32) tensor.Tensor { return up(e, tensor.I32, v, 1, len(v)) }

// nans is an output that nobody has set.
func (e *env) nans(rows, cols int) tensor.Tensor {
	return e.f32(fill(rows*cols, float32(math.NaN())), rows, cols)
}

func fill(n int, v float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = v
	}
	return x
}

// normal gives n standard normal numbers.
func (e *env) normal(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(e.rng.NormFloat64())
	}
	return v
}

// act puts an activation on the backend; values that are not of the compute type are rounded.
func (e *env) act(v []float32, rows, cols int) tensor.Tensor {
	e.Helper()
	if e.dt == tensor.F32 {
		return e.f32(v, rows, cols)
	}
	h := make([]uint16, len(v))
	for i, x := range v {
		h[i] = toBF16(x)
	}
	return up(e, e.dt, h, rows, cols)
}

// acts gives n standard normal numbers of the compute type.
func (e *env) acts(n int) []float32 { return e.fit(e.normal(n)) }

// fit rounds v, in place, to the compute type.
func (e *env) fit(v []float32) []float32 {
	for i, x := range v {
		if e.dt == tensor.BF16 {
			v[i] = float32(halfValue(e.dt, toBF16(x)))
		}
	}
	return v
}

// unset is an activation that nobody has set.
func (e *env) unset(rows, cols int) tensor.Tensor {
	return e.act(fill(rows*cols, float32(math.NaN())), rows, cols)
}

// toBF16 is the nearest bfloat16, ties to even, by way of its number.
func toBF16(x float32) uint16 {
	if x != x {
		return 0x7fc0
	}
	return uint16(math.Float32bits(float32(roundHalf(tensor.BF16, float64(x)))) >> 16)
}

// down brings t back, as float32, and records it.
func (e *env) down(what string, t tensor.Tensor) []float32 {
	v := make([]float32, t.Len())
	if t.DType == tensor.F32 {
		e.b.Download(bytesOf(v), t)
		e.record = append(e.record, result{what, bytes.Clone(bytesOf(v))})
		return v
	}
	for i, u := range e.downHalf(what, t) {
		v[i] = float32(halfValue(t.DType, u))
	}
	return v
}

// downHalf is down for 16-bit floats, as they are.
func (e *env) downHalf(what string, t tensor.Tensor) []uint16 {
	v := make([]uint16, t.Len())
	e.b.Download(bytesOf(v), t)
	e.record = append(e.record, result{what, bytes.Clone(bytesOf(v))})
	return v
}

// near checks ‖got − want‖ ≤ tol·‖want‖; tol is that of a float32 result, and a BF16 one may be rounded once in any case.
func (e *env) near(what string, got tensor.Tensor, want []float64, tol float64) {
	e.Helper()
	if got.DType == tensor.BF16 {
		tol = max(tol, once(len(want)))
	}
	if d := distance(e.down(what, got), want); !(d <= tol) {
		e.Errorf("%s: relative error %.3g, tolerance %.3g", what, d, tol)
	}
}

// exactly checks every element's bits; want is rounded if got is.
func (e *env) exactly(what string, got tensor.Tensor, want []float32) {
	e.Helper()
	for i, g := range e.down(what, got) {
		w := want[i]
		if got.DType == tensor.BF16 {
			w = float32(halfValue(tensor.BF16, toBF16(w)))
		}
		if math.Float32bits(g) != math.Float32bits(w) {
			e.Errorf("%s: element %d is %v (%#x), want %v", what, i, g, math.Float32bits(g), w)
			return
		}
	}
}

// distance is ‖got − want‖ / ‖want‖; equal infinities are no distance.
func distance(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, n float64
	for i, w := range want {
		if g := float64(got[i]); g != w {
			d += (g - w) * (g - w)
			n += w * w
		} else if !math.IsInf(w, 0) {
			n += w * w
		}
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / n)
}

func wide(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// differences is the gradient of f at x by central differences; x is put back.
func differences(x []float64, f func() float64) []float64 {
	const h = 1e-5
	g := make([]float64, len(x))
	for i, v := range x {
		x[i] = v + h
		up := f()
		x[i] = v - h
		g[i] = (up - f()) / (2 * h)
		x[i] = v
	}
	return g
}

// inner is Σ a·b.
func inner(a, b []float64) (s float64) {
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// upload puts a packed weight on the backend.
func (e *env) weight(w *sparse.Weight) *sparse.Weight {
	d := *w
	d.Values.Mem = e.mem(w.Values.Mem)
	d.Bits = e.mem(w.Bits)
	d.Starts = e.mem(w.Starts)
	return &d
}

func (e *env) mem(m tensor.Mem) tensor.Mem {
	if len(m.Host) == 0 {
		return tensor.Mem{}
	}
	d := e.b.Alloc(len(m.Host))
	e.b.Upload(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: len(m.Host), Mem: d}, m.Host)
	return d
}
