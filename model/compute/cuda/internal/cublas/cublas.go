//go:build cuda

// Package cublas is cuBLAS, opened at run time: matrix products with float32 accumulation. It needs no header, and works with the
// libraries of CUDA 11, 12 and 13.
package cublas

// #cgo LDFLAGS: -ldl
// #include "table.h"
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"
)

// Type is a cudaDataType.
type Type int

// Types.
const (
	F32  Type = 0
	F16  Type = 2
	BF16 Type = 14
)

// noReduced is CUBLAS_DEFAULT_MATH (no TF32) with CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: partial sums stay float32.
const noReduced = 16

// Library is cuBLAS as it was found.
type Library struct {
	Path string
	t    *C.splora_cublas
}

// names are the libraries looked for, newest first.
var names = [...]string{"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"}

// Load opens the library: path itself when it names a file, else the first of the known names where the loader looks, and
// then in dirs.
func Load(path string, dirs []string) (*Library, error) {
	try := []string{path}
	if path == "" {
		try = append([]string{}, names[:]...)
		for _, d := range dirs {
			for _, n := range names {
				try = append(try, filepath.Join(d, n))
			}
		}
	}
	var missing []string
	for _, p := range try {
		l, err := open(p)
		if err == nil {
			return l, nil
		}
		missing = append(missing, err.Error())
	}
	return nil, fmt.Errorf("no cuBLAS: %s; install CUDA's libraries (python -m pip install nvidia-cublas brings them), or say where libcublas.so is", strings.Join(dedup(missing), "; "))
}

// dedup shortens a list of failures to the first few that differ.
func dedup(list []string) []string {
	const few = 3
	if len(list) > few {
		return append(list[:few:few], fmt.Sprintf("and %d more places", len(list)-few))
	}
	return list
}

func open(path string) (*Library, error) {
	if strings.Contains(path, "/") { // libcublas needs libcublasLt beside it, which may not be where the loader looks
		preload(filepath.Join(filepath.Dir(path), strings.Replace(filepath.Base(path), "libcublas", "libcublasLt", 1)))
	}
	t := (*C.splora_cublas)(C.calloc(1, C.sizeof_splora_cublas))
	var why [512]C.char
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if C.splora_cublas_open(t, p, &why[0], C.size_t(len(why))) == 0 {
		C.free(unsafe.Pointer(t))
		return nil, fmt.Errorf("%s", C.GoString(&why[0]))
	}
	return &Library{Path: path, t: t}, nil
}

func preload(path string) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	C.splora_cublas_preload(p)
}

// Handle is cuBLAS on one stream. Its calls belong to a thread on which the stream's context is current.
type Handle struct {
	l       *Library
	h       unsafe.Pointer
	Version int // 130201 for 13.2.1
}

// Start makes a handle that queues on stream and works in n bytes of device memory at space.
func (l *Library) Start(stream, space uintptr, n int) (*Handle, error) {
	h := &Handle{l: l}
	var version C.int
	rc := C.splora_cublas_start(l.t, &h.h, C.uintptr_t(stream), C.uintptr_t(space), C.size_t(n), noReduced, &version)
	if rc != 0 {
		return nil, fmt.Errorf("%s: %w", l.Path, l.status(rc))
	}
	h.Version = int(version)
	return h, nil
}

// Close frees the handle.
func (h *Handle) Close() error { return h.l.status(C.splora_cublas_stop(h.l.t, h.h)) }

// Matrix is a row-major operand; T: it is taken transposed. LD is the distance of its rows.
type Matrix struct {
	At   uintptr
	Type Type
	LD   int
	T    bool
}

// Gemm queues dst [m,n] = α·op(a)·op(b) + β·dst. cuBLAS counts columns first, so it is asked for dstᵀ = op(b)ᵀ·op(a)ᵀ.
func (h *Handle) Gemm(dst Matrix, alpha float32, a, b Matrix, beta float32, m, n, k int) error {
	return h.l.status(C.splora_cublas_gemm(h.l.t, h.h, op(b), op(a), C.int(n), C.int(m), C.int(k), C.float(alpha), C.uintptr_t(b.At), C.int(b.Type), C.int(b.LD),
		C.uintptr_t(a.At), C.int(a.Type), C.int(a.LD), C.float(beta), C.uintptr_t(dst.At), C.int(dst.Type), C.int(dst.LD)))
}

func op(m Matrix) C.int {
	if m.T {
		return 1
	}
	return 0
}

func (l *Library) status(rc C.int) error {
	if rc == 0 {
		return nil
	}
	if text := C.splora_cublas_text(l.t, rc); text != nil {
		return fmt.Errorf("cuBLAS status %d: %s", int(rc), C.GoString(text))
	}
	return fmt.Errorf("cuBLAS status %d", int(rc))
}
