package main

import "fmt"

// convert2 writes VCVTNE2PS2BF16 (AVX512_BF16): the halves of to are lo and hi, rounded to nearest even.
func (a *asm) convert2(hi, lo, to int) {
	p0 := 0xf2 ^ to>>3&1<<7 ^ lo>>4&1<<6 ^ lo>>3&1<<5 ^ to>>4&1<<4
	a.f("BYTE $0x62; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x72; BYTE $0x%02x", p0, 0x07|(hi&15^15)<<3, 0x40|(hi>>4&1^1)<<3, 0xc0|to&7<<3|lo&7)
}

// weaving defines weave, by which VPERMW makes pairs of the first half of a register and the second one.
func (a *asm) weaving() {
	for i := range 8 {
		fmt.Fprintf(a, "DATA weave<>+%d(SB)/8, $0x%04x%04x%04x%04x\n", 8*i, 17+2*i, 1+2*i, 16+2*i, 2*i)
	}
	a.WriteString("GLOBL weave<>(SB), RODATA|NOPTR, $64\n")
}

// flashBack writes (AVX-512 with bfloat16 only)
//
//	func flashBack512(x *FlashBack)
//
// from blocks of four 16×16 tiles: p = exp(scale·s − lse), ds = scale·p·(dp − δ). Two rows are done at a time: each is a row of the panel
// DSA, and both together, their columns by turns, are a row of the panels DSB and PB.
func flashBack(a *asm, v isa) {
	if v.lanes != 16 {
		return
	}
	a.weaving()
	a.text("flashBack512", 8)
	a.f("MOVQ x+0(FP), AX")
	for i, r := range []string{"SI", "DI", "R8", "R9", "R10", "R11", "R12", "CX", "R13"} {
		a.f("MOVQ %d(AX), %s", 8*i, r)
	}
	a.f("VBROADCASTSS 72(AX), Z31")
	a.f("VMOVDQU64 weave<>(SB), Z30")
	a.label("block")
	a.f("MOVQ $2, BX")
	a.label("half")
	a.f("MOVQ $8, DX")
	a.label("pair")
	l := &lane{asm: a, isa: v}
	for i := range 4 {
		row, col := i/2, i%2
		if col == 0 {
			a.f("VBROADCASTSS %d(R8), Z10", 4*row)
			a.f("VBROADCASTSS %d(R9), Z11", 4*row)
		}
		a.f("VMOVUPS %d(SI), Z8", 64*row+1024*col)
		a.f("VFMSUB213PS Z10, Z31, Z8")
		l.exp("Z8", v.r(i), "Z9")
		a.f("VMOVUPS %d(DI), Z%d", 64*row+1024*col, 4+i)
		a.f("VSUBPS Z11, Z%d, Z%d", 4+i, 4+i)
		a.f("VMULPS Z31, Z%d, Z8", i)
		a.f("VMULPS Z8, Z%d, Z%d", 4+i, 4+i)
	}
	for row := range 2 {
		a.convert2(5+2*row, 4+2*row, 8)
		a.f("VMOVDQU64 Z8, %d(R10)", 64*row)
	}
	for col := range 2 {
		for i, to := range []string{"R12", "R11"} {
			a.convert2(4*i+2+col, 4*i+col, 8)
			a.f("VPERMW Z8, Z30, Z8")
			a.f("VMOVDQU64 Z8, %d(%s)", 1024*col, to)
		}
	}
	a.f("ADDQ $128, SI")
	a.f("ADDQ $128, DI")
	a.f("ADDQ $8, R8")
	a.f("ADDQ $8, R9")
	a.f("ADDQ $128, R10")
	a.f("ADDQ $64, R11")
	a.f("ADDQ $64, R12")
	a.f("DECQ DX")
	a.f("JNZ pair")
	a.f("ADDQ $1024, SI")
	a.f("ADDQ $1024, DI")
	a.f("DECQ BX")
	a.f("JNZ half")
	a.f("SUBQ $128, R8")
	a.f("SUBQ $128, R9")
	for _, r := range []string{"R11", "R12"} {
		a.f("SUBQ $1024, %s", r)
		a.f("ADDQ R13, %s", r)
	}
	a.f("DECQ CX")
	a.f("JNZ block")
	a.ret()
}

