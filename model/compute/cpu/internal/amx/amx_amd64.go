package amx

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Pairs are the kernels of a processor that multiplies pairs of bfloat16 in its vector registers; nil where it does not.
func Pairs() *Kernels {
	if !vectors() || !cpu.X86.HasAVX512BF16 {
		return nil
	}
	k := &Kernels{Name: "avx512bf16"}
	for i := range k.Strip[0][0] {
		k.Strip[0][0][i] = pairs
	}
	return k
}

// Tiles are the kernels of a processor with a unit for tiles, which the operating system lets this process use; nil otherwise.
func Tiles() *Kernels {
	x := &cpu.X86
	if !vectors() || !x.HasAVX512BF16 || !x.HasAMXTile || !x.HasAMXBF16 || !permitted() {
		return nil
	}
	return &Kernels{Name: "amx", Strip: [2][2][4]func(*Strip){
		{{strip11x11, strip11x12, strip11x21, strip11x22}, {strip13x11, strip13x12, strip13x21, strip13x22}},
		{{strip31x11, strip31x12, strip31x21, strip31x22}, {strip33x11, strip33x12, strip33x21, strip33x22}},
	}}
}

// vectors reports whether the packing kernels run here.
func vectors() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasBMI2
}

// Pack are the packing kernels of a processor that has Pairs or Tiles.
func Pack() Packing {
	return Packing{Rows16: rows16, Rows32: rows32, Along16: along16, Along32: along32, Turn: turn, Store32: store32, Store16: store16}
}

//go:noescape
func pairs(s *Strip)

//go:noescape
func rows16(dst, src unsafe.Pointer, stride, rows, k int)

//go:noescape
func rows32(dst, src unsafe.Pointer, stride, rows, k int) int

//go:noescape
func along16(dst, src unsafe.Pointer, stride, rows, k int)

//go:noescape
func along32(dst, src unsafe.Pointer, stride, rows, k int) int

//go:noescape
func turn(dst unsafe.Pointer, n int)

//go:noescape
func store32(dst unsafe.Pointer, stride int, src unsafe.Pointer, rows, cols int, alpha, beta float32)

//go:noescape
func store16(dst unsafe.Pointer, stride int, src unsafe.Pointer, rows, cols int, alpha, beta float32)

//go:noescape
func strip11x11(s *Strip)

//go:noescape
func strip11x12(s *Strip)

//go:noescape
func strip11x21(s *Strip)

//go:noescape
func strip11x22(s *Strip)

//go:noescape
func strip13x11(s *Strip)

//go:noescape
func strip13x12(s *Strip)

//go:noescape
func strip13x21(s *Strip)

//go:noescape
func strip13x22(s *Strip)

//go:noescape
func strip31x11(s *Strip)

//go:noescape
func strip31x12(s *Strip)

//go:noescape
func strip31x21(s *Strip)

//go:noescape
func strip31x22(s *Strip)

//go:noescape
func strip33x11(s *Strip)

//go:noescape
func strip33x12(s *Strip)

//go:noescape
func strip33x21(s *Strip)

//go:noescape
func strip33x22(s *Strip)
