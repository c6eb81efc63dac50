package main

import (
	"fmt"
	"math/bits"
)

// expand writes AVX2's part of the merge, which has no VPEXPANDD: eight values are permuted to where a byte of the mask has its ones.
//
//	func expand256F32(words int, dst *float32, bits *uint64, values unsafe.Pointer)
//
// dst_j = kept_j ? dst_j + w_j : +0 for j < 64·words. It reads up to 7 values beyond the last.
func expand(a *asm) {
	places(a)
	for _, f := range formats {
		a.text("expand256"+f.name, 32)
		a.f("MOVQ words+0(FP), CX")
		a.f("MOVQ dst+8(FP), DI")
		a.f("MOVQ bits+16(FP), SI")
		a.f("MOVQ values+24(FP), DX")
		a.f("LEAQ places<>(SB), R8")
		a.f("VMOVDQU bitOf<>(SB), Y15")
		a.label("word")
		a.f("MOVQ (SI), R9")
		for g := range 8 {
			a.f("MOVBLZX R9, AX")
			a.f("SHRQ $8, R9")
			byteMask(a, "AX", "Y0", "Y15")
			load(a, avx2, f.name, "(DX)", "", "Y2")
			a.f("VPMOVZXBD (R8)(AX*8), Y1")
			a.f("VPERMPS Y2, Y1, Y2")
			a.f("VADDPS %d(DI), Y2, Y2", 32*g)
			a.f("VANDPS Y0, Y2, Y2")
			a.f("VMOVUPS Y2, %d(DI)", 32*g)
			a.f("POPCNTL AX, AX")
			a.f("LEAQ (DX)(AX*%d), DX", f.size)
		}
		a.f("ADDQ $8, SI")
		a.f("ADDQ $256, DI")
		a.f("DECQ CX")
		a.f("JNZ word")
		a.ret()
	}
	maskWords(a)
	combine(a)
}

// combine writes
//
//	func combine256(strips int, dst, coef, a *float32, lda, r int)
//
// dst_j += Σ_k coef_k·a[k·lda + j] for j < 32·strips, r > 0.
func combine(a *asm) {
	a.text("combine256", 48)
	a.f("MOVQ strips+0(FP), CX")
	a.f("MOVQ dst+8(FP), DI")
	a.f("MOVQ a+24(FP), SI")
	a.f("MOVQ lda+32(FP), R8")
	a.f("SHLQ $2, R8")
	a.label("strip")
	for i := range 4 {
		a.f("VMOVUPS %d(DI), Y%d", 32*i, i)
	}
	a.f("MOVQ coef+16(FP), DX")
	a.f("MOVQ r+40(FP), R9")
	a.f("MOVQ SI, AX")
	a.label("rank")
	a.f("VBROADCASTSS (DX), Y4")
	for i := range 4 {
		a.f("VFMADD231PS %d(AX), Y4, Y%d", 32*i, i)
	}
	a.f("ADDQ $4, DX")
	a.f("ADDQ R8, AX")
	a.f("DECQ R9")
	a.f("JNZ rank")
	for i := range 4 {
		a.f("VMOVUPS Y%d, %d(DI)", i, 32*i)
	}
	a.f("ADDQ $128, DI")
	a.f("ADDQ $128, SI")
	a.f("DECQ CX")
	a.f("JNZ strip")
	a.ret()
}

// byteMask turns the low byte of a register into lanes of ones.
func byteMask(a *asm, from, to, bitOf string) {
	a.f("VMOVD %s, X%s", from, to[1:])
	a.f("VPBROADCASTD X%s, %s", to[1:], to)
	a.f("VPAND %s, %s, %s", bitOf, to, to)
	a.f("VPCMPEQD %s, %s, %s", bitOf, to, to)
}

// maskWords writes
//
//	func maskWords256(words int, x *float32, bits *uint64)
//
// x_j = kept_j ? x_j : +0 for j < 64·words.
func maskWords(a *asm) {
	a.text("maskWords256", 24)
	a.f("MOVQ words+0(FP), CX")
	a.f("MOVQ x+8(FP), DI")
	a.f("MOVQ bits+16(FP), SI")
	a.f("VMOVDQU bitOf<>(SB), Y15")
	a.label("word")
	a.f("MOVQ (SI), R9")
	for g := range 8 {
		byteMask(a, "R9", "Y0", "Y15")
		a.f("SHRQ $8, R9")
		a.f("VANDPS %d(DI), Y0, Y0", 32*g)
		a.f("VMOVUPS Y0, %d(DI)", 32*g)
	}
	a.f("ADDQ $8, SI")
	a.f("ADDQ $256, DI")
	a.f("DECQ CX")
	a.f("JNZ word")
	a.ret()
}

// places is, for every byte and lane, which of the byte's values belongs there; bitOf is every lane's bit.
func places(a *asm) {
	a.WriteString("\n")
	for b := range 256 {
		var entry uint64
		for j := range 8 {
			rank := bits.OnesCount(uint(b) & (1<<j - 1))
			entry |= uint64(rank) << (8 * j)
		}
		fmt.Fprintf(a, "DATA places<>+%d(SB)/8, $0x%016x\n", 8*b, entry)
	}
	a.WriteString("GLOBL places<>(SB), RODATA|NOPTR, $2048\n")
	for j := 0; j < 8; j += 2 {
		fmt.Fprintf(a, "DATA bitOf<>+%d(SB)/8, $0x%016x\n", 4*j, uint64(1)<<j|uint64(2)<<j<<32)
	}
	a.WriteString("GLOBL bitOf<>(SB), RODATA|NOPTR, $32\n")
}
