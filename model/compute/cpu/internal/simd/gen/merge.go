package main

import "fmt"

// merge writes (AVX-512 only: VPEXPANDD puts packed values in their places)
//
//	func merge512F32(n int, dst *float32, bits *uint64, values unsafe.Pointer, coef, a *float32, lda, r int)
//
// dst_j = kept_j ? w_j + Σ_k coef_k·a[k·lda + j] : +0 for j < n; bits nil: all kept. With r = 0 it only expands.
func merge(a *asm, v isa) {
	if v.lanes != 16 {
		expand(a)
		return
	}
	for _, f := range formats {
		mergeAs(a, f.name, f.size, false)
		mergeAs(a, f.name, f.size, true)
	}
	maskRow(a)
	maskHalfRow(a)
}

// valid sets R13 to the bits of the next word's columns that exist, and K1…K4 to its quarters.
func valid(a *asm) {
	a.f("MOVQ $-1, R13")
	a.f("CMPQ CX, $64")
	a.f("JGE whole")
	a.f("SHLQ CX, R13")
	a.f("NOTQ R13")
	a.label("whole")
	a.f("KMOVQ R13, K1")
	for q := 1; q < 4; q++ {
		a.f("KSHIFTRQ $%d, K1, K%d", 16*q, q+1)
	}
}

// mergeAs is the merge of values of a format; half: to a bfloat16 dst, merge512…Half.
func mergeAs(a *asm, format string, size int, half bool) {
	name, width := "merge512"+format, 64
	if half {
		name, width = name+"Half", 32
	}
	a.text(name, 64)
	a.f("MOVQ n+0(FP), CX")
	a.f("MOVQ dst+8(FP), DI")
	a.f("MOVQ bits+16(FP), SI")
	a.f("MOVQ values+24(FP), DX")
	a.f("MOVQ a+40(FP), R9")
	a.f("MOVQ lda+48(FP), R10")
	a.f("SHLQ $2, R10")
	a.f("VXORPS Z16, Z16, Z16")
	a.f("MOVQ r+56(FP), R11")
	a.f("TESTQ R11, R11")
	a.f("JNZ begin")
	a.f("VPBROADCASTD consts<>+64(SB), Z16") // −0 + w is w, also for w = −0
	a.label("begin")
	a.f("CMPQ CX, $128")
	a.f("JLT word")
	a.label("pair")
	mergeWords(a, format, size, width, half, 2)
	a.f("CMPQ CX, $128")
	a.f("JGE pair")
	a.f("TESTQ CX, CX")
	a.f("JZ end")
	a.label("word")
	valid(a)
	mergeWords(a, format, size, width, half, 1)
	a.f("JG word")
	a.label("end")
	a.ret()
}

// mergeWords does the next words: two, all of whose columns exist (the chains of multiply-adds over the ranks are then many enough to hide
// their latency), or one, of whose columns R13 and K1…K4 say which exist.
func mergeWords(a *asm, format string, size, width int, half bool, words int) {
	part, mask := "One", func(q int) string { return fmt.Sprintf(" K%d,", q+1) }
	if words == 2 {
		part, mask = "Two", func(int) string { return "" }
	}
	for q := range 4 * words {
		a.f("VMOVAPS Z16, Z%d", q)
	}
	a.f("MOVQ r+56(FP), R11")
	a.f("TESTQ R11, R11")
	a.f("JZ add%s", part)
	a.f("MOVQ coef+32(FP), R8")
	a.f("MOVQ R9, R12")
	a.label("rank" + part)
	a.f("VBROADCASTSS (R8), Z8")
	for q := range 4 * words {
		a.f("VFMADD231PS %d(R12), Z8,%s Z%d", 64*q, mask(q), q)
	}
	a.f("ADDQ $4, R8")
	a.f("ADDQ R10, R12")
	a.f("DECQ R11")
	a.f("JNZ rank%s", part)
	a.label("add" + part)
	for w := range words {
		dense := fmt.Sprintf("dense%s%d", part, w)
		if words == 2 {
			a.f("MOVQ $-1, R13")
		}
		a.f("TESTQ SI, SI")
		a.f("JZ %s", dense)
		a.f("ANDQ (SI), R13")
		a.f("ADDQ $8, SI")
		a.label(dense)
		a.f("PREFETCHT0 %d(DX)", 128*size) // half of 256 columns: what is merged on the way to W̃ᵀ is a row's next 256
		for q := 4 * w; q < 4*w+4; q++ {
			mergeQuarter(a, format, size, width, half, q, mask(q))
		}
	}
	a.f("ADDQ $%d, DI", 4*width*words)
	a.f("ADDQ $%d, R9", 256*words)
	a.f("SUBQ $%d, CX", 64*words)
}

