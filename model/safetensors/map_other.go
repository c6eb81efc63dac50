//go:build !unix

package safetensors

import (
	"io"
	"os"
	"unsafe"
)

// mapFile reads the file where it cannot be mapped.
func mapFile(f *os.File, size int64) ([]byte, func() error, error) {
	v := make([]uint64, size/8+1)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), size)
	_, err := io.ReadFull(io.NewSectionReader(f, 0, size), b)
	return b, func() error { return nil }, err
}

// Forget has nothing to do without a mapping.
func Forget([]byte) {}

// WillNeed likewise.
func WillNeed([]byte) {}