// flashAhead writes the forward's loops over blocks of four tiles, half a block's rows in as many registers at a time (AVX-512 with bfloat16
// only):
//
//	func flashMax512(n int, s, out unsafe.Pointer)        out [32][16]: the lanes' maxima of each row; NaNs do not count
//	func flashExp512(x *FlashAhead)                       P = exp(scale·s − m), rounded, a panel of a; the lanes' sums of each row
//	func flashScale512(n int, s, by unsafe.Pointer)       s *= by of the row
func flashAhead(a *asm, v isa) {
	if v.lanes != 16 {
		return
	}
	flashMax(a)
	flashExp(a, v)
	flashScale(a)
}

func flashMax(a *asm) {
	a.text("flashMax512", 24)
	a.f("MOVQ out+16(FP), DI")
	a.f("MOVQ s+8(FP), DX")
	a.f("MOVQ $2, BX")
	a.label("half")
	a.f("MOVQ DX, SI")
	a.f("MOVQ n+0(FP), CX")
	for r := range 16 {
		a.f("VMOVUPS %s, Z%d", constant("negInf"), r)
	}
	a.label("block")
	for r := range 16 {
		a.f("VMAXPS %d(SI), Z%d, Z%d", 64*r, r, r)
		a.f("VMAXPS %d(SI), Z%d, Z%d", 64*r+1024, r, r)
	}
	a.f("ADDQ $4096, SI")
	a.f("DECQ CX")
	a.f("JNZ block")
	for r := range 16 {
		a.f("VMOVUPS Z%d, %d(DI)", r, 64*r)
	}
	a.f("ADDQ $1024, DI")
	a.f("ADDQ $2048, DX")
	a.f("DECQ BX")
	a.f("JNZ half")
	a.ret()
}

func flashExp(a *asm, v isa) {
	a.text("flashExp512", 8)
	a.f("MOVQ x+0(FP), AX")
	for i, r := range []string{"DX", "R8", "R9", "R10", "R11"} { // s, p, m, sums, n
		a.f("MOVQ %d(AX), %s", 8*i, r)
	}
	a.f("VBROADCASTSS 40(AX), Z31")
	l := &lane{asm: a, isa: v}
	a.f("MOVQ $2, BX")
	a.label("half")
	a.f("MOVQ DX, SI")
	a.f("MOVQ R8, DI")
	a.f("MOVQ R11, CX")
	for r := range 16 {
		a.f("VXORPS Z%d, Z%d, Z%d", 8+r, 8+r, 8+r)
	}
	a.label("block")
	for r := range 16 {
		a.f("VBROADCASTSS %d(R9), Z30", 4*r)
		for c := range 2 {
			a.f("VMOVUPS %d(SI), Z2", 64*r+1024*c)
			a.f("VFMSUB213PS Z30, Z31, Z2")
			l.exp("Z2", v.r(c), "Z3")
			a.f("VADDPS Z%d, Z%d, Z%d", c, 8+r, 8+r)
		}
		a.convert2(1, 0, 4)
		a.f("VMOVDQU64 Z4, %d(DI)", 64*r)
	}
	a.f("ADDQ $4096, SI")
	a.f("ADDQ $2048, DI")
	a.f("DECQ CX")
	a.f("JNZ block")
	for r := range 16 {
		a.f("VMOVUPS Z%d, %d(R10)", 8+r, 64*r)
	}
	a.f("ADDQ $1024, R10")
	a.f("ADDQ $64, R9")
	a.f("ADDQ $2048, DX")
	a.f("ADDQ $1024, R8")
	a.f("DECQ BX")
	a.f("JNZ half")
	a.ret()
}

func flashScale(a *asm) {
	a.text("flashScale512", 24)
	a.f("MOVQ n+0(FP), CX")
	a.f("MOVQ s+8(FP), SI")
	a.label("block")
	a.f("MOVQ by+16(FP), DI")
	a.f("MOVQ $2, BX")
	a.label("half")
	for r := range 16 {
		a.f("VBROADCASTSS %d(DI), Z0", 4*r)
		for c := range 2 {
			a.f("VMULPS %d(SI), Z0, Z1", 64*r+1024*c)
			a.f("VMOVUPS Z1, %d(SI)", 64*r+1024*c)
		}
	}
	a.f("ADDQ $2048, SI")
	a.f("ADDQ $64, DI")
	a.f("DECQ BX")
	a.f("JNZ half")
	a.f("DECQ CX")
	a.f("JNZ block")
	a.ret()
}
