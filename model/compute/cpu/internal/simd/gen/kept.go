package main

import (
	"fmt"
	"math/bits"
)

// Kernels over the kept weights of blocks of 64 columns: one mask word is one row's part, and its bits are the indices. x
// and y are panels, whose rows have a few registers of tokens.

// kept writes them.
func kept(a *asm, v isa) {
	for _, n := range reduceWidths {
		keptReduce(a, v, n)
	}
	if v.lanes == 8 {
		for n := 1; n <= 8; n++ {
			walk256(a, n)
			keptDots256(a, n)
		}
		compress256(a)
		keptMask(a)
		return
	}
	for n := 1; n <= 8; n++ {
		walk512(a, n)
	}
	for _, n := range keptWidths {
		keptDots512(a, n, false)
	}
	keptMerge(a)
	keptHalf(a)
}

// keptWidths are the widths of the panels, in registers, for keptDots512.
var keptWidths = []int{1, 2, 4, 8}

// width sets reg to the place of the panel row that it names, whose rows have n bytes.
func width(a *asm, reg string, n int) {
	if n&(n-1) == 0 {
		a.f("SHLQ $%d, %s", bits.TrailingZeros(uint(n)), reg)
		return
	}
	a.f("IMUL3Q $%d, %s, %s", n, reg, reg)
}

// words begins a loop over rows: R9 is the next row's word. BX is bits, R8 the step, CX the number of rows.
func words(a *asm, bits, step string) {
	a.f("MOVQ rows+0(FP), CX")
	a.f("MOVQ %s(FP), BX", bits)
	a.f("MOVQ %s(FP), R8", step)
	a.f("SHLQ $3, R8")
	a.label("row")
	a.f("MOVQ (BX), R9")
	a.f("ADDQ R8, BX")
}

