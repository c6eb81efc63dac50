package sparse

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/splora/splora/model/tensor"
)

// awkward are storage bits that a careless copy changes: NaN payloads, −0, subnormals, infinities.
var awkward = map[tensor.DType][]uint32{
	tensor.F32:  {0, 0x80000000, 1, 0x80000001, 0x7fc12345, 0xff800001, 0x7f800000, 0x3f800000},
	tensor.BF16: {0, 0x8000, 1, 0x8001, 0x7fc3, 0xff81, 0x7f80, 0x3f80},
	tensor.F16:  {0, 0x8000, 1, 0x8001, 0x7e03, 0xfc01, 0x7c00, 0x3c00},
}

func set(t tensor.Tensor, i, j int, u uint32) {
	if t.DType.Size() == 4 {
		words32(t)[i*t.Cols+j] = u
	} else {
		t.Uint16()[i*t.Cols+j] = uint16(u)
	}
}

func get(t tensor.Tensor, i, j int) uint32 { return storageBits(t, i, j) }

// random is a matrix of random bits and awkward values, with a random mask of pattern p (unstructured: about half).
func random(r *rand.Rand, dt tensor.DType, out, in int, p Pattern) (tensor.Tensor, []uint64) {
	w := tensor.New(dt, out, in)
	mask := make([]uint64, out*Words(in))
	for i := range out {
		for j := range in {
			u := r.Uint32()
			if r.IntN(3) == 0 {
				u = awkward[dt][r.IntN(8)]
			}
			set(w, i, j, u)
		}
		m := p.M
		if m == 0 {
			m = in
		}
		for j := 0; j < in; j += m {
			g := min(m, in-j)
			n := min(p.N, g)
			if p.M == 0 {
				n = r.IntN(g + 1)
			}
			for _, k := range r.Perm(g)[:n] {
				mask[i*Words(in)+(j+k)/64] |= 1 << ((j + k) % 64)
			}
		}
	}
	return w, mask
}

var shapes = []struct {
	out, in int
	p       Pattern
}{
	{1, 1, Pattern{}}, {3, 4, Pattern{2, 4}}, {5, 64, Pattern{2, 4}}, {7, 63, Pattern{2, 4}}, {4, 65, Pattern{1, 4}},
	{3, 256, Pattern{4, 8}}, {2, 513, Pattern{}}, {3, 512, Pattern{}}, {2, 300, Pattern{3, 7}}, {2, 96, Pattern{5, 48}},
	{3, 1000, Pattern{1, 2}}, {2, 258, Pattern{2, 4}}, {2, 640, Pattern{60, 128}}, {1300, 67, Pattern{}},
}

func TestPackingKeepsEveryBitAndStartsPointAtIt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range shapes {
		for _, dt := range []tensor.DType{tensor.F32, tensor.BF16, tensor.F16} {
			t.Run(fmt.Sprint(s.out, "x", s.in, " ", s.p, " ", dt), func(t *testing.T) {
				w, mask := random(r, dt, s.out, s.in, s.p)
				p, err := Pack(w, mask, s.p)
				if err != nil {
					t.Fatal(err)
				}
				back, wide := tensor.New(dt, s.out, s.in), tensor.New(tensor.F32, s.out, s.in)
				p.Expand(back)
				p.Expand(wide)
				// The oracle walks the matrix weight by weight.
				n := 0
				for i := range s.out {
					for j := range s.in {
						if j%Block == 0 && p.Start(i, j/Block) != n {
							t.Fatalf("start of row %d at input %d is %d, want %d", i, j, p.Start(i, j/Block), n)
						}
						want := uint32(0)
						if mask[i*Words(s.in)+j/64]>>(j%64)&1 == 1 {
							want = get(w, i, j)
							if got := get(p.Values, 0, n); got != want {
								t.Fatalf("value %d is %#x, want %#x", n, got, want)
							}
							n++
						}
						if got := get(back, i, j); got != want {
							t.Fatalf("(%d,%d) expands to %#x, want %#x", i, j, got, want)
						}
						f := widen(dt, want)
						if got := wide.Float32()[i*s.in+j]; math.Float32bits(got) != math.Float32bits(f) && !(got != got && f != f) {
							t.Fatalf("(%d,%d) widens to %v, want %v", i, j, got, f)
						}
						if p.Kept(i, j) != (mask[i*Words(s.in)+j/64]>>(j%64)&1 == 1) {
							t.Fatalf("Kept(%d,%d)", i, j)
						}
					}
					if a, b := p.Row(i); b != n || a > b {
						t.Fatalf("row %d is [%d,%d), want its end at %d", i, a, b, n)
					}
				}
				if p.NNZ() != n || p.Start(s.out-1, p.Blocks()) != n {
					t.Fatalf("nnz %d, want %d", p.NNZ(), n)
				}
				if q, err := New(s.out, s.in, s.p, p.Values, p.Bits, p.Starts); err != nil || q.NNZ() != n {
					t.Fatalf("the packed parts are refused: %v", err)
				}
			})
		}
	}
}

