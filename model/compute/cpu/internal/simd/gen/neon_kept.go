package main

import "fmt"

// Kernels over kept weights with 8 lanes, which are two registers: one load takes both, and a kept weight's address, its value and the next
// bit cost half as much per multiply-add. R6 is a row's word, R2 … R4 x, bits and step, R7 the bytes of a panel's row.

// keptNEON writes them, as kept does.
func keptNEON(a *asm) {
	for n := 1; n <= 8; n++ {
		walkNEON(a, n)
		keptDotsNEON(a, n)
	}
	for _, n := range reduceWidths {
		keptReduceNEON(a, n)
	}
	compressNEON(a)
}

// rowsNEON begins a loop over rows of n pairs of registers.
func rowsNEON(a *asm, n int) {
	a.f("LSL $3, R4")
	a.f("MOVD $%d, R7", 32*n)
	a.label("row")
	a.f("MOVD (R3), R6")
	a.f("ADD R4, R3")
}

// nextNEON ends it, with the advance of pointers over rows.
func nextNEON(a *asm, bytes int, pointers ...string) {
	a.label("next")
	for _, p := range pointers {
		a.f("ADD $%d, %s", bytes, p)
	}
	a.f("SUBS $1, R0")
	a.f("BNE row")
	a.f("RET")
}

// place sets a register to the address of the panel's row of the lowest bit of R6: 64 behind the base when there is none.
func place(a *asm, base, at string) {
	a.f("RBIT R6, %s", at)
	a.f("CLZ %s, %s", at, at)
	a.f("MADD R7, %s, %s, %s", base, at, at)
}

// drop clears that bit; the flags say whether there are more.
func drop(a *asm) {
	a.f("SUB $1, R6, R17")
	a.f("ANDS R17, R6")
}

// pair is registers 2·i and 2·i+1 as the operand of a load or store.
func pair(i int) string { return fmt.Sprintf("(F%d, F%d)", 2*i, 2*i+1) }

// walkNEON writes
//
//	func walk128x8(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// as walk does.
func walkNEON(a *asm, n int) {
	sets := max(1, min(4, 8/n))
	a.text(fmt.Sprintf("walk128x%d", n), 48)
	a.arguments("rows", "R0", "y", "R1", "x", "R2", "bits", "R3", "step", "R4", "values", "R5")
	rowsNEON(a, n)
	a.f("CBZ R6, next")
	for i := range n {
		a.f("FLDPQ %d(R1), %s", 32*i, pair(i))
	}
	for i := 2 * n; i < 2*n*sets; i++ {
		a.zero(neon.r(i))
	}
	a.f("PCALIGN $32")
	a.label("entry")
	for s := range sets {
		place(a, "R2", "R8")
		a.f("FMOVS.P 4(R5), F31")
		for i := range n {
			x := 8 + i%7 // pairs from V16 on
			a.f("FLDPQ %d(R8), %s", 32*i, pair(x))
			for h := range 2 {
				a.byElement("fmla", neon.r(2*(s*n+i)+h), neon.r(2*x+h), "V31", 0)
			}
		}
		drop(a)
		if s < sets-1 {
			a.f("BEQ done")
		}
	}
	a.f("BNE entry")
	a.label("done")
	for s := 1; s < sets; s++ {
		for i := range 2 * n {
			a.v3("fadd", neon.r(i), neon.r(i), neon.r(2*s*n+i))
		}
	}
	for i := range n {
		a.f("FSTPQ %s, %d(R1)", pair(i), 32*i)
	}
	nextNEON(a, 32*n, "R1")
}

// popcount counts the bits of a register; it overwrites V0.
func popcount(a *asm, from, to string) {
	a.f("FMOVD %s, F0", from)
	a.f("VCNT V0.B8, V0.B8")
	a.f("VUADDLV V0.B8, V0")
	a.f("FMOVD F0, %s", to)
}

