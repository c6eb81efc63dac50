package dist

import (
	"encoding/binary"
	"io"
	"math/bits"
	"unsafe"
)

// The wire is little-endian float32. On a little-endian machine a vector's memory is already that.

func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// view is v's memory as bytes.
func view(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

func writeFloats(w io.Writer, v []float32) error {
	b := view(v)
	if !littleEndian() {
		b = swapped(v)
	}
	_, err := w.Write(b)
	return err
}

func readFloats(r io.Reader, v []float32) error {
	b := view(v)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if !littleEndian() {
		copy(b, swapped(v))
	}
	return nil
}

// swapped is a copy of v with the bytes of each float reversed.
func swapped(v []float32) []byte {
	b := append([]byte(nil), view(v)...)
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], bits.ReverseBytes32(binary.NativeEndian.Uint32(b[i:])))
	}
	return b
}
