package main

import "fmt"

// Offsets of the fields of simd.KeptMerge.
const (
	mergeRows = 8 * iota
	mergeDst
	mergeBits
	mergeStep
	mergeValues
	mergeAt
	mergeWide
	mergeCoef
	mergeA
	mergeR
	mergePanel
)

// keptMerge writes (AVX-512 only: VCOMPRESSPS packs what is kept)
//
//	func keptMerge512F32(m *KeptMerge)
//
// for packed values of a format, keptMerge512Wide for values that stand in dense rows, keptMerge512…Half for 2:4 and a bfloat16
// dst, and keptMerge512…Pairs for one that is a product's: dense, in pairs of rows.
func keptMerge(a *asm) {
	a.weaving()
	for _, f := range formats {
		for _, to := range []string{"", "Half", "Pairs"} {
			merging{a, f.name, f.size, to}.write()
		}
	}
	merging{a, "Wide", 0, ""}.write()
}

func keptMergeDeclarations(stub func(string, ...any)) {
	for _, f := range formats {
		stub("keptMerge512%s(m *KeptMerge)", f.name)
		stub("keptMerge512%sHalf(m *KeptMerge)", f.name)
		stub("keptMerge512%sPairs(m *KeptMerge)", f.name)
	}
	stub("keptMerge512Wide(m *KeptMerge)")
}

// merging is one of these functions; size is the bytes of a packed value, 0 where they stand in dense rows.
type merging struct {
	*asm
	format string
	size   int
	to     string
}

// write writes it: two rows at a time, so that a row of A is loaded once for both, and at last one.
func (a merging) write() {
	name, values := "keptMerge512"+a.format+a.to, mergeAt
	if a.size == 0 {
		values = mergeWide
	}
	a.text(name, 8)
	a.f("MOVQ m+0(FP), R15")
	for _, field := range []struct {
		off int
		reg string
	}{{mergeRows, "CX"}, {mergeDst, "DI"}, {mergeBits, "SI"}, {mergeStep, "R10"}, {mergeCoef, "R8"}, {mergeR, "R13"}, {values, "R14"}} {
		a.f("MOVQ %d(R15), %s", field.off, field.reg)
	}
	a.f("SHLQ $3, R10")
	a.f("SHLQ $2, R13")
	a.f("VPXORD Z16, Z16, Z16")
	a.f("TESTQ R13, R13")
	a.f("JNZ begin")
	a.f("VPTERNLOGD $0xff, Z16, Z16, Z16")
	a.f("VPSLLD $31, Z16, Z16") // −0 + w is w, also for w = −0
	a.label("begin")
	if a.to == "Pairs" {
		a.f("VMOVDQU64 weave<>(SB), Z17")
		a.f("VPXORD Z18, Z18, Z18")
	}
	a.f("DECQ CX")
	a.f("JLE last")
	a.label("pair")
	a.rows(2)
	a.f("SUBQ $2, CX")
	a.f("JG pair")
	a.label("last")
	a.f("JLT end")
	a.rows(1)
	a.label("end")
	a.ret()
}

// rows does the next n rows. CX is the number of rows less one, R8 the first one's coefficients, R13 their bytes.
func (a merging) rows(n int) {
	for i := range 4 * n {
		a.f("VMOVAPS Z16, Z%d", i)
	}
	a.f("MOVQ %d(R15), R11", mergeR)
	a.f("TESTQ R11, R11")
	a.f("JZ keep%d", n)
	a.f("MOVQ %d(R15), R12", mergeA)
	a.f("MOVQ R8, DX")
	a.f("PCALIGN $32")
	a.label(fmt.Sprintf("rank%d", n))
	for i, at := range []string{"(DX)", "(DX)(R13*1)"}[:n] {
		a.f("VBROADCASTSS %s, Z%d", at, 8+i)
	}
	for q := range 4 {
		a.f("VMOVUPS %d(R12), Z%d", 64*q, 10+q)
		for i := range n {
			a.f("VFMADD231PS Z%d, Z%d, Z%d", 10+q, 8+i, 4*i+q)
		}
	}
	a.f("ADDQ $4, DX")
	a.f("ADDQ $256, R12")
	a.f("DECQ R11")
	a.f("JNZ rank%d", n)
	a.label(fmt.Sprintf("keep%d", n))
	for i := range n {
		a.values()
		switch a.to {
		case "Pairs":
			a.expand(4 * i)
		case "Half":
			a.packEights(4*i, fmt.Sprintf("%dof%d", i, n))
		default:
			a.pack(4 * i)
		}
	}
	if a.to == "Pairs" {
		a.weave(n)
	}
	a.f("LEAQ (R8)(R13*%d), R8", n)
}

