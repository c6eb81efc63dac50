package main

import "fmt"

// masked writes the kernels of masked weights and gradients: what a row of mask bits keeps of 32 columns at a time.
func masked(a *asm) {
	for _, f := range []string{"F32", "BF16", "F16"} {
		for _, parts := range []int{1, 3} {
			mergeRow(a, f, parts)
			mergePair(a, f, parts)
		}
	}
	for _, parts := range []int{1, 3} {
		maskBlock(a, parts)
	}
}

// constantsOf sets what rounding or splitting needs.
func constantsOf(a *asm, parts int) {
	if parts == 3 {
		constants(a)
	}
}

// kept sets Z(d) and Z(d+4) to the next 32 columns of a row: the packed values at (values) where K1 says, K2 its upper half, plus the sums
// at (c) and a tile behind, if TESTQ said there are any (the flag is in R13: 0 for none), and 0 elsewhere. It moves values on, by way of AX and R9.
func kept(a *asm, format string, d int, word, values, c string, label string) {
	a.f("MOVL (%s), AX", word)
	a.f("ADDQ $4, %s", word)
	a.f("KMOVD AX, K1")
	a.f("KSHIFTRD $16, K1, K2")
	a.f("POPCNTL AX, R9")
	if format == "F32" {
		a.f("MOVWLZX AX, AX")
		a.f("POPCNTL AX, AX")
		a.f("VPEXPANDD.Z (%s), K1, Z%d", values, d)
		a.f("VPEXPANDD.Z (%s)(AX*4), K2, Z%d", values, d+4)
		a.f("LEAQ (%s)(R9*4), %s", values, values)
	} else {
		a.f("VPEXPANDW.Z (%s), K1, Z%d", values, d)
		a.f("LEAQ (%s)(R9*2), %s", values, values)
		a.f("VEXTRACTI64X4 $1, Z%d, Y%d", d, d+4)
		for i := 0; i <= 4; i += 4 {
			if format == "BF16" {
				a.f("VPMOVZXWD Y%d, Z%d", d+i, d+i)
				a.f("VPSLLD $16, Z%d, Z%d", d+i, d+i)
			} else {
				a.f("VCVTPH2PS Y%d, Z%d", d+i, d+i)
			}
		}
	}
	a.f("TESTQ R13, R13")
	a.f("JZ %s", label)
	a.f("VADDPS.Z (%s), Z%d, K1, Z%d", c, d, d)
	a.f("VADDPS.Z %d(%s), Z%d, K2, Z%d", tile, c, d+4, d+4)
	a.label(label)
}

// mergeRow writes
//
//	func mergeRowBF16x1(dst, c, bits, values unsafe.Pointer, steps int)
//
// A row of a panel of a, in steps of 32 columns: kept values plus the row's sums in the blocks c (nil: none), rounded, or in three parts.
func mergeRow(a *asm, format string, parts int) {
	a.text(fmt.Sprintf("mergeRow%sx%d", format, parts), 40)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ c+8(FP), SI")
	a.f("MOVQ SI, R13")
	a.f("MOVQ bits+16(FP), BX")
	a.f("MOVQ values+24(FP), DX")
	a.f("MOVQ steps+32(FP), CX")
	constantsOf(a, parts)
	if parts == 3 {
		a.f("VMOVDQU64 lanes<>(SB), Z26")
	}
	a.label("step")
	kept(a, format, 0, "BX", "DX", "SI", "alone")
	if parts == 1 {
		a.narrow2(0, 4, 0)
		a.f("VMOVDQU64 Z0, (DI)")
	} else {
		storeRows32(a)
	}
	a.f("ADDQ $%d, SI", 4*tile)
	a.f("ADDQ $%d, DI", 2*tile*parts)
	a.f("DECQ CX")
	a.f("JNZ step")
	a.ret()
}

// mergePair writes
//
//	func mergePairBF16x1(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)
//
// A pair of rows of n panels of b, which are panel bytes apart: two rows of kept values plus their sums in the blocks c (nil: none).
func mergePair(a *asm, format string, parts int) {
	a.text(fmt.Sprintf("mergePair%sx%d", format, parts), 48)
	a.f("MOVQ bits+24(FP), AX")
	a.f("MOVQ (AX), BX")
	a.f("MOVQ 8(AX), R10")
	a.f("MOVQ values+32(FP), AX")
	a.f("MOVQ (AX), DX")
	a.f("MOVQ 8(AX), R11")
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ panel+8(FP), R8")
	a.f("MOVQ c+16(FP), SI")
	a.f("MOVQ SI, R13")
	a.f("LEAQ 64(SI), R12")
	a.f("MOVQ n+40(FP), CX")
	constantsOf(a, parts)
	if parts == 1 {
		a.f("VMOVDQU64 halves<>(SB), Z26")
	}
	a.label("panel")
	kept(a, format, 0, "BX", "DX", "SI", "first")
	kept(a, format, 8, "R10", "R11", "R12", "second")
	if parts == 1 {
		a.narrow2(0, 4, 0)
		a.narrow2(8, 12, 1)
		interleave(a)
		a.f("VMOVDQU64 Z2, (DI)")
		a.f("VMOVDQU64 Z3, %d(DI)", tile)
	} else {
		for _, x := range []int{0, 4, 8, 12} {
			split(a, x)
		}
		for p := range 3 {
			for h := range 2 {
				x, y := part(4*h, p), part(8+4*h, p)
				a.f("VPSRLD $16, Z%d, Z%d", x, x)
				a.f("VPORD Z%d, Z%d, Z%d", y, x, x)
				a.f("VMOVDQU64 Z%d, %d(DI)", x, 2*tile*p+tile*h)
			}
		}
	}
	a.f("ADDQ R8, DI")
	a.f("ADDQ $%d, SI", 4*tile)
	a.f("ADDQ $%d, R12", 4*tile)
	a.f("DECQ CX")
	a.f("JNZ panel")
	a.ret()
}

