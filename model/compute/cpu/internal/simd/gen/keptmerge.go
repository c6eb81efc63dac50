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
)

// keptMerge writes (AVX-512 only: VCOMPRESSPS packs what is kept)
//
//	func keptMerge512F32(m *KeptMerge)
//
// for packed values of a format, keptMerge512Wide for values that stand in dense rows, and keptMerge512…Half for a bfloat16 dst.
func keptMerge(a *asm) {
	for _, f := range formats {
		merging{a, f.name, f.size, false}.write()
		merging{a, f.name, f.size, true}.write()
	}
	merging{a, "Wide", 0, false}.write()
}

func keptMergeDeclarations(stub func(string, ...any)) {
	for _, f := range formats {
		stub("keptMerge512%s(m *KeptMerge)", f.name)
		stub("keptMerge512%sHalf(m *KeptMerge)", f.name)
	}
	stub("keptMerge512Wide(m *KeptMerge)")
}

// merging is one of these functions; size is the bytes of a packed value, 0 where they stand in dense rows.
type merging struct {
	*asm
	format string
	size   int
	half   bool
}

// write writes it: two rows at a time, so that a row of A is loaded once for both, and at last one.
func (a merging) write() {
	name, values := "keptMerge512"+a.format, mergeAt
	if a.half {
		name += "Half"
	}
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
		a.pack(4 * i)
	}
	a.f("LEAQ (R8)(R13*%d), R8", n)
}

// pack adds its values to the row in registers r … r+3 and stores what its bits keep.
func (a merging) pack(r int) {
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
	for q := range 4 {
		a.f("KMOVW R9, K1")
		a.f("MOVWLZX R9, AX")
		if q < 3 {
			a.f("SHRQ $16, R9")
		}
		a.f("POPCNTL AX, BX")
		a.f("MOVL $-1, AX")
		a.f("BZHIL BX, AX, AX")
		a.f("KMOVW AX, K2") // as many values as bits
		if a.size == 0 {
			a.f("VADDPS %d(R14), Z%d, Z%d", 64*q, r+q, r+q)
		}
		a.f("VCOMPRESSPS.Z Z%d, K1, Z14", r+q)
		if a.size > 0 {
			load(a.asm, avx512, a.format, "(DX)", "K2", "Z15")
			a.f("VADDPS Z15, Z14, Z14")
			a.f("LEAQ (DX)(BX*%d), DX", a.size)
		}
		if a.half {
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