// next ends it, with the given advance of DI or SI.
func next(a *asm, bytes int, reg string) {
	a.label("next")
	a.f("ADDQ $%d, %s", bytes, reg)
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// walk256 writes
//
//	func walk256x8(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// y[i,:] += Σ_j kept in bits[i·step] of value·x[j,:], i < rows, rows of n registers; the values are packed, i by i. The sum runs in
// rising j, over `sets` partial sums in turn where n is small.
func walk256(a *asm, n int) {
	v, sets := avx2, max(1, min(4, 8/n))
	value := v.r(v.regs - 1)
	a.text(fmt.Sprintf("walk256x%d", n), 48)
	a.f("MOVQ y+8(FP), DI")
	a.f("MOVQ x+16(FP), SI")
	a.f("MOVQ values+40(FP), DX")
	words(a, "bits+24", "step+32")
	a.f("TESTQ R9, R9")
	a.f("JZ next")
	for i := range n {
		a.f("VMOVUPS %d(DI), %s", v.bytes()*i, v.r(i))
	}
	for i := n; i < n*sets; i++ {
		a.f("VXORPS %s, %s, %s", v.r(i), v.r(i), v.r(i))
	}
	a.f("PCALIGN $32")
	a.label("entry")
	for s := range sets {
		a.f("TZCNTQ R9, AX")
		width(a, "AX", n*v.bytes())
		a.f("ADDQ SI, AX") // an indexed operand would split the multiply-adds in two
		a.f("VBROADCASTSS (DX), %s", value)
		for i := range n {
			a.f("VFMADD231PS %d(AX), %s, %s", v.bytes()*i, value, v.r(s*n+i))
		}
		a.f("ADDQ $4, DX")
		a.f("BLSRQ R9, R9")
		if s < sets-1 {
			a.f("JZ done")
		}
	}
	a.f("JNZ entry")
	a.label("done")
	for s := 1; s < sets; s++ {
		for i := range n {
			a.f("VADDPS %s, %s, %s", v.r(s*n+i), v.r(i), v.r(i))
		}
	}
	for i := range n {
		a.f("VMOVUPS %s, %d(DI)", v.r(i), v.bytes()*i)
	}
	next(a, n*v.bytes(), "DI")
}

// walk512 writes
//
//	func walk512x8(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// what walk256 does, but what a row has beyond the last four that both have goes to its first sum. Two rows go side by side: each fills the time
// in which the other's sums wait.
func walk512(a *asm, n int) {
	a.text(fmt.Sprintf("walk512x%d", n), 48)
	a.read("MOVQ", "rows", "CX", "y", "DI", "x", "SI", "bits", "BX", "step", "R8", "values", "DX")
	a.f("SHLQ $3, R8")
	a.f("DECQ CX")
	a.f("JLE last")
	a.label("rows2")
	walkRows(a, n, 2)
	a.f("SUBQ $2, CX")
	a.f("JG rows2")
	a.label("last")
	a.f("JLT end")
	walkRows(a, n, 1)
	a.label("end")
	a.ret()
}

// walkRows does the next one row or two. Values come four at a time, as in pairRowsWalk.
func walkRows(a *asm, n, rows int) {
	const quads, value = 28, 30
	sets := max(1, 4/n)
	sum := func(r, s, i int) int { return (r*sets+s)*n + i }
	masks, values := []string{"R9", "R10"}, []string{"DX", "R13"}
	label := func(name string) string { return fmt.Sprintf("%s%d", name, rows) }
	a.f("MOVQ (BX), R9")
	a.f("POPCNTQ R9, R11")
	a.f("LEAQ (DX)(R11*4), R15") // the values of the rows behind
	if rows == 2 {
		a.f("MOVQ R15, R13")
		a.f("MOVQ (BX)(R8*1), R10")
		a.f("POPCNTQ R10, R12")
		a.f("LEAQ (R13)(R12*4), R15")
		a.f("CMPQ R12, R11")
		a.f("CMOVQLT R12, R11") // as many have both
		a.f("MOVQ R9, AX")
		a.f("ORQ R10, AX")
	} else {
		a.f("TESTQ R9, R9")
	}
	a.f("JZ %s", label("none"))
	for r := range rows {
		for i := range n {
			a.f("VMOVUPS %d(DI), Z%d", 64*(r*n+i), sum(r, 0, i))
			for s := 1; s < sets; s++ {
				a.f("VPXORD Z%d, Z%d, Z%d", sum(r, s, i), sum(r, s, i), sum(r, s, i))
			}
		}
	}
	add := func(r, u int) { // adds the next value of row r, which register value + r holds, to partial sum u
		a.f("TZCNTQ %s, AX", masks[r])
		width(a, "AX", 64*n)
		a.f("ADDQ SI, AX") // an indexed operand would split the multiply-adds in two
		for i := range n {
			a.f("VFMADD231PS %d(AX), Z%d, Z%d", 64*i, value+r, sum(r, u%sets, i))
		}
		a.f("BLSRQ %s, %s", masks[r], masks[r])
	}
	a.f("SHRQ $2, R11")
	a.f("JZ %s", label("rest"))
	a.f("PCALIGN $32")
	a.label(label("four"))
	for r := range rows {
		a.f("VBROADCASTF32X4 (%s), Z%d", values[r], quads+r)
		a.f("ADDQ $16, %s", values[r])
	}
	for u := range 4 {
		for r := range rows {
			a.f("VPERMILPS $%d, Z%d, Z%d", 0x55*u, quads+r, value+r)
			add(r, u)
		}
	}
	a.f("DECQ R11")
	a.f("JNZ %s", label("four"))
	a.label(label("rest"))
	for r := range rows {
		done := label(fmt.Sprintf("done%dof", r))
		a.f("TESTQ %s, %s", masks[r], masks[r])
		a.f("JZ %s", done)
		a.label(label(fmt.Sprintf("one%dof", r)))
		a.f("VBROADCASTSS (%s), Z%d", values[r], value+r)
		a.f("ADDQ $4, %s", values[r])
		add(r, 0)
		a.f("JNZ %s", label(fmt.Sprintf("one%dof", r)))
		a.label(done)
	}
	for r := range rows {
		for i := range n {
			for s := 1; s < sets; s++ {
				a.f("VADDPS Z%d, Z%d, Z%d", sum(r, s, i), sum(r, 0, i), sum(r, 0, i))
			}
			a.f("VMOVUPS Z%d, %d(DI)", sum(r, 0, i), 64*(r*n+i))
		}
	}
	a.label(label("none"))
	a.f("LEAQ (BX)(R8*%d), BX", rows)
	a.f("ADDQ $%d, DI", 64*n*rows)
	a.f("MOVQ R15, DX")
}

// keptDots512 writes
//
//	func keptDots512x8(rows int, dst, y, x *float32, bits *uint64, step, add int)
//
// dst_ij = y[i,:]·x[j,:] (+ dst_ij with add) for the j kept in bits[i·step]; rows of 16·n floats. dst is packed. Sixteen sums are folded into
// one register at a time. Row 64 of x is read, and not used. half: of pairs of bfloat16, 32·n in a row, keptDots512…Half.
func keptDots512(a *asm, n int, half bool) {
	name := fmt.Sprintf("keptDots512x%d", n)
	if half {
		name += "Half"
	}
	a.text(name, 56)
	dotsRow(a)
	for i := range n {
		a.f("VMOVUPS %d(DI), Z%d", 64*i, 16+i)
	}
	a.label("group")
	for q := 1; q < 4; q++ {
		a.f("VPXORD Z%d, Z%d, Z%d", 8+q, 8+q, 8+q)
	}
	for q := range 2 {
		a.f("CMPQ R10, $%d", 8*q+4)
		a.f("JGT oct%d", q)
		dots(a, avx512, n, 4, half)
		quad(a, 0, 8+2*q)
		a.f("JMP fold")
		a.label(fmt.Sprintf("oct%d", q))
		dots(a, avx512, n, 8, half)
		quad(a, 0, 8+2*q)
		quad(a, 4, 9+2*q)
		if q == 0 {
			a.f("CMPQ R10, $8")
			a.f("JLE fold")
		}
	}
	a.label("fold")
	for h := range 2 {
		x, y := 8+2*h, 9+2*h
		a.f("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", y, x, 2*h)
		a.f("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", y, x, 2*h+1)
		a.f("VADDPS Z%d, Z%d, Z%d", 2*h+1, 2*h, 4+h)
	}
	a.f("VSHUFF32X4 $0x88, Z5, Z4, Z0")
	a.f("VSHUFF32X4 $0xdd, Z5, Z4, Z1")
	a.f("VADDPS Z1, Z0, Z0")
	a.f("MOVL $16, AX")
	a.f("CMPQ R10, AX")
	a.f("CMOVQLT R10, AX")
	a.f("MOVL $-1, R11")
	a.f("BZHIL AX, R11, R11")
	a.f("KMOVW R11, K1")
	a.f("CMPQ add+48(FP), $0")
	a.f("JE set")
	a.f("VADDPS (R12), Z0, K1, Z0")
	a.label("set")
	a.f("VMOVUPS Z0, K1, (R12)")
	a.f("ADDQ $64, R12")
	a.f("SUBQ $16, R10")
	a.f("JGT group")
	next(a, 64*n, "DI")
}

// dotsRow begins the loop over rows of keptDots: R12 is where the row's sums go, R9 its bits, R10 their number.
func dotsRow(a *asm) {
	a.f("MOVQ dst+8(FP), DX")
	a.f("MOVQ y+16(FP), DI")
	a.f("MOVQ x+24(FP), SI")
	words(a, "bits+32", "step+40")
	a.f("MOVQ DX, R12")
	a.f("POPCNTQ R9, R10")
	a.f("JZ next")
	a.f("LEAQ (DX)(R10*4), DX")
}

// keptMask is four lanes of ones and four of zeros, by which keptDots256 stores fewer than four sums.
func keptMask(a *asm) {
	a.WriteString("\n")
	for i := range 4 {
		fmt.Fprintf(a, "DATA keptMask<>+%d(SB)/8, $%s\n", 8*i, []string{"0xffffffffffffffff", "0"}[i/2])
	}
	a.WriteString("GLOBL keptMask<>(SB), RODATA|NOPTR, $32\n")
}

// keptDots256 is keptDots512 with four sums at a time.
func keptDots256(a *asm, n int) {
	a.text(fmt.Sprintf("keptDots256x%d", n), 56)
	dotsRow(a)
	for i := range n {
		a.f("VMOVUPS %d(DI), Y%d", 32*i, 8+i)
	}
	a.label("group")
	dots(a, avx2, n, 4, false)
	for h := range 2 { // pairs, then pairs of pairs, then halves
		a.f("VUNPCKHPS Y%d, Y%d, Y4", 2*h+1, 2*h)
		a.f("VUNPCKLPS Y%d, Y%d, Y%d", 2*h+1, 2*h, 2*h)
		a.f("VADDPS Y4, Y%d, Y%d", 2*h, 2*h)
	}
	a.f("VUNPCKHPD Y2, Y0, Y4")
	a.f("VUNPCKLPD Y2, Y0, Y0")
	a.f("VADDPS Y4, Y0, Y0")
	a.f("VEXTRACTF128 $1, Y0, X4")
	a.f("VADDPS X4, X0, X0")
	a.f("MOVL $4, AX")
	a.f("CMPQ R10, AX")
	a.f("CMOVQLT R10, AX")
	a.f("LEAQ keptMask<>+16(SB), R11")
	a.f("SHLQ $2, AX")
	a.f("SUBQ AX, R11")
	a.f("VMOVUPS (R11), X5")
	a.f("CMPQ add+48(FP), $0")
	a.f("JE set")
	a.f("VMASKMOVPS (R12), X5, X4")
	a.f("VADDPS X4, X0, X0")
	a.label("set")
	a.f("VMASKMOVPS X0, X5, (R12)")
	a.f("ADDQ $16, R12")
	a.f("SUBQ $4, R10")
	a.f("JGT group")
	next(a, 32*n, "DI")
}

// dots sets registers 0…m−1 to the products, lane by lane, of the next m kept positions of R9 with the row of y, which stands in the upper
// half of the registers. A sum of pairs waits six cycles for itself, one of floats four: of pairs each position has two sums, where the row is long
// enough, the second in registers from 24 on.
func dots(a *asm, v isa, n, m int, half bool) {
	at := []string{"R14", "R11", "R13", "R15"}
	sets := 1
	if half && n >= 4 {
		sets = 2
	}
	for p := 0; p < m; p += 4 {
		for i := range 4 {
			a.f("TZCNTQ R9, AX")
			width(a, "AX", n*v.bytes())
			a.f("BLSRQ R9, R9")
			a.f("LEAQ (SI)(AX*1), %s", at[i])
		}
		for k := range n {
			for i := range 4 {
				addDot(a, v, v.bytes()*k, at[i], v.regs/2+k, p+i+k%sets*24, half, k < sets)
			}
		}
		for i := p; sets == 2 && i < p+4; i++ {
			a.f("VADDPS Z%d, Z%d, Z%d", 24+i, i, i)
		}
	}
}

// addDot adds the products of register y and disp(base) to register d, or sets it to them.
func addDot(a *asm, v isa, disp int, base string, y, d int, half, set bool) {
	switch {
	case half:
		if set {
			a.f("VPXORD Z%d, Z%d, Z%d", d, d, d)
		}
		a.pairDot(disp, base, y, d)
	case set:
		a.f("VMULPS %d(%s), %s, %s", disp, base, v.r(y), v.r(d))
	default:
		a.f("VFMADD231PS %d(%s), %s, %s", disp, base, v.r(y), v.r(d))
	}
}

// quad folds four registers from r on into dst: its lanes 4·l+i hold a quarter of register i's sum. It overwrites Z12…Z15.
func quad(a *asm, r, dst int) {
	for h := range 2 {
		x, y := r+2*h, r+2*h+1
		a.f("VUNPCKLPS Z%d, Z%d, Z12", y, x)
		a.f("VUNPCKHPS Z%d, Z%d, Z13", y, x)
		a.f("VADDPS Z13, Z12, Z%d", 14+h)
	}
	a.f("VUNPCKLPD Z15, Z14, Z12")
	a.f("VUNPCKHPD Z15, Z14, Z13")
	a.f("VADDPS Z13, Z12, Z%d", dst)
}

// reduceWidths are the widths of keptReduce's rows, in registers.
var reduceWidths = []int{1, 2, 4}

// keptReduce writes
//
//	func keptReduce512x2(m *KeptReduce)
//
// db[i,:] += Σ_j g_ij·a[j,:] and da[j,:] += g_ij·b[i,:] for the j kept in bits[i·step], rows of n registers. Sums for db run over `sets` partial
// sums in turn where n is small.
func keptReduce(a *asm, v isa, n int) {
	sets := max(1, 4/n)
	value, line, other := v.r(0), func(i int) string { return v.r(1 + i%2) }, func(i int) string { return v.r(3 + i) }
	sum := func(s, i int) string { return v.r(3 + n + s*n + i) }
	a.text(fmt.Sprintf("keptReduce%sx%d", v.name, n), 8)
	a.f("MOVQ m+0(FP), AX")
	for i, r := range []string{"CX", "R12", "DI", "SI", "R13", "BX", "R8", "DX"} {
		a.f("MOVQ %d(AX), %s", 8*i, r)
	}
	a.f("SHLQ $3, R8")
	a.label("row")
	a.f("MOVQ (BX), R9")
	a.f("ADDQ R8, BX")
	a.f("TESTQ R9, R9")
	a.f("JZ next")
	for i := range n {
		a.f("VMOVUPS %d(R12), %s", v.bytes()*i, sum(0, i))
		a.f("VMOVUPS %d(R13), %s", v.bytes()*i, other(i))
	}
	for s := 1; s < sets; s++ {
		for i := range n {
			a.f("VXORPS %s, %s, %s", sum(s, i), sum(s, i), sum(s, i))
		}
	}
	a.f("PCALIGN $32")
	a.label("entry")
	for s := range sets {
		a.f("TZCNTQ R9, AX")
		width(a, "AX", n*v.bytes())
		a.f("LEAQ (SI)(AX*1), R10")
		a.f("ADDQ DI, AX")
		a.f("VBROADCASTSS (DX), %s", value)
		for i := range n {
			a.f("VFMADD231PS %d(R10), %s, %s", v.bytes()*i, value, sum(s, i))
			a.f("VMOVUPS %d(AX), %s", v.bytes()*i, line(i))
			a.f("VFMADD231PS %s, %s, %s", value, other(i), line(i))
			a.f("VMOVUPS %s, %d(AX)", line(i), v.bytes()*i)
		}
		a.f("ADDQ $4, DX")
		a.f("BLSRQ R9, R9")
		if s < sets-1 {
			a.f("JZ done")
		}
	}
	a.f("JNZ entry")
	a.label("done")
	for i := range n {
		for s := 1; s < sets; s++ {
			a.f("VADDPS %s, %s, %s", sum(s, i), sum(0, i), sum(0, i))
		}
		a.f("VMOVUPS %s, %d(R12)", sum(0, i), v.bytes()*i)
	}
	a.label("next")
	a.f("ADDQ $%d, R12", n*v.bytes())
	a.f("ADDQ $%d, R13", n*v.bytes())
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// compress256 writes
//
//	func compress256(dst, src *float32, bits uint64)
//
// dst = the elements of src [64] that bits keeps, one after the other.
func compress256(a *asm) {
	a.text("compress256", 24)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ src+8(FP), SI")
	a.f("MOVQ bits+16(FP), R9")
	a.f("TESTQ R9, R9")
	a.f("JZ end")
	a.label("entry")
	a.f("TZCNTQ R9, AX")
	a.f("MOVL (SI)(AX*4), R10")
	a.f("MOVL R10, (DI)")
	a.f("ADDQ $4, DI")
	a.f("BLSRQ R9, R9")
	a.f("JNZ entry")
	a.label("end")
	a.ret()
}

// keptDeclarations are the Go stubs.
func keptDeclarations() string {
	a := new(asm)
	a.WriteString("// Code generated by go generate (gen). DO NOT EDIT.\n\npackage simd\n\nimport \"unsafe\"\n")
	stub := func(format string, args ...any) { fmt.Fprintf(a, "\n//go:noescape\nfunc "+format+"\n", args...) }
	for _, v := range []isa{avx512, avx2} {
		for n := 1; n <= 8; n++ {
			stub("walk%sx%d(rows int, y, x *float32, bits *uint64, step int, values *float32)", v.name, n)
		}
		widths := keptWidths
		if v.lanes == 8 {
			widths = []int{1, 2, 3, 4, 5, 6, 7, 8}
		}
		for _, n := range widths {
			stub("keptDots%sx%d(rows int, dst, y, x *float32, bits *uint64, step, add int)", v.name, n)
		}
		if v.lanes == 16 {
			keptMergeDeclarations(stub)
			keptHalfDeclarations(stub)
		}
		for _, n := range reduceWidths {
			stub("keptReduce%sx%d(m *KeptReduce)", v.name, n)
		}
	}
	stub("compress256(dst, src *float32, bits uint64)")
	return a.String()
}