// keptDotsNEON writes
//
//	func keptDots128x8(rows int, dst, y, x *float32, bits *uint64, step, add int)
//
// as keptDots512, with four sums at a time.
func keptDotsNEON(a *asm, n int) {
	a.text(fmt.Sprintf("keptDots128x%d", n), 56)
	a.arguments("rows", "R0", "dst", "R1", "y", "R5", "x", "R2", "bits", "R3", "step", "R4", "add", "R14")
	rowsNEON(a, n)
	a.f("CBZ R6, next")
	popcount(a, "R6", "R16")
	a.f("MOVD R1, R15") // where the row's sums go
	a.f("ADD R16<<2, R1")
	for i := range n {
		a.f("FLDPQ %d(R5), %s", 32*i, pair(8+i))
	}
	a.label("group")
	dotsNEON(a, n)
	for p := range 4 {
		a.v3("fadd", neon.r(p), neon.r(p), neon.r(4+p))
	}
	a.v3("faddp", "V0", "V0", "V1")
	a.v3("faddp", "V2", "V2", "V3")
	a.v3("faddp", "V0", "V0", "V2")
	a.f("CMP $4, R16")
	a.f("BLT part")
	a.f("CBZ R14, set")
	a.f("FMOVQ (R15), F1")
	a.v3("fadd", "V0", "V0", "V1")
	a.label("set")
	a.f("FMOVQ.P F0, 16(R15)")
	a.f("SUBS $4, R16")
	a.f("BGT group")
	a.f("JMP next")
	a.label("part")
	a.move("V0", "V1")
	a.f("CBZ R14, lane")
	a.f("FMOVS (R15), F2")
	a.f("FADDS F2, F1, F1")
	a.label("lane")
	a.f("FMOVS.P F1, 4(R15)")
	a.f("VEXT $4, V0.B16, V0.B16, V0.B16")
	a.f("SUBS $1, R16")
	a.f("BNE part")
	nextNEON(a, 32*n, "R5")
}

// dotsNEON sets V0 … V3 and V4 … V7, two halves of sums, to the products of the next four positions of R6 with the row of y from V16 on.
func dotsNEON(a *asm, n int) {
	for p := range 4 {
		place(a, "R2", fmt.Sprintf("R%d", 8+p))
		drop(a)
	}
	for k := range n {
		for p := range 4 {
			a.f("FLDPQ %d(R%d), %s", 32*k, 8+p, pair(4+p))
			for h := range 2 {
				op := "fmla"
				if k == 0 {
					op = "fmul"
				}
				a.v3(op, neon.r(4*h+p), neon.r(8+2*p+h), neon.r(16+2*k+h))
			}
		}
	}
}

// keptReduceNEON writes
//
//	func keptReduce128x2(m *KeptReduce)
//
// as keptReduce does.
func keptReduceNEON(a *asm, n int) {
	sets := max(1, 4/n)
	a.text(fmt.Sprintf("keptReduce128x%d", n), 8)
	a.f("MOVD m+0(FP), R8")
	for i, r := range []string{"R0", "R1", "R9", "R2", "R10", "R3", "R4", "R5"} {
		a.f("MOVD %d(R8), %s", 8*i, r)
	}
	rowsNEON(a, n)
	a.f("CBZ R6, next")
	for i := range n { // b from V8 on
		a.f("FLDPQ %d(R1), %s", 32*i, pair(i))
		a.f("FLDPQ %d(R10), %s", 32*i, pair(4+i))
	}
	for i := 2 * n; i < 2*n*sets; i++ {
		a.zero(neon.r(i))
	}
	a.f("PCALIGN $32")
	a.label("entry")
	for s := range sets {
		place(a, "R2", "R8")
		place(a, "R9", "R11")
		a.f("FMOVS.P 4(R5), F31")
		for i := range n {
			x, d := 8+i%2, 12+i%2 // pairs from V16 and V24 on
			a.f("FLDPQ %d(R8), %s", 32*i, pair(x))
			a.f("FLDPQ %d(R11), %s", 32*i, pair(d))
			for h := range 2 {
				a.byElement("fmla", neon.r(2*(s*n+i)+h), neon.r(2*x+h), "V31", 0)
				a.byElement("fmla", neon.r(2*d+h), neon.r(8+2*i+h), "V31", 0)
			}
			a.f("FSTPQ %s, %d(R11)", pair(d), 32*i)
		}
		drop(a)
		if s < sets-1 {
			a.f("BEQ done")
		}
	}
	a.f("BNE entry")
	a.label("done")
	for s := 1; s < sets; s++ {
		for i := range 2 * n {
			a.v3("fadd", neon.r(i), neon.r(i), neon.r(2*s*n+i))
		}
	}
	for i := range n {
		a.f("FSTPQ %s, %d(R1)", pair(i), 32*i)
	}
	nextNEON(a, 32*n, "R1", "R10")
}

// compressNEON writes
//
//	func compress128(dst, src *float32, bits uint64)
//
// as compress256.
func compressNEON(a *asm) {
	a.text("compress128", 24)
	a.arguments("dst", "R5", "src", "R3", "bits", "R6")
	a.f("CBZ R6, end")
	a.label("entry")
	a.f("RBIT R6, R7")
	a.f("CLZ R7, R7")
	a.f("MOVWU (R3)(R7<<2), R8")
	a.f("MOVW.P R8, 4(R5)")
	drop(a)
	a.f("BNE entry")
	a.label("end")
	a.f("RET")
}
