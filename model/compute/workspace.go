package compute

import (
	"fmt"

	"github.com/splora/splora/model/tensor"
)

// Device is what one rank computes on: a backend and the memory planned for it.
type Device struct {
	Backend
	*Workspace
}

// Workspace is a rank's scratch memory. It is planned and allocated before step 0 and never grows.
type Workspace struct {
	// Weight is the slot of the merged weight: W̃ in forward, W̃ again in backward, then G.
	Weight Slot
	// Acts is the stack of activations.
	Acts Stack
}

// Slot is one leased buffer, as large as the largest lease.
type Slot struct {
	mem    tensor.Mem
	bytes  int
	peak   int
	holder string
}

// NewSlot makes a slot over mem of n bytes.
func NewSlot(mem tensor.Mem, n int) Slot { return Slot{mem: mem, bytes: n} }

// Lease gives the slot as [rows, cols] of the compute type to the named holder. Leasing a leased slot is a bug and panics.
func (s *Slot) Lease(holder string, dt tensor.DType, rows, cols int) tensor.Tensor {
	if s.holder != "" {
		panic(fmt.Sprintf("compute: %s leases the weight slot while %s holds it", holder, s.holder))
	}
	n := rows * cols * dt.Size()
	if n > s.bytes {
		panic(fmt.Sprintf("compute: %s leases %d bytes of a weight slot of %d", holder, n, s.bytes))
	}
	s.holder, s.peak = holder, max(s.peak, n)
	t := tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: s.mem}
	if t.Mem.Host != nil {
		t.Mem.Host = t.Mem.Host[:n]
	}
	return t
}

// Holds reports whether the slot has room for [rows, cols].
func (s *Slot) Holds(dt tensor.DType, rows, cols int) bool { return rows*cols*dt.Size() <= s.bytes }

// Peak is the largest lease so far, in bytes.
func (s *Slot) Peak() int { return s.peak }

// Return ends the lease. With the invariants tag the memory is poisoned with NaN.
func (s *Slot) Return(t tensor.Tensor) {
	if s.holder == "" {
		panic("compute: the weight slot is returned but nobody holds it")
	}
	poison(t)
	s.holder = ""
}

// Stack is a bump allocator of activations: Mark, Push…, Reset to the mark.
type Stack struct {
	mem       tensor.Mem
	size, top int
	peak      int
}

// NewStack makes a stack over mem of n bytes.
func NewStack(mem tensor.Mem, n int) Stack { return Stack{mem: mem, size: n} }

// Push gives the next rows×cols elements, 64-byte aligned, with unspecified content (NaN with the invariants tag).
func (s *Stack) Push(dt tensor.DType, rows, cols int) tensor.Tensor {
	n := rows * cols * dt.Size()
	end := s.top + (n+63)&^63
	if end > s.size {
		panic(fmt.Sprintf("compute: %s[%d,%d] needs %d bytes, the activation stack has %d of %d left: the plan is wrong", dt, rows, cols, n, s.size-s.top, s.size))
	}
	t := tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: s.mem}
	if s.mem.Host != nil {
		t.Mem.Host = s.mem.Host[s.top : s.top+n : s.top+n]
	} else {
		t.Mem.Device += uintptr(s.top)
	}
	s.top, s.peak = end, max(s.peak, end)
	poison(t)
	return t
}

// Mark is the current height.
func (s *Stack) Mark() int { return s.top }

// Reset drops everything pushed since the mark.
func (s *Stack) Reset(mark int) { s.top = mark }

// Peak is the greatest height seen, in bytes.
func (s *Stack) Peak() int { return s.peak }
