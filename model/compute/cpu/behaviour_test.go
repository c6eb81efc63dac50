package cpu_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// filled is a matrix of small numbers.
func filled(dt tensor.DType, rows, cols int) tensor.Tensor {
	b := cpu.New(cpu.Config{Threads: 1})
	defer b.Close()
	f, t := tensor.New(tensor.F32, rows, cols), tensor.New(dt, rows, cols)
	for i := range f.Float32() {
		f.Float32()[i] = float32(i%17)/16 - 0.5
	}
	b.Copy(t, f)
	return t
}

// everyOp calls every operation once.
func everyOp(b compute.Backend) func() {
	const n, c, r, heads, d = 130, 128, 4, 4, 32
	f := func(rows, cols int) tensor.Tensor { return filled(tensor.F32, rows, cols) }
	x, y, z, u := f(n, c), f(n, c), f(n, c), f(n, c)
	q, k, v := f(n, heads*d), f(n, d), f(n, d)
	dq, dk, dv, lse := f(n, heads*d), f(n, d), f(n, d), f(heads, n)
	w, rstd, cos := f(1, c), f(1, n), f(n, d/2)
	pos, doc := tensor.New(tensor.I32, 1, n), tensor.New(tensor.I32, 1, n)
	for i := range pos.Int32() {
		pos.Int32()[i] = int32(i)
	}
	mask := make([]uint64, c*2)
	for i := range mask {
		mask[i] = 0x5555555555555555
	}
	packed, err := sparse.Pack(filled(tensor.BF16, c, c), mask, sparse.Pattern{N: 2, M: 4})
	if err != nil {
		panic(err)
	}
	slot, la, lb, half := f(c, c), f(r, c), f(c, r), filled(tensor.BF16, n, c)
	m := compute.Attn{B: 1, Tq: n, Tk: n, Hq: heads, Hkv: 1, D: d, Scale: 0.3, QPos: pos, KPos: pos, QDoc: doc, KDoc: doc}
	l := b.(compute.SparseLinear)
	one := m
	one.Tq, one.QPos, one.QDoc = 1, pos.Window(n-1, 1, 1), doc.Window(n-1, 1, 1)
	return func() {
		b.Fill(z, 1)
		b.Copy(half, x)
		b.Copy(y, half)
		b.Gemm(slot, 1, x, true, y, false, 0)
		b.Gemm(z, 1, half, false, slot, true, 1)
		b.Gemm(z.Slice(0, 1), 1, x.Slice(0, 1), false, slot, true, 1)
		b.Merge(slot, packed, lb, la, 2)
		b.Mask(slot, packed)
		l.KeptForward(z, x, slot, packed, lb, la, 2, 1)
		l.KeptInput(z, x, slot, packed, lb, la, 2, 0)
		l.KeptAdapter(la, lb, x, y, slot, packed, lb, la, 1e-9)
		b.AddBias(y, w)
		b.Add(y, x)
		b.Gather(y, half, pos)
		b.Scatter(y, x, pos)
		b.RMSNorm(y, rstd, x, w, 1e-5)
		b.RMSNormBackward(y, z, x, w, rstd, 1)
		b.Rope(q, cos, cos, pos, heads, 1)
		b.Gate(y, x, z, compute.SiLU)
		b.GateBackward(y, u, z, x, z, compute.SiLU)
		b.Attention(dq, lse, q, k, v, m)
		b.AttentionBackward(dq, dk, dv, q, q, lse, q, k, v, m)
		b.Attention(dq.Slice(0, 1), lse.Window(0, heads, 1), q.Slice(0, 1), k, v, one)
		b.CrossEntropy(rstd, u, doc, true)
		b.Dropout(y, x, pos, 7, 0.1)
		b.AdamW(y, x, z, u, compute.AdamW{LR: 1, Bias1: 1, Bias2: 1, Eps: 1})
		b.SumSquares(x)
	}
}

func TestOperationsAllocateNothingOnceTheirScratchHasGrown(t *testing.T) {
	for _, isa := range cpu.ISAs() {
		b := open(t, cpu.Config{ISA: isa, Threads: 2})
		ops := everyOp(b)
		for range 20 { // every worker has met every piece
			ops()
		}
		if n := testing.AllocsPerRun(5, ops); !(n < 2) {
			t.Errorf("%s: %v allocations per round of all operations", isa, n)
		}
	}
}