// interleave sets Z2 and Z3 to the pairs of Z0 and Z1, columns 0…15 and 16…31; Z26 is halves.
func interleave(a *asm) {
	for i := range 2 {
		a.f("VPERMQ Z%d, Z26, Z%d", i, i)
	}
	a.f("VPUNPCKLWD Z1, Z0, Z2")
	a.f("VPUNPCKHWD Z1, Z0, Z3")
}

// maskBlock writes
//
//	func maskBlock1(asRows, asPairs, c, bits unsafe.Pointer, stride, rows int)
//
// A block c, of which a row keeps the columns of the 32 bits at bits + row·stride bytes, as one step of a panel of a and one of b (whose inner
// elements are the rows). Rows beyond rows are 0.
func maskBlock(a *asm, parts int) {
	a.text(fmt.Sprintf("maskBlock%d", parts), 48)
	a.f("MOVQ asRows+0(FP), DI")
	a.f("MOVQ asPairs+8(FP), DX")
	a.f("MOVQ c+16(FP), SI")
	a.f("MOVQ bits+24(FP), BX")
	a.f("MOVQ stride+32(FP), R8")
	a.f("MOVQ rows+40(FP), CX")
	constantsOf(a, parts)
	a.f("VMOVDQU64 halves<>(SB), Z26")
	a.f("VMOVDQU64 lanes<>(SB), Z25")
	a.f("MOVQ $16, R10")
	a.f("MOVQ $8, R11")
	a.label("pair")
	for i := range 2 {
		d := 8 * i
		a.f("XORL AX, AX")
		a.f("TESTQ CX, CX")
		a.f("JLE none%d", i)
		a.f("MOVL (BX), AX")
		a.f("ADDQ R8, BX")
		a.f("DECQ CX")
		a.label(fmt.Sprintf("none%d", i))
		a.f("KMOVD AX, K1")
		a.f("KSHIFTRD $16, K1, K2")
		a.f("VMOVUPS.Z %d(SI), K1, Z%d", 64*i, d)
		a.f("VMOVUPS.Z %d(SI), K2, Z%d", tile+64*i, d+4)
	}
	if parts == 1 {
		a.narrow2(0, 4, 0)
		a.narrow2(8, 12, 1)
		a.f("VMOVDQU64 Z0, (DI)")
		a.f("VMOVDQU64 Z1, 64(DI)")
		interleave(a)
		a.f("VMOVDQU64 Z2, (DX)")
		a.f("VMOVDQU64 Z3, %d(DX)", tile)
	} else {
		for _, x := range []int{0, 4, 8, 12} {
			split(a, x)
		}
		for p := range 3 {
			for h := range 2 {
				x, y := part(4*h, p), part(8+4*h, p)
				a.f("VPSRLD $16, Z%d, Z%d", x, x)
				a.f("VPORD Z%d, Z%d, Z%d", y, x, 16+h)
				a.f("VPSRLD $16, Z%d, Z%d", y, y)
				a.f("VMOVDQU64 Z%d, %d(DX)", 16+h, 2*tile*p+tile*h)
			}
			for i := range 2 {
				lo, hi := part(8*i, p), part(8*i+4, p)
				a.f("VPACKUSDW Z%d, Z%d, Z%d", hi, lo, lo)
				a.f("VPERMQ Z%d, Z25, Z%d", lo, lo)
				a.f("VMOVDQU64 Z%d, %d(DI)", lo, 2*tile*p+64*i)
			}
		}
	}
	a.f("ADDQ $128, SI")
	a.f("ADDQ $128, DI")
	a.f("ADDQ $64, DX")
	a.f("DECQ R11")
	a.f("JNZ same")
	a.f("ADDQ $%d, SI", tile) // the other half of the rows
	a.f("MOVQ $8, R11")
	a.label("same")
	a.f("DECQ R10")
	a.f("JNZ pair")
	a.ret()
}