func widen(dt tensor.DType, u uint32) float32 {
	switch dt {
	case tensor.BF16:
		return math.Float32frombits(u << 16)
	case tensor.F16:
		m, e := float64(u&0x3ff), int(u>>10&31)
		f := math.Ldexp(1+m/1024, e-15)
		switch e {
		case 0:
			f = math.Ldexp(m, -24)
		case 31:
			f = math.Inf(1)
			if m != 0 {
				f = math.NaN()
			}
		}
		if u>>15 == 1 {
			f = math.Copysign(f, -1)
		}
		return float32(f)
	}
	return math.Float32frombits(u)
}

func TestADenseWeightIsItsOwnMemory(t *testing.T) {
	w := tensor.New(tensor.BF16, 3, 300)
	p, err := Pack(w, nil, Pattern{})
	if err != nil || !p.Dense() || p.NNZ() != 900 || p.Density() != 1 || p.Bytes() != 1800 {
		t.Fatalf("%+v %v", p, err)
	}
	if &p.Values.Mem.Host[0] != &w.Mem.Host[0] {
		t.Error("packing a dense weight copied it")
	}
	if p.Start(1, 1) != 300+256 || p.Start(1, 2) != 600 {
		t.Errorf("starts %d %d", p.Start(1, 1), p.Start(1, 2))
	}
	if _, err := Pack(w, nil, Pattern{2, 4}); err == nil {
		t.Error("2:4 without a mask is accepted")
	}
}

func TestHalfDensityInBF16CostsNineBitsPerWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w, mask := random(r, tensor.BF16, 64, 512, Pattern{2, 4})
	p, err := Pack(w, mask, Pattern{2, 4})
	if err != nil || p.Density() != 0.5 || p.Bytes() != 64*512*9/8 {
		t.Fatalf("density %v, %d bytes, %v", p.Density(), p.Bytes(), err)
	}
}

func TestPatternNKeepsNOfM(t *testing.T) {
	for s, want := range map[string]struct {
		p Pattern
		x float64
	}{"2:4": {Pattern{2, 4}, .5}, "1:4": {Pattern{1, 4}, .75}, "6:8": {Pattern{6, 8}, .25}, "0.6": {Pattern{}, .6}, "0": {Pattern{}, 0}} {
		p, x, err := ParsePattern(s)
		if err != nil || p != want.p || !(math.Abs(x-want.x) <= 1e-15) {
			t.Errorf("%s: %v %v %v", s, p, x, err)
		}
	}
	for _, s := range []string{"", "4:4", "0:4", "5:4", "-1:4", "2:", ":4", "1", "-0.1", "NaN", "50%", "2:4:8", "inf"} {
		if p, _, err := ParsePattern(s); err == nil {
			t.Errorf("%q is accepted as %v", s, p)
		}
	}
	if k := (Pattern{2, 4}).Keep(11); k != 4+2 {
		t.Errorf("11 inputs under 2:4 keep %d, want 6", k)
	}
	if k := (Pattern{2, 4}).Keep(9); k != 4+1 {
		t.Errorf("9 inputs under 2:4 keep %d, want 5", k)
	}
	for x, want := range map[float64]int{0.7: 7, 0.5: 5, 0.55: 5, 0: 0, 0.99: 9} {
		if got := Removed(10, x); got != want {
			t.Errorf("%v of 10 removes %d, want %d", x, got, want)
		}
	}
}

func TestABrokenPatternIsNamedByRowAndGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, s := range []struct {
		in, row, bit int
		p            Pattern
		want         string
	}{
		{200, 3, 0, Pattern{2, 4}, "row 3 keeps"}, {200, 2, 130, Pattern{2, 4}, "inputs 128…131"}, {70, 1, 69, Pattern{2, 4}, "inputs 68…69"},
		{64, 0, 63, Pattern{4, 8}, "inputs 56…63"}, {64, 4, 2, Pattern{1, 2}, "inputs 2…3"}, {50, 1, 48, Pattern{3, 7}, "inputs 42…48"},
	} {
		_, mask := random(r, tensor.F32, 5, s.in, s.p)
		if err := s.p.Check(mask, 5, s.in); err != nil {
			t.Fatal(err)
		}
		mask[s.row*Words(s.in)+s.bit/64] ^= 1 << (s.bit % 64)
		err := s.p.Check(mask, 5, s.in)
		if err == nil || !strings.Contains(err.Error(), s.want) || !strings.Contains(err.Error(), fmt.Sprint("row ", s.row)) {
			t.Errorf("%v: %v", s, err)
		}
	}
	if err := (Pattern{}).Check([]uint64{1 << 5}, 1, 5); err == nil {
		t.Error("a bit beyond the inputs is accepted")
	}
	if err := (Pattern{}).Check([]uint64{1}, 2, 5); err == nil {
		t.Error("a short mask is accepted")
	}
}

func TestDetectFindsThePatternThatWasMade(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, p := range []Pattern{{1, 2}, {2, 4}, {1, 4}, {3, 4}, {4, 8}, {6, 8}, {7, 16}, {3, 32}, {}} {
		for _, in := range []int{256, 257, 190} {
			_, mask := random(r, tensor.F32, 40, in, p)
			if got := Detect(mask, 40, in); got != p {
				t.Errorf("%v with %d inputs is detected as %v", p, in, got)
			}
		}
	}
	if got := Detect(FullMask(3, 70), 3, 70); got != (Pattern{}) {
		t.Errorf("a full mask is %v", got)
	}
}

func TestAMaskSurvivesItsBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, in := range []int{1, 7, 8, 9, 63, 64, 65, 128, 200} {
		_, mask := random(r, tensor.F32, 3, in, Pattern{})
		b := MaskBytes(mask, 3, in)
		for i := range 3 {
			for j := range in {
				if b[i*((in+7)/8)+j/8]>>(j%8)&1 != byte(mask[i*Words(in)+j/64]>>(j%64)&1) {
					t.Fatalf("in %d: bit (%d,%d)", in, i, j)
				}
			}
		}
		back, err := MaskFromBytes(append([]byte{}, b...), 3, in)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(mask) {
			t.Fatalf("in %d: %v", in, err)
		}
	}
	for _, in := range []int{7, 31, 60} { // a row of 60 is as long as a word, and is not copied
		b := tensor.New(tensor.U8, 1, (in+7)/8).Mem.Host // aligned, as in a file
		b[len(b)-1] = 0xff
		if _, err := MaskFromBytes(b, 1, in); err == nil {
			t.Errorf("a bit beyond %d inputs is accepted", in)
		}
	}
	if _, err := MaskFromBytes(make([]byte, 5), 1, 7); err == nil {
		t.Error("a mask of the wrong size is accepted")
	}
}

