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
	for moves := range 2 {
		for i := range 4 {
			k.Strip[0][0][moves][i] = pairs
		}
	}
	return k
}

// PairsPay reports whether Pairs are faster than multiply-adds of float32. A processor that has tiles, too, takes several turns for each: there
// they reach two thirds of those.
func PairsPay() bool { return !cpu.X86.HasAMXTile }

// Tiles are the kernels of a processor with a unit for tiles, which the operating system lets this process use; nil otherwise.
func Tiles() *Kernels {
	x := &cpu.X86
	if !vectors() || !x.HasAVX512BF16 || !x.HasAVX512VBMI2 || !x.HasAMXTile || !x.HasAMXBF16 || !permitted() {
		return nil
	}
	return &Kernels{Name: "amx", Strip: [2][2][2][4]func(*Strip){
		{{{strip11x11a, strip11x12a, strip11x21a, strip11x22a}, {strip11x11b, strip11x12b, strip11x21b, strip11x22b}},
			{{strip13x11a, strip13x12a, strip13x21a, strip13x22a}, {strip13x11b, strip13x12b, strip13x21b, strip13x22b}}},
		{{{strip31x11a, strip31x12a, strip31x21a, strip31x22a}, {strip31x11b, strip31x12b, strip31x21b, strip31x22b}},
			{{strip33x11a, strip33x12a, strip33x21a, strip33x22a}, {strip33x11b, strip33x12b, strip33x21b, strip33x22b}}},
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

// Mask are the kernels of masked weights, for a processor that has Tiles.
func Mask() Masking {
	return Masking{
		Row: [3][2]func(dst, c, bits, values unsafe.Pointer, steps int){{mergeRowF32x1, mergeRowF32x3}, {mergeRowBF16x1, mergeRowBF16x3}, {mergeRowF16x1, mergeRowF16x3}},
		Pair: [3][2]func(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int){
			{mergePairF32x1, mergePairF32x3}, {mergePairBF16x1, mergePairBF16x3}, {mergePairF16x1, mergePairF16x3}},
		Block: [2]func(asRows, asPairs, c, bits unsafe.Pointer, stride, rows int){maskBlock1, maskBlock3},
	}
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
func strip11x11a(s *Strip)

//go:noescape
func strip11x11b(s *Strip)

//go:noescape
func strip11x12a(s *Strip)

//go:noescape
func strip11x12b(s *Strip)

//go:noescape
func strip11x21a(s *Strip)

//go:noescape
func strip11x21b(s *Strip)

//go:noescape
func strip11x22a(s *Strip)

//go:noescape
func strip11x22b(s *Strip)

//go:noescape
func strip13x11a(s *Strip)

//go:noescape
func strip13x11b(s *Strip)

//go:noescape
func strip13x12a(s *Strip)

//go:noescape
func strip13x12b(s *Strip)

//go:noescape
func strip13x21a(s *Strip)

//go:noescape
func strip13x21b(s *Strip)

//go:noescape
func strip13x22a(s *Strip)

//go:noescape
func strip13x22b(s *Strip)

//go:noescape
func strip31x11a(s *Strip)

//go:noescape
func strip31x11b(s *Strip)

//go:noescape
func strip31x12a(s *Strip)

//go:noescape
func strip31x12b(s *Strip)

//go:noescape
func strip31x21a(s *Strip)

//go:noescape
func strip31x21b(s *Strip)

//go:noescape
func strip31x22a(s *Strip)

//go:noescape
func strip31x22b(s *Strip)

//go:noescape
func strip33x11a(s *Strip)

//go:noescape
func strip33x11b(s *Strip)

//go:noescape
func strip33x12a(s *Strip)

//go:noescape
func strip33x12b(s *Strip)

//go:noescape
func strip33x21a(s *Strip)

//go:noescape
func strip33x21b(s *Strip)

//go:noescape
func strip33x22a(s *Strip)

//go:noescape
func strip33x22b(s *Strip)

//go:noescape
func mergeRowF32x1(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairF32x1(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func mergeRowF32x3(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairF32x3(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func mergeRowBF16x1(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairBF16x1(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func mergeRowBF16x3(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairBF16x3(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func mergeRowF16x1(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairF16x1(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func mergeRowF16x3(dst, c, bits, values unsafe.Pointer, steps int)

//go:noescape
func mergePairF16x3(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)

//go:noescape
func maskBlock1(asRows, asPairs, c, bits unsafe.Pointer, stride, rows int)

//go:noescape
func maskBlock3(asRows, asPairs, c, bits unsafe.Pointer, stride, rows int)
