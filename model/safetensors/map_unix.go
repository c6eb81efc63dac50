//go:build unix

package safetensors

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapFile maps size bytes of f, read-only and shared.
func mapFile(f *os.File, size int64) ([]byte, func() error, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return b, func() error { return unix.Munmap(b) }, nil
}

// Forget tells the system that the whole pages of data, a window of a mapping, are not needed soon: they no longer count
// as this process's memory, and are read again if they are touched.
func Forget(data []byte) { advise(data, unix.MADV_DONTNEED) }

// WillNeed tells the system that the pages of data, a window of a mapping, are going to be read.
func WillNeed(data []byte) { advise(data, unix.MADV_WILLNEED) }

func advise(data []byte, what int) {
	page := uintptr(os.Getpagesize())
	if uintptr(len(data)) < 2*page {
		return
	}
	skip := (page - uintptr(unsafe.Pointer(&data[0]))%page) % page
	n := (uintptr(len(data)) - skip) / page * page
	_ = unix.Madvise(data[skip:skip+n], what) // advice: nothing is lost if it is not taken
}
