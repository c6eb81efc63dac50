// Package safetensors reads and writes the files of a Hugging Face folder.
//
//	file = n (uint64, little-endian) ‖ header (n bytes of JSON) ‖ data
//	header = {"name": {"dtype": "BF16", "shape": [out,in], "data_offsets": [begin,end]}, …, "__metadata__": {"k": "v"}}
//
// The tensors tile the data without hole or overlap, so a file is checked completely by its header, and a tensor is a
// window of the mapped file. Beside base weights there are masks (mask.go) and PEFT adapters (adapter.go).
package safetensors

import (
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/tensor"
)

// MaxHeader is the longest header that is read, in bytes; the reference implementation has the same limit.
const MaxHeader = 100_000_000

// DType is an element type as the header spells it.
type DType string

// The types that splora computes with or stores. Others are known by size, so that a file with them can be listed and copied.
const (
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I32  DType = "I32"
	U8   DType = "U8"
	U32  DType = "U32"
	U64  DType = "U64"
)

// Bits is the number of bits of one element, 0 for a type that is not known.
func (d DType) Bits() int {
	switch d {
	case "F64", "I64", "U64", "C64":
		return 64
	case "F32", "I32", "U32":
		return 32
	case "F16", "BF16", "I16", "U16":
		return 16
	case "BOOL", "I8", "U8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ":
		return 8
	case "F6_E2M3", "F6_E3M2":
		return 6
	case "F4":
		return 4
	}
	return 0
}

// Of is the header's spelling of a tensor's type.
func Of(t tensor.DType) DType {
	return [...]DType{tensor.F32: F32, tensor.BF16: BF16, tensor.F16: F16, tensor.I32: I32, tensor.U8: U8}[t]
}

// Spec is what a header says of one tensor, but for its place.
type Spec struct {
	Name  string
	DType DType
	Shape []int
}

// Bytes is the size of the tensor. It panics on a Spec that no header could hold.
func (s Spec) Bytes() int64 {
	n, err := s.size()
	if err != nil {
		panic("safetensors: " + err.Error())
	}
	return n
}

// size is shape × dtype in bytes.
func (s Spec) size() (int64, error) {
	b := s.DType.Bits()
	if b == 0 {
		return 0, fmt.Errorf("tensor %q has the unknown dtype %q", s.Name, s.DType)
	}
	n := uint64(b)
	for _, d := range s.Shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 || lo > 1<<62 {
			return 0, fmt.Errorf("tensor %q: the shape %v is too large", s.Name, s.Shape)
		}
		n = lo
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("tensor %q: %v elements of %s are no whole number of bytes", s.Name, s.Shape, s.DType)
	}
	return int64(n / 8), nil
}

// Tensor is one tensor of a file. Data is a window of the mapping: it must not be written, and is gone when the file is closed.
type Tensor struct {
	Spec
	Data []byte
	Path string // the file
}

// Matrix is t as [rows, cols], a vector as [1, n]. It is the mapping's memory, or a copy where that is not aligned to
// its elements. Types other than F32, BF16, F16, I32, U8 and more than two axes are errors.
func (t Tensor) Matrix() (tensor.Tensor, error) {
	m := tensor.Tensor{Rows: 1, Cols: 1}
	switch t.DType {
	case F32:
		m.DType = tensor.F32
	case BF16:
		m.DType = tensor.BF16
	case F16:
		m.DType = tensor.F16
	case I32:
		m.DType = tensor.I32
	case U8:
		m.DType = tensor.U8
	default:
		return m, fmt.Errorf("safetensors: %s: tensor %q is %s, which is not supported here", t.Path, t.Name, t.DType)
	}
	switch len(t.Shape) {
	case 2:
		m.Rows, m.Cols = t.Shape[0], t.Shape[1]
	case 1:
		m.Cols = t.Shape[0]
	case 0:
	default:
		return m, fmt.Errorf("safetensors: %s: tensor %q has the shape %v; at most two axes are supported", t.Path, t.Name, t.Shape)
	}
	m.Mem.Host = Aligned(t.Data, m.DType.Size())
	return m, nil
}

// Aligned is b, or a copy of it at an address that is a multiple of align (at most 8).
func Aligned(b []byte, align int) []byte {
	if len(b) == 0 || uintptr(unsafe.Pointer(&b[0]))%uintptr(align) == 0 {
		return b
	}
	v := make([]uint64, (len(b)+7)/8)
	c := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(b))
	copy(c, b)
	return c
}
