package main

import (
	"fmt"
	"strings"
)

// neonRows are the heights of the tiles: 12 × 8 is 24 accumulators, and leaves registers for a's 12 and b's 8 elements of a step.
var neonRows = []int{12, 8, 4}

// gemmNEON writes the micro-kernels, as gemm does: one FMLA per accumulator and k, in rising k, by an element of a.
func gemmNEON(a *asm) {
	for _, rows := range neonRows {
		for vecs := 2; vecs > 0; vecs-- {
			tileNEON(a, rows, vecs)
			tileOfColumnsNEON(a, rows, vecs)
			tileOfRowsNEON(a, rows, vecs)
		}
	}
	peakNEON(a)
}

// accumulator is register j of row i of a tile; below V8 stand a, b, and later α and β.
func accumulator(vecs, i, j int) string { return neon.r(8 + i*vecs + j) }

// list is n registers from r on as an operand.
func list(r, n int) string {
	var s []string
	for i := range n {
		s = append(s, neon.r(r+i)+".S4")
	}
	return "[" + strings.Join(s, ", ") + "]"
}

// tileNEON writes
//
//	func gemm128x12x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)
func tileNEON(a *asm, rows, vecs int) {
	a.text(fmt.Sprintf("gemm128x%dx%d", rows, vecs), 48)
	a.arguments("kc", "R0", "a", "R1", "b", "R2", "c", "R3", "ldc", "R4")
	a.f("MOVD $%d, R5", 4*neonRows[0])
	a.f("MOVD $%d, R6", 8*neon.lanes)
	multiply(a, rows, vecs)
	storeTile(a, rows, vecs, 40)
}

// tileOfColumnsNEON writes the same with the panel of a lda wide, and b's rows ldb floats apart:
//
//	func gemmColumns128x12x2(kc int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, alpha, beta float32)
func tileOfColumnsNEON(a *asm, rows, vecs int) {
	a.text(fmt.Sprintf("gemmColumns128x%dx%d", rows, vecs), 64)
	a.arguments("kc", "R0", "a", "R1", "lda", "R5", "b", "R2", "ldb", "R6", "c", "R3", "ldc", "R4")
	a.f("LSL $2, R5")
	a.f("LSL $2, R6")
	multiply(a, rows, vecs)
	storeTile(a, rows, vecs, 56)
}

// multiply sums over R0 steps: R1 and R2 are a and b, whose steps are R5 and R6 bytes apart.
func multiply(a *asm, rows, vecs int) {
	beginTile(a, rows, vecs)
	a.f("PCALIGN $32")
	a.label("loop")
	a.f("VLD1.P (R2)(R6), %s", list(3, vecs))
	a.f("VLD1.P (R1)(R5), %s", list(0, rows/4))
	for i := range rows {
		for j := range vecs {
			a.byElement("fmla", accumulator(vecs, i, j), neon.r(3+j), neon.r(i/4), i%4)
		}
	}
	a.f("SUBS $1, R0")
	a.f("BNE loop")
}

// tileOfRowsNEON writes tileNEON with the rows of a where they stand, lda floats apart:
//
//	func gemmRows128x12x2(kc int, a *float32, lda int, b, c *float32, ldc int, alpha, beta float32)
//
// R5 counts the steps, and row i is at R6 … R17.
func tileOfRowsNEON(a *asm, rows, vecs int) {
	a.text(fmt.Sprintf("gemmRows128x%dx%d", rows, vecs), 56)
	a.arguments("kc", "R0", "a", "R6", "lda", "R1", "b", "R2", "c", "R3", "ldc", "R4")
	for i := 1; i < rows; i++ {
		a.f("ADD R1<<2, R%d, R%d", 5+i, 6+i)
	}
	beginTile(a, rows, vecs)
	a.f("MOVD ZR, R5")
	a.f("PCALIGN $32")
	a.label("loop")
	a.f("VLD1 (R2), %s", list(3, vecs))
	a.f("ADD $%d, R2", 8*neon.lanes)
	for i := range rows {
		x := i % 3
		a.f("FMOVS (R%d)(R5<<2), F%d", 6+i, x)
		for j := range vecs {
			a.byElement("fmla", accumulator(vecs, i, j), neon.r(3+j), neon.r(x), 0)
		}
	}
	a.f("ADD $1, R5")
	a.f("CMP R0, R5")
	a.f("BNE loop")
	storeTile(a, rows, vecs, 48)
}

// beginTile clears the accumulators, turns ldc into bytes and fetches the tile of c.
func beginTile(a *asm, rows, vecs int) {
	a.f("LSL $2, R4")
	a.f("PRFM (R3), PLDL1KEEP")
	if rows > 1 {
		a.f("ADD R4, R3, R19")
	}
	for i := 1; i < rows; i++ {
		a.f("PRFM (R19), PLDL1KEEP")
		if i < rows-1 {
			a.f("ADD R4, R19")
		}
	}
	for i := range rows * vecs {
		a.zero(neon.r(8 + i))
	}
}

// storeTile writes the accumulators; α is the argument at the given place, β the next: c = α·acc, or c = α·acc + β·c.
func storeTile(a *asm, rows, vecs, at int) {
	a.f("FMOVS alpha+%d(FP), F0", at)
	a.f("MOVWU beta+%d(FP), R0", at+4)
	a.f("FMOVS R0, F1")
	a.f("LSLW $1, R0")
	a.f("CBZW R0, set")
	for i := range rows {
		a.f("VLD1 (R3), %s", list(3, vecs))
		for j := range vecs {
			a.byElement("fmul", neon.r(3+j), neon.r(3+j), "V1", 0)
			a.byElement("fmla", neon.r(3+j), accumulator(vecs, i, j), "V0", 0)
		}
		a.f("VST1.P %s, (R3)(R4)", list(3, vecs))
	}
	a.f("RET")
	a.label("set")
	for i := range rows {
		for j := range vecs {
			acc := accumulator(vecs, i, j)
			a.byElement("fmul", acc, acc, "V0", 0)
		}
		a.f("VST1.P %s, (R3)(R4)", list(8+i*vecs, vecs))
	}
	a.f("RET")
}

// peakNEON writes n rounds of 12 independent FMLAs, two rounds at a time, so that the widest cores find enough of them.
//
//	func peak128(n int)
func peakNEON(a *asm) {
	a.text("peak128", 8)
	a.arguments("n", "R0")
	for i := range 25 {
		a.zero(neon.r(i))
	}
	a.f("PCALIGN $32")
	a.label("loop")
	for i := range 24 {
		a.v3("fmla", neon.r(i), "V24", "V24")
	}
	a.f("SUBS $2, R0")
	a.f("BGT loop")
	a.f("RET")
}