// values sets R9 to the row's bits and DX to its next values, which it moves on.
func (a merging) values() {
	a.f("MOVQ (SI), R9")
	a.f("ADDQ R10, SI")
	if a.size > 0 {
		a.f("MOVL (R14), DX")
		a.f("POPCNTQ R9, AX")
		a.f("ADDL DX, AX")
		a.f("MOVL AX, (R14)")
		a.f("ADDQ $4, R14")
		a.f("IMUL3Q $%d, DX, DX", a.size)
		a.f("ADDQ %d(R15), DX", mergeValues)
		a.f("PREFETCHT0 128(DX)")
	}
}

// quarter sets K1 to bits of 16 columns, K2 to as many, from the lowest, and BX to their number.
func (a merging) quarter(q int) {
	a.f("KMOVW R9, K1")
	a.f("MOVWLZX R9, AX")
	if q < 3 {
		a.f("SHRQ $16, R9")
	}
	a.f("POPCNTL AX, BX")
	a.f("MOVL $-1, AX")
	a.f("BZHIL BX, AX, AX")
	a.f("KMOVW AX, K2")
}

// expand adds its values to the row in registers r … r+3, where its bits are, and puts 0 elsewhere.
func (a merging) expand(r int) {
	for q := range 4 {
		a.quarter(q)
		load(a.asm, avx512, a.format, "(DX)", "K2", "Z15")
		a.f("VPEXPANDD.Z Z15, K1, Z15")
		a.f("VADDPS.Z Z15, Z%d, K1, Z%d", r+q, r+q)
		a.f("LEAQ (DX)(BX*%d), DX", a.size)
	}
}

// weave stores the rows in registers 0 … 3 and 4 … 7, or one and zeros, as a row of pairs of each of two panels; the second one first, since it
// may be none, and then stands where the first one does.
func (a merging) weave(rows int) {
	a.f("MOVQ %d(R15), AX", mergePanel)
	for _, q := range []int{2, 3, 0, 1} {
		second := 4 + q
		if rows == 1 {
			second = 18
		}
		a.convert2(second, q, 14)
		a.f("VPERMW Z14, Z17, Z14")
		at := fmt.Sprintf("%d(DI)", 1024*(q%2))
		if q > 1 {
			at += "(AX*1)"
		}
		a.f("VMOVDQU64 Z14, %s", at)
	}
	a.f("ADDQ $64, DI")
}

// pack adds its values to the row in registers r … r+3 and stores what its bits keep.
func (a merging) pack(r int) {
	for q := range 4 {
		a.quarter(q)
		if a.size == 0 {
			a.f("VADDPS %d(R14), Z%d, Z%d", 64*q, r+q, r+q)
		}
		a.f("VCOMPRESSPS.Z Z%d, K1, Z14", r+q)
		if a.size > 0 {
			load(a.asm, avx512, a.format, "(DX)", "K2", "Z15")
			a.f("VADDPS Z15, Z14, Z14")
			a.f("LEAQ (DX)(BX*%d), DX", a.size)
		}
		if a.to == "Half" {
			a.convert(14, 14)
			a.f("VMOVDQU16 Y14, K2, (DI)")
			a.f("LEAQ (DI)(BX*2), DI")
		} else {
			a.f("VMOVUPS Z14, K2, (DI)")
			a.f("LEAQ (DI)(BX*4), DI")
		}
	}
	if a.size == 0 {
		a.f("ADDQ $256, R14")
	}
}

// packEights is pack to bfloat16 of a row of 2:4, whose quarters keep eight each: two of them fill a register. The last word of a row may have
// fewer columns.
func (a merging) packEights(r int, label string) {
	a.f("POPCNTQ R9, AX")
	a.f("CMPQ AX, $32")
	a.f("JNE few%s", label)
	a.f("KMOVQ R9, K1")
	for q := 1; q < 4; q++ {
		a.f("KSHIFTRQ $%d, K1, K%d", 16*q, 2+q)
	}
	for q, k := range []int{1, 3, 4, 5} {
		a.f("VCOMPRESSPS.Z Z%d, K%d, Z%d", r+q, k, r+q)
	}
	for q := 0; q < 4; q += 2 {
		a.f("VINSERTF64X4 $1, Y%d, Z%d, Z%d", r+q+1, r+q, r+q)
		load(a.asm, avx512, a.format, fmt.Sprintf("%d(DX)", 8*q*a.size), "", "Z15")
		a.f("VADDPS Z15, Z%d, Z14", r+q)
		a.convert(14, 14)
		a.f("VMOVDQU Y14, %d(DI)", 16*q)
	}
	a.f("ADDQ $64, DI")
	a.f("JMP packed%s", label)
	a.label("few" + label)
	a.pack(r)
	a.label("packed" + label)
}
