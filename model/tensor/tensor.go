// Package tensor says where numbers are: a DType, a shape and a piece of memory. It does no arithmetic; that is
// compute's. Every operation of splora works on matrices, so a Tensor has two axes; a vector is one row.
package tensor

import (
	"fmt"
	"unsafe"
)

// DType is the type of one element.
type DType uint8

// Element types. Compute is in F32, or in BF16 with sums in F32; BF16 and F16 are storage of frozen weights; I32 holds tokens,
// positions and documents; U8 holds bits.
const (
	F32 DType = iota
	BF16
	F16
	I32
	U8
)

// Size is the number of bytes of one element.
func (t DType) Size() int { return [...]int{4, 2, 2, 4, 1}[t] }

func (t DType) String() string {
	return [...]string{"float32", "bfloat16", "float16", "int32", "uint8"}[t]
}

// Mem is a piece of memory: host bytes on the CPU, an address on a device. Exactly one of the two is set; the zero Mem
// is no memory.
type Mem struct {
	Host   []byte
	Device uintptr
}

// Tensor is a row-major matrix [Rows, Cols]. The zero Tensor is "absent": an operation documents what that means.
type Tensor struct {
	DType      DType
	Rows, Cols int
	Mem        Mem
}

// Of makes a host tensor over v: [1, len(v)]. It does not copy.
func Of[E float32 | int32 | uint8](v []E) Tensor {
	t := Tensor{Rows: 1, Cols: len(v)}
	switch any(v).(type) {
	case []int32:
		t.DType = I32
	case []uint8:
		t.DType = U8
	}
	if len(v) > 0 {
		t.Mem.Host = unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*t.DType.Size())
	}
	return t
}

// New allocates a zeroed host tensor, for tests and small things outside a device's arena.
func New(dt DType, rows, cols int) Tensor {
	w := make([]uint64, (rows*cols*dt.Size()+7)/8+1)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), rows*cols*dt.Size())
	return Tensor{DType: dt, Rows: rows, Cols: cols, Mem: Mem{Host: b}}
}

// Absent reports whether t is the zero Tensor.
func (t Tensor) Absent() bool {
	return t.Rows == 0 && t.Cols == 0 && t.Mem.Host == nil && t.Mem.Device == 0
}

// Len is the number of elements.
func (t Tensor) Len() int { return t.Rows * t.Cols }

// Bytes is the size in bytes.
func (t Tensor) Bytes() int { return t.Len() * t.DType.Size() }

// Reshape gives the same memory as [rows, cols]; the number of elements must not change.
func (t Tensor) Reshape(rows, cols int) Tensor {
	if rows*cols != t.Len() {
		panic(fmt.Sprintf("tensor: reshape [%d,%d] to [%d,%d]", t.Rows, t.Cols, rows, cols))
	}
	t.Rows, t.Cols = rows, cols
	return t
}

// Slice is rows [i, j) of t, over the same memory.
func (t Tensor) Slice(i, j int) Tensor {
	if i < 0 || j < i || j > t.Rows {
		panic(fmt.Sprintf("tensor: rows [%d,%d) of [%d,%d]", i, j, t.Rows, t.Cols))
	}
	row := t.Cols * t.DType.Size()
	if t.Mem.Host != nil {
		t.Mem.Host = t.Mem.Host[i*row : j*row : j*row]
	} else if t.Mem.Device != 0 {
		t.Mem.Device += uintptr(i * row)
	}
	t.Rows = j - i
	return t
}

// Window is elements [i, i+rows·cols) of t as a matrix, over the same memory.
func (t Tensor) Window(i, rows, cols int) Tensor {
	return t.Reshape(t.Len(), 1).Slice(i, i+rows*cols).Reshape(rows, cols)
}

// Float32 is the host memory of an F32 tensor; nil when it is on a device. It satisfies dist.Vector.
func (t Tensor) Float32() []float32 { return view[float32](t, F32) }

// DeviceFloat32 is the address and the length of an F32 tensor on a device; 0 when it is in host memory. It satisfies
// dist.DeviceVector.
func (t Tensor) DeviceFloat32() (ptr uintptr, n int) {
	if t.DType != F32 {
		panic(fmt.Sprintf("tensor: %s used as %s", t.DType, F32))
	}
	return t.Mem.Device, t.Len()
}

// Int32 is the host memory of an I32 tensor.
func (t Tensor) Int32() []int32 { return view[int32](t, I32) }

// Uint16 is the host memory of a BF16 or F16 tensor, as bits.
func (t Tensor) Uint16() []uint16 {
	if t.DType == F16 {
		return view[uint16](t, F16)
	}
	return view[uint16](t, BF16)
}

func view[E any](t Tensor, want DType) []E {
	if t.DType != want {
		panic(fmt.Sprintf("tensor: %s used as %s", t.DType, want))
	}
	if len(t.Mem.Host) == 0 {
		return nil
	}
	return unsafe.Slice((*E)(unsafe.Pointer(&t.Mem.Host[0])), t.Len())
}

func (t Tensor) String() string { return fmt.Sprintf("%s[%d,%d]", t.DType, t.Rows, t.Cols) }