func TestVerifySeesASubnormalAndPassesMinusZero(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for dt, tiny := range map[tensor.DType]uint32{tensor.F32: 0x80000001, tensor.BF16: 1, tensor.F16: 0x8001} {
		w, mask := random(r, dt, 6, 131, Pattern{1, 4})
		for i := range 6 {
			for j := range 131 {
				if mask[i*3+j/64]>>(j%64)&1 == 0 {
					set(w, i, j, 0)
				} else {
					set(w, i, j, 0x3c00)
				}
			}
		}
		free := 0
		for mask[4*3+2]>>free&1 == 1 {
			free++
		}
		kept := 0
		for mask[2*3+1]>>kept&1 == 0 {
			kept++
		}
		set(w, 2, 64+kept, 0)
		set(w, 4, 128+free, uint32(1)<<(dt.Size()*8-1))
		if v := Verify(w, mask); v.Extra != 0 || v.KeptZero != 1 || v.Kept != Count(mask) || v.Weights != 6*131 {
			t.Errorf("%v: −0 and a kept zero: %+v", dt, v)
		}
		set(w, 4, 128+free, tiny)
		set(w, 5, 130, get(w, 5, 130))
		if v := Verify(w, mask); v.Extra != 1 || v.Row != 4 || v.Col != 128+free || v.Bits != tiny {
			t.Errorf("%v: a subnormal where M = 0: %+v", dt, v)
		}
		if v := Verify(w, nil); v.Kept != 6*131 || v.KeptZero != 6*131-Count(mask) {
			t.Errorf("%v: dense: %+v", dt, v)
		}
	}
}

func TestPartsThatDoNotFitAreRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	d, mask := random(r, tensor.BF16, 4, 300, Pattern{})
	w, err := Pack(d, mask, Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	short := w.Values
	short.Cols--
	short.Mem.Host = short.Mem.Host[:short.Bytes()]
	bad := append([]byte{}, w.Starts.Host...)
	bad = bad[:len(bad):len(bad)]
	bad[8]++
	for name, f := range map[string]func() error{
		"values": func() error { _, err := New(4, 300, Pattern{}, short, w.Bits, w.Starts); return err },
		"starts": func() error {
			_, err := New(4, 300, Pattern{}, w.Values, w.Bits, tensor.Mem{Host: realign(bad)})
			return err
		},
		"no starts": func() error { _, err := New(4, 300, Pattern{}, w.Values, w.Bits, tensor.Mem{}); return err },
		"bits":      func() error { _, err := New(3, 300, Pattern{}, w.Values, w.Bits, w.Starts); return err },
		"pattern":   func() error { _, err := New(4, 300, Pattern{2, 4}, w.Values, w.Bits, w.Starts); return err },
		"dense":     func() error { _, err := New(4, 300, Pattern{}, w.Values, tensor.Mem{}, tensor.Mem{}); return err },
	} {
		if f() == nil {
			t.Errorf("wrong %s are accepted", name)
		}
	}
}

// realign copies b to memory that is aligned to 8 bytes.
func realign(b []byte) []byte {
	v := make([]uint64, len(b)/8+1)
	c := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(b))
	copy(c, b)
	return c
}

func TestEverySixteenBitPatternIsZeroOrNot(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	all := r.Perm(1 << 16)
	for _, cols := range []int{256, 97} {
		w := tensor.New(tensor.F16, len(all)/cols, cols)
		for i := range w.Len() {
			w.Uint16()[i] = uint16(all[i])
			if r.IntN(2) == 0 {
				w.Uint16()[i] &= 0x8001 // ±0 and the smallest subnormals among them
			}
		}
		mask := MaskOf(w)
		for i := range w.Len() {
			if got := mask[i/cols*Words(cols)+i%cols/64]>>(i%cols%64)&1 == 1; got != (w.Uint16()[i]&0x7fff != 0) {
				t.Fatalf("%#x is kept: %v", w.Uint16()[i], got)
			}
		}
	}
}
