package main

// Constants in registers while packing: half a unit of bfloat16, and what it keeps of a float32.
const (
	roundZ = 29
	keepZ  = 30
	oddZ   = 31 // NaN once a part was not finite
)

func pack(a *asm) {
	rows16(a)
	rows32(a)
	along16(a)
	along32(a)
	turn(a)
	for _, half := range []bool{false, true} {
		store(a, half)
	}
}

// constants sets the registers that split needs.
func constants(a *asm) {
	a.f("MOVL $0x8000, AX")
	a.f("VPBROADCASTD AX, Z%d", roundZ)
	a.f("MOVL $0xffff0000, AX")
	a.f("VPBROADCASTD AX, Z%d", keepZ)
	a.f("VPXORD Z%d, Z%d, Z%d", oddZ, oddZ, oddZ)
	a.f("VPXORD Z28, Z28, Z28")
}

// split turns Z(x) into its three parts: the nearest bfloat16, that of the remainder, and the rest, which has no more than 8 bits.
// Subtractions are exact. Part p is in Z(part(x, p)); Z(x) to Z(x+2) are used.
func split(a *asm, x int) {
	for i := 1; i <= 2; i++ {
		a.f("VPADDD Z%d, Z%d, Z%d", roundZ, x, x+i)
		a.f("VPANDD Z%d, Z%d, Z%d", keepZ, x+i, x+i)
		a.f("VSUBPS Z%d, Z%d, Z%d", x+i, x, x)
	}
	a.f("VFMADD231PS Z28, Z%d, Z%d", x, oddZ)
}

func part(x, p int) int { return x + (p+1)%3 }

// odd returns 1 in AX if a part was not finite.
func odd(a *asm, result int) {
	a.f("VCMPPS $3, Z%d, Z%d, K1", oddZ, oddZ)
	a.f("XORL AX, AX")
	a.f("KORTESTW K1, K1")
	a.f("SETNE AX")
	a.f("MOVQ AX, ret+%d(FP)", result)
}

// lowMask sets K(k) to the lowest bits, as many as the register says, 0 to bits; it uses R9.
func lowMask(a *asm, reg string, k int) {
	a.f("MOVQ $-1, R9")
	a.f("BZHIQ %s, R9, R9", reg)
	a.f("KMOVD R9, K%d", k)
}

