package compute_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/tensor"
)

func host(n int) tensor.Mem { return tensor.New(tensor.U8, 1, n).Mem }

// panics gives what f panics with.
func panics(f func()) (message string) {
	defer func() { message = fmt.Sprint(recover()) }()
	f()
	return ""
}

func TestASlotHasOneHolderAndNamesIt(t *testing.T) {
	s := compute.NewSlot(host(4*6), 4*6)
	w := s.Lease("q_proj", tensor.F32, 2, 3)
	if w.DType != tensor.F32 || w.Rows != 2 || w.Cols != 3 || len(w.Mem.Host) != 24 {
		t.Errorf("lease is %s with %d bytes", w, len(w.Mem.Host))
	}
	if got := panics(func() { s.Lease("k_proj", tensor.F32, 1, 1) }); !strings.Contains(got, "k_proj") || !strings.Contains(got, "q_proj") {
		t.Error(got)
	}
	s.Return(w)
	if got := panics(func() { s.Return(w) }); !strings.Contains(got, "nobody holds it") {
		t.Error(got)
	}
	if got := panics(func() { s.Lease("up_proj", tensor.F32, 7, 1) }); !strings.Contains(got, "up_proj leases 28 bytes of a weight slot of 24") {
		t.Error(got)
	}
	s.Lease("v_proj", tensor.F32, 3, 2)
}

func TestASlotHoldsTwiceAsManyWeightsOfHalfTheSize(t *testing.T) {
	s := compute.NewSlot(host(24), 24)
	w := s.Lease("q_proj", tensor.BF16, 4, 3)
	if w.DType != tensor.BF16 || w.Rows != 4 || w.Cols != 3 || len(w.Mem.Host) != 24 {
		t.Errorf("lease is %s with %d bytes", w, len(w.Mem.Host))
	}
	w.Uint16()[11] = tensor.ToBF16(1)
	s.Return(w)
	if v := tensor.FromBF16(w.Uint16()[11]); math.IsNaN(float64(v)) != invariants {
		t.Errorf("returned: %v, with the invariants tag: %v", v, invariants)
	}
	if got := panics(func() { s.Lease("up_proj", tensor.BF16, 1, 13) }); !strings.Contains(got, "leases 26 bytes of a weight slot of 24") {
		t.Error(got)
	}
}

func TestAStackGivesAlignedPiecesAndTakesThemBackByMarks(t *testing.T) {
	s := compute.NewStack(host(64*5), 64*5)
	a := s.Push(tensor.F32, 1, 3)
	mark := s.Mark()
	b := s.Push(tensor.F32, 5, 5) // 100 bytes are two lines
	if mark != 64 || s.Mark() != 64*3 {
		t.Errorf("marks %d and %d", mark, s.Mark())
	}
	a.Float32()[2], b.Float32()[0] = 1, 2
	if a.Float32()[2] != 1 {
		t.Error("pieces overlap")
	}
	s.Reset(mark)
	c := s.Push(tensor.I32, 1, 1)
	if &c.Mem.Host[0] != &b.Mem.Host[0] || s.Peak() != 64*3 {
		t.Errorf("after a reset: peak %d", s.Peak())
	}
	if got := panics(func() { s.Push(tensor.F32, 1, 64) }); !strings.Contains(got, "the plan is wrong") {
		t.Error(got)
	}
}

func TestReturnedMemoryIsPoisonedWithInvariants(t *testing.T) {
	s := compute.NewSlot(host(8), 8)
	w := s.Lease("q_proj", tensor.F32, 1, 2)
	w.Float32()[0] = 1
	s.Return(w)
	if bad := math.IsNaN(float64(w.Float32()[0])); bad != invariants {
		t.Errorf("poisoned: %v, with the invariants tag: %v", bad, invariants)
	}
}
