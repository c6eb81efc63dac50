package main

import "fmt"

// mergeNEON writes the parts of a merge, as expand does.
func mergeNEON(a *asm) {
	nibbleTables(a)
	for _, f := range formats {
		expandNEON(a, f.name, f.size)
	}
	maskWordsNEON(a)
	combineNEON(a)
}

// nibbleTables are, for every four bits, which bytes of the next four values belong into the lanes (255: none), and how many values
// that takes.
func nibbleTables(a *asm) {
	a.WriteString("\n")
	for n := range 16 {
		rank := 0
		for half := range 2 {
			var entry uint64
			for lane := range 2 {
				at := uint64(0xffffffff)
				if n>>(2*half+lane)&1 != 0 {
					at = uint64(0x03020100 + 0x04040404*rank)
					rank++
				}
				entry |= at << (32 * lane)
			}
			fmt.Fprintf(a, "DATA nibbles<>+%d(SB)/8, $0x%016x\n", 16*n+8*half, entry)
		}
		fmt.Fprintf(a, "DATA counts<>+%d(SB)/1, $%d\n", n, rank)
	}
	a.WriteString("GLOBL nibbles<>(SB), RODATA|NOPTR, $256\n")
	a.WriteString("GLOBL counts<>(SB), RODATA|NOPTR, $16\n")
}

// laneBits sets V16 … V23 to the bits of a half word's columns, four in each: CMTST then tells which of them are set.
func laneBits(a *asm) {
	for g := range 8 {
		b := uint64(1) << (4 * g)
		a.f("VMOVQ $0x%016x, $0x%016x, V%d", b|b<<33, b<<2|b<<35, 16+g)
	}
}

// maskWordsNEON writes
//
//	func maskWords128(words int, x *float32, bits *uint64)
//
// x_j = kept_j ? x_j : +0 for j < 64·words.
func maskWordsNEON(a *asm) {
	a.text("maskWords128", 24)
	a.arguments("words", "R0", "x", "R1", "bits", "R2")
	laneBits(a)
	a.f("LSL $1, R0")
	a.label("half")
	a.f("MOVWU.P 4(R2), R3")
	a.f("VDUP R3, V0.S4")
	for g := range 8 {
		a.f("FMOVQ %d(R1), F1", 16*g)
		a.f("VCMTST V0.S4, V%d.S4, V2.S4", 16+g)
		a.f("VAND V2.B16, V1.B16, V1.B16")
		a.f("FMOVQ F1, %d(R1)", 16*g)
	}
	a.f("ADD $128, R1")
	a.f("SUBS $1, R0")
	a.f("BNE half")
	a.f("RET")
}

// expandNEON writes
//
//	func expand128F32(words int, dst *float32, bits *uint64, values unsafe.Pointer)
//
// dst_j = kept_j ? dst_j + w_j : +0 for j < 64·words. It reads up to 4 values beyond the last.
func expandNEON(a *asm, format string, size int) {
	a.text("expand128"+format, 32)
	a.arguments("words", "R0", "dst", "R1", "bits", "R2", "values", "R3")
	laneBits(a)
	a.f("MOVD $nibbles<>(SB), R4")
	a.f("MOVD $counts<>(SB), R5")
	a.f("LSL $1, R0")
	a.label("half")
	a.f("MOVWU.P 4(R2), R6")
	a.f("VDUP R6, V0.S4")
	for g := range 8 {
		a.f("UBFX $%d, R6, $4, R7", 4*g)
		a.f("ADD R7<<4, R4, R8")
		a.f("MOVBU (R5)(R7), R9")
		a.loadQuad(format, "(R3)", "V1")
		a.f("FMOVQ (R8), F2")
		a.f("VTBL V2.B16, [V1.B16], V1.B16")
		a.f("FMOVQ %d(R1), F3", 16*g)
		a.v3("fadd", "V1", "V3", "V1")
		a.f("VCMTST V0.S4, V%d.S4, V2.S4", 16+g)
		a.f("VAND V2.B16, V1.B16, V1.B16")
		a.f("FMOVQ F1, %d(R1)", 16*g)
		a.f("ADD R9<<%d, R3", size/2)
	}
	a.f("ADD $128, R1")
	a.f("SUBS $1, R0")
	a.f("BNE half")
	a.f("RET")
}

// combineNEON writes
//
//	func combine128(strips int, dst, coef, a *float32, lda, r int)
//
// dst_j += Σ_k coef_k·a[k·lda + j] for j < 32·strips, r > 0.
func combineNEON(a *asm) {
	a.text("combine128", 48)
	a.arguments("strips", "R0", "dst", "R1", "coef", "R2", "a", "R3", "lda", "R4")
	a.f("LSL $2, R4")
	a.label("strip")
	a.f("MOVD r+40(FP), R5")
	a.f("MOVD R2, R6")
	a.f("MOVD R3, R7")
	for i := range 4 {
		a.f("FLDPQ %d(R1), %s", 32*i, pair(i))
	}
	a.label("rank")
	a.f("FMOVS.P 4(R6), F16")
	for i := range 4 {
		a.f("FLDPQ %d(R7), %s", 32*i, pair(4+i))
	}
	for i := range 8 {
		a.byElement("fmla", neon.r(i), neon.r(8+i), "V16", 0)
	}
	a.f("ADD R4, R7")
	a.f("SUBS $1, R5")
	a.f("BNE rank")
	for i := range 4 {
		a.f("FSTPQ %s, %d(R1)", pair(i), 32*i)
	}
	a.f("ADD $128, R1")
	a.f("ADD $128, R3")
	a.f("SUBS $1, R0")
	a.f("BNE strip")
	a.f("RET")
}