// rows16 writes
//
//	func rows16(dst, src unsafe.Pointer, stride, rows, k int)
//
// Row r of a panel from src + r·stride bytes: k bfloat16 each.
func rows16(a *asm) {
	a.text("rows16", 40)
	a.f("MOVQ dst+0(FP), R12")
	a.f("MOVQ src+8(FP), R13")
	a.f("MOVQ rows+24(FP), CX")
	a.f("MOVQ k+32(FP), DX")
	a.f("MOVQ DX, R10")
	a.f("SHRQ $5, R10")
	a.f("ANDQ $31, DX")
	lowMask(a, "DX", 1)
	a.label("row")
	a.f("MOVQ R12, DI")
	a.f("MOVQ R13, SI")
	a.f("MOVQ R10, R11")
	a.f("TESTQ R11, R11")
	a.f("JZ tail")
	a.label("step")
	a.f("VMOVDQU16 (SI), Z0")
	a.f("VMOVDQU16 Z0, (DI)")
	a.f("ADDQ $64, SI")
	a.f("ADDQ $%d, DI", 2*tile)
	a.f("DECQ R11")
	a.f("JNZ step")
	a.label("tail")
	a.f("TESTQ DX, DX")
	a.f("JZ next")
	a.f("VMOVDQU16.Z (SI), K1, Z0")
	a.f("VMOVDQU16 Z0, (DI)")
	a.label("next")
	a.f("ADDQ $64, R12")
	a.f("ADDQ stride+16(FP), R13")
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// rows32 writes
//
//	func rows32(dst, src unsafe.Pointer, stride, rows, k int) int
//
// rows16 of float32, in three parts; 1 if one of them is not finite.
func rows32(a *asm) {
	a.text("rows32", 48)
	a.f("MOVQ dst+0(FP), R12")
	a.f("MOVQ src+8(FP), R13")
	a.f("MOVQ rows+24(FP), CX")
	a.f("MOVQ k+32(FP), DX")
	a.f("MOVQ DX, R10")
	a.f("SHRQ $5, R10")
	a.f("ANDQ $31, DX")
	lowMask(a, "DX", 1)
	a.f("KSHIFTRD $16, K1, K2")
	constants(a)
	a.f("VMOVDQU64 lanes<>(SB), Z26")
	a.label("row")
	a.f("MOVQ R12, DI")
	a.f("MOVQ R13, SI")
	a.f("MOVQ R10, R11")
	a.f("TESTQ R11, R11")
	a.f("JZ tail")
	a.label("step")
	a.f("VMOVUPS (SI), Z0")
	a.f("VMOVUPS 64(SI), Z4")
	storeRows32(a)
	a.f("ADDQ $128, SI")
	a.f("ADDQ $%d, DI", 6*tile)
	a.f("DECQ R11")
	a.f("JNZ step")
	a.label("tail")
	a.f("TESTQ DX, DX")
	a.f("JZ next")
	a.f("VMOVUPS.Z (SI), K1, Z0")
	a.f("VMOVUPS.Z 64(SI), K2, Z4")
	storeRows32(a)
	a.label("next")
	a.f("ADDQ $64, R12")
	a.f("ADDQ stride+16(FP), R13")
	a.f("DECQ CX")
	a.f("JNZ row")
	odd(a, 40)
	a.ret()
}

// storeRows32 stores the parts of Z0 and Z4, 32 numbers of a row.
func storeRows32(a *asm) {
	split(a, 0)
	split(a, 4)
	for p := range 3 {
		x, y := part(0, p), part(4, p)
		a.f("VPSRLD $16, Z%d, Z%d", x, x)
		a.f("VPSRLD $16, Z%d, Z%d", y, y)
		a.f("VPACKUSDW Z%d, Z%d, Z%d", y, x, x)
		a.f("VPERMQ Z%d, Z26, Z%d", x, x)
		a.f("VMOVDQU64 Z%d, %d(DI)", x, 2*tile*p)
	}
}

// along16 writes
//
//	func along16(dst, src unsafe.Pointer, stride, rows, k int)
//
// The panel, laid out in pairs, from src + k·stride bytes: rows bfloat16 each.
func along16(a *asm) {
	a.text("along16", 40)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ src+8(FP), SI")
	a.f("MOVQ stride+16(FP), R8")
	a.f("MOVQ rows+24(FP), CX")
	lowMask(a, "CX", 1)
	alongLoop(a, 2*tile, func(rows int) {
		if rows < 2 {
			a.f("VPXORD Z1, Z1, Z1")
		}
		for i := range rows {
			a.f("VMOVDQU16.Z (SI), K1, Z%d", i)
			a.f("ADDQ R8, SI")
		}
		interleave(a)
	}, 1)
	a.ret()
}

// along32 writes
//
//	func along32(dst, src unsafe.Pointer, stride, rows, k int) int
//
// along16 of float32, in three parts; 1 if one of them is not finite.
func along32(a *asm) {
	a.text("along32", 48)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ src+8(FP), SI")
	a.f("MOVQ stride+16(FP), R8")
	a.f("MOVQ rows+24(FP), CX")
	lowMask(a, "CX", 1)
	a.f("KSHIFTRD $16, K1, K2")
	constants(a)
	alongLoop(a, 6*tile, func(rows int) {
		for i := range rows {
			for h := range 2 {
				a.f("VMOVUPS.Z %d(SI), K%d, Z%d", 64*h, 1+h, 4+4*(2*i+h))
				split(a, 4+4*(2*i+h))
			}
			a.f("ADDQ R8, SI")
		}
		for p := range 3 {
			for h := range 2 {
				x, y := part(4+4*h, p), part(12+4*h, p)
				a.f("VPSRLD $16, Z%d, Z%d", x, x)
				if rows == 2 {
					a.f("VPORD Z%d, Z%d, Z%d", y, x, x)
				}
				a.f("VMOVDQU64 Z%d, %d(DI)", x, 2*tile*p+tile*h)
			}
		}
	}, 3)
	odd(a, 40)
	a.ret()
}

// alongLoop calls body for two rows of memory and, in another branch, for one; k is what is left of k+32(FP). With one part, body leaves
// the two halves' pairs in Z2 and Z3. What is left of the last step is filled with zeros.
func alongLoop(a *asm, step int, body func(rows int), parts int) {
	if parts == 1 {
		a.f("VMOVDQU64 halves<>(SB), Z26")
	}
	a.f("VPXORD Z25, Z25, Z25")
	a.f("MOVQ k+32(FP), DX")
	a.f("MOVQ $16, R10")
	put := func() {
		if parts == 1 {
			a.f("VMOVDQU64 Z2, (DI)")
			a.f("VMOVDQU64 Z3, %d(DI)", tile)
		}
		a.f("ADDQ $64, DI")
	}
	a.label("pair")
	a.f("CMPQ DX, $2")
	a.f("JLT single")
	body(2)
	put()
	a.f("SUBQ $2, DX")
	a.f("DECQ R10")
	a.f("JNZ pair")
	a.f("MOVQ $16, R10")
	a.f("ADDQ $%d, DI", step-tile)
	a.f("JMP pair")
	a.label("single")
	a.f("TESTQ DX, DX")
	a.f("JZ fill")
	body(1)
	put()
	a.f("DECQ R10")
	a.f("JZ done")
	a.f("JMP zeros")
	a.label("fill")
	a.f("CMPQ R10, $16")
	a.f("JE done")
	a.label("zeros")
	for i := range 2 * parts {
		a.f("VMOVDQU64 Z25, %d(DI)", tile*i)
	}
	a.f("ADDQ $64, DI")
	a.f("DECQ R10")
	a.f("JNZ zeros")
	a.label("done")
}