func TestAShapeThatDoesNotFitPanicsAndNamesTheOperand(t *testing.T) {
	b := open(t, cpu.Config{Threads: 1})
	f := func(rows, cols int) tensor.Tensor { return tensor.New(tensor.F32, rows, cols) }
	l := b.(compute.SparseLinear)
	short := f(2, 4)
	short.Mem.Host = short.Mem.Host[:8]
	dense, err := sparse.Pack(f(2, 3), nil, sparse.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	for want, op := range map[string]func(){
		"weight [2,3] is dense":  func() { l.KeptForward(f(4, 2), f(4, 3), f(2, 3), dense, f(2, 1), f(1, 3), 1, 0) },
		"kept input: y is":       func() { l.KeptInput(f(4, 3), f(4, 3), f(2, 3), dense, f(2, 1), f(1, 3), 1, 0) },
		"inner sizes 3 and 4":    func() { b.Gemm(f(2, 2), 1, f(2, 3), false, f(4, 2), false, 0) },
		"gemm: dst":              func() { b.Gemm(f(2, 3), 1, f(2, 3), false, f(3, 2), false, 0) },
		"gemm: a is int32":       func() { b.Gemm(f(2, 2), 1, tensor.New(tensor.I32, 2, 3), false, f(3, 2), false, 0) },
		"8 host bytes":           func() { b.Fill(short, 1) },
		"add: y":                 func() { b.Add(f(1, 3), f(1, 4)) },
		"target 9 of row 0":      func() { b.CrossEntropy(f(1, 1), f(1, 4), tensor.Of([]int32{9}), true) },
		"rmsnorm: y":             func() { b.RMSNorm(f(2, 5), f(1, 2), f(2, 4), f(1, 4), 0) },
		"upload of 3 bytes":      func() { b.Upload(f(1, 1), make([]byte, 3)) },
		"download":               func() { b.Download(make([]byte, 3), f(1, 1)) },
		"unknown activation 200": func() { b.Gate(f(1, 1), f(1, 1), f(1, 1), 200) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("panic %q, want %q in it", got, want)
				}
			}()
			op()
		}()
	}
}

func TestAnInstructionSetThatIsMissingIsNamed(t *testing.T) {
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, `"avx1024"`) {
			t.Error(got)
		}
	}()
	cpu.New(cpu.Config{ISA: "avx1024"})
}

func TestTheInstructionSetsAgreeOnAProductAndAGate(t *testing.T) {
	const m, n, k = 70, 90, 530
	var want []float32
	for _, isa := range cpu.ISAs() {
		b := open(t, cpu.Config{ISA: isa, Threads: 2})
		dst := tensor.New(tensor.F32, m, n)
		b.Gemm(dst, 1, filled(tensor.F32, m, k), false, filled(tensor.BF16, n, k), true, 0)
		b.Gate(dst, dst, dst, compute.SiLU)
		if want == nil {
			want = dst.Float32()
		}
		var d, s float64
		for i, v := range dst.Float32() {
			d += math.Pow(float64(v-want[i]), 2)
			s += math.Pow(float64(want[i]), 2)
		}
		if !(math.Sqrt(d/s) <= 1e-6) {
			t.Errorf("%s and %s: %v", isa, cpu.ISAs()[0], math.Sqrt(d/s))
		}
	}
}

func TestAllocIsAlignedAndZero(t *testing.T) {
	b := open(t, cpu.Config{Threads: 1})
	for _, n := range []int{0, 1, 63, 1000} {
		m := b.Alloc(n)
		if n > 0 && uintptr(unsafe.Pointer(&m.Host[0]))%64 != 0 {
			t.Errorf("%d bytes at %p", n, &m.Host[0])
		}
		if len(m.Host) != n {
			t.Errorf("%d bytes, want %d", len(m.Host), n)
		}
		for _, v := range m.Host {
			if v != 0 {
				t.Fatal("not zeroed")
			}
		}
	}
}