// mergeQuarter adds to register q the values of the next 16 bits of R13, each in its place, and stores it; 0 where there is no bit.
func mergeQuarter(a *asm, format string, size, width int, half bool, q int, mask string) {
	a.f("MOVWLZX R13, AX")
	a.f("SHRQ $16, R13")
	a.f("KMOVW AX, K5")
	a.f("POPCNTL AX, BX")
	a.f("MOVL $1, AX")
	a.f("SHLXL BX, AX, AX")
	a.f("DECL AX")
	a.f("KMOVW AX, K6") // as many values as bits
	load(a, avx512, format, "(DX)", "K6", "Z9")
	a.f("VPEXPANDD.Z Z9, K5, Z9")
	a.f("VADDPS.Z Z9, Z%d, K5, Z9", q)
	if half {
		a.convert(9, 9)
		a.f("VMOVDQU16 Y9,%s %d(DI)", mask, width*q)
	} else {
		a.f("VMOVUPS Z9,%s %d(DI)", mask, width*q)
	}
	a.f("LEAQ (DX)(BX*%d), DX", size)
}

// maskRow writes
//
//	func mask512(n int, x *float32, bits *uint64)
//
// x_j = kept_j ? x_j : +0 for j < n.
func maskRow(a *asm) {
	a.text("mask512", 24)
	a.f("MOVQ n+0(FP), CX")
	a.f("MOVQ x+8(FP), DI")
	a.f("MOVQ bits+16(FP), SI")
	a.label("word")
	valid(a)
	a.f("ANDQ (SI), R13")
	for q := range 4 {
		a.f("KMOVQ R13, K5")
		a.f("KSHIFTRQ $%d, K5, K6", 16*q)
		a.f("VMOVUPS.Z %d(DI), K6, Z%d", 64*q, q)
		a.f("VMOVUPS Z%d, K%d, %d(DI)", q, q+1, 64*q)
	}
	a.f("ADDQ $8, SI")
	a.f("ADDQ $256, DI")
	a.f("SUBQ $64, CX")
	a.f("JG word")
	a.ret()
}

// maskHalfRow writes
//
//	func maskBF16512(n int, x *uint16, bits *uint64)
//
// x_j = kept_j ? x_j : +0 for j < n.
func maskHalfRow(a *asm) {
	a.text("maskBF16512", 24)
	a.f("MOVQ n+0(FP), CX")
	a.f("MOVQ x+8(FP), DI")
	a.f("MOVQ bits+16(FP), SI")
	a.label("word")
	valid(a)
	a.f("KSHIFTRQ $32, K1, K2")
	a.f("KMOVQ (SI), K5")
	a.f("KANDQ K1, K5, K5")
	a.f("KSHIFTRQ $32, K5, K6")
	for q := range 2 {
		a.f("VMOVDQU16.Z %d(DI), K%d, Z%d", 64*q, 5+q, q)
		a.f("VMOVDQU16 Z%d, K%d, %d(DI)", q, q+1, 64*q)
	}
	a.f("ADDQ $8, SI")
	a.f("ADDQ $128, DI")
	a.f("SUBQ $64, CX")
	a.f("JG word")
	a.ret()
}

// declarations are the Go stubs of every routine.
func declarations() string {
	a := new(asm)
	a.WriteString("// Code generated by go generate (gen). DO NOT EDIT.\n\npackage simd\n\nimport \"unsafe\"\n")
	for _, v := range []isa{avx512, avx2} {
		for _, rt := range routinesOf(v) {
			rt.declare(a, v)
		}
	}
	for _, f := range formats {
		for _, name := range []string{"512" + f.name + "x1", "512" + f.name + "x2", "256" + f.name + "x2", "256" + f.name + "x1"} {
			if name != "256BF16x1" && name != "256F16x1" {
				fmt.Fprintf(a, "\n//go:noescape\nfunc panels%s(dst *float32, panel int, src unsafe.Pointer, stride, k, count int)\n", name)
			}
		}
		fmt.Fprintf(a, "\n//go:noescape\nfunc expand256%s(words int, dst *float32, bits *uint64, values unsafe.Pointer)\n", f.name)
		fmt.Fprintf(a, "\n//go:noescape\nfunc merge512%s(n int, dst *float32, bits *uint64, values unsafe.Pointer, coef, a *float32, lda, r int)\n", f.name)
		fmt.Fprintf(a, "\n//go:noescape\nfunc merge512%sHalf(n int, dst *uint16, bits *uint64, values unsafe.Pointer, coef, a *float32, lda, r int)\n", f.name)
	}
	a.WriteString("\n//go:noescape\nfunc mask512(n int, x *float32, bits *uint64)\n")
	for _, f := range []string{"flashBack512(x *FlashBack)", "flashMax512(n int, s, out unsafe.Pointer)", "flashExp512(x *FlashAhead)", "flashScale512(n int, s, by unsafe.Pointer)"} {
		a.WriteString("\n//go:noescape\nfunc " + f + "\n")
	}
	a.WriteString("\n//go:noescape\nfunc maskBF16512(n int, x *uint16, bits *uint64)\n")
	a.WriteString("\n//go:noescape\nfunc maskWords256(words int, x *float32, bits *uint64)\n")
	a.WriteString("\n//go:noescape\nfunc combine256(strips int, dst, coef, a *float32, lda, r int)\n")
	return a.String()
}
