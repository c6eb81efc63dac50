package main

import (
	"fmt"
	"strings"
)

// Kernels over the kept weights of bfloat16, by VDPBF16PS (AVX512_BF16): a multiply-add of 16 pairs with sums in float32.

// keptHalf writes them.
func keptHalf(a *asm) {
	for n := 1; n <= pairWidths; n++ {
		pairWalk(a, n)
	}
	sixPairs(a)
	pairRows(a)
	weaveRows(a)
	for _, n := range keptHalfWidths {
		keptDots512(a, n, true)
	}
	keptClass(a)
}

func keptHalfDeclarations(stub func(string, ...any)) {
	for n := 1; n <= pairWidths; n++ {
		stub("pairWalk512x%d(rows int, y, x *float32, bits *uint64, step int, values *float32)", n)
	}
	stub("sixPairs512(groups, regs int, dst, src *float32)")
	stub("pairRows512(k, regs int, dst, src *float32)")
	stub("weaveRows512(k, regs int, dst, src *float32)")
	for _, n := range keptHalfWidths {
		stub("keptDots512x%dHalf(rows int, dst, y, x *float32, bits *uint64, step, add int)", n)
	}
	keptClassDeclarations(stub)
}

// keptHalfWidths are the widths of the panels, in registers of 16 pairs of tokens, for keptDots512…Half.
var keptHalfWidths = []int{1, 2, 4, 8}

// pairWidths is the width of pairWalk's widest panel, in registers.
const pairWidths = 4

// pairDot writes VDPBF16PS: d += s1·disp(base), pair by pair; Go's assembler does not know it (Intel SDM, volume 2: EVEX.512.F3.0F38.W0 52 /r).
func (a *asm) pairDot(disp int, base string, s1, d int) {
	a.bytes(fmt.Sprintf("VDPBF16PS %d(%s), Z%d, Z%d", disp, base, s1, d), pairDotBytes(disp, base, s1, d))
}

// pairDotOf is pairDot of a register: d += s1·s2.
func (a *asm) pairDotOf(s2, s1, d int) {
	a.bytes(fmt.Sprintf("VDPBF16PS Z%d, Z%d, Z%d", s2, s1, d), pairDotOfBytes(s2, s1, d))
}

// bytes writes an instruction as its bytes.
func (a *asm) bytes(instruction string, bytes []byte) {
	var code []string
	for _, b := range bytes {
		code = append(code, fmt.Sprintf("BYTE $0x%02x", b))
	}
	a.f("%s // %s", strings.Join(code, "; "), instruction)
}

// numbers of the registers that a memory operand may name here: none that wants a SIB byte.
var gpr = map[string]int{"AX": 0, "DX": 2, "SI": 6, "DI": 7, "R8": 8, "R11": 11, "R13": 13, "R14": 14, "R15": 15}

func pairDotBytes(disp int, base string, s1, d int) []byte {
	b := gpr[base]
	return append(pairDotPrefix(b, s1, d), byte(0x80|d&7<<3|b&7), byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
}

func pairDotOfBytes(s2, s1, d int) []byte {
	return append(pairDotPrefix(s2, s1, d), byte(0xc0|d&7<<3|s2&7))
}

// pairDotPrefix is the prefix and the opcode; last is the number of the base or of the second source.
func pairDotPrefix(last, s1, d int) []byte {
	bit := func(x, i int) int { return ^x >> i & 1 } // inverted
	return []byte{0x62, byte(bit(d, 3)<<7 | bit(last, 4)<<6 | bit(last, 3)<<5 | bit(d, 4)<<4 | 2), byte(^s1&15<<3 | 4 | 2), byte(0x40 | bit(s1, 4)<<3), 0x52}
}

// pairWalk writes
//
//	func pairWalk512x4(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// walk of 2:4: each four bits have two, in all rows as many fours, and half of their number is that of the row of x, 1 to 6, which holds the pair of
// just those two inputs; y has rows of n registers of float32, x of n registers of pairs. Four rows go side by side, and the rest one by one.
func pairWalk(a *asm, n int) {
	a.text(fmt.Sprintf("pairWalk512x%d", n), 48)
	a.read("MOVQ", "rows", "CX", "y", "DI", "x", "", "bits", "BX", "step", "R8", "values", "DX")
	a.f("SHLQ $3, R8")
	a.f("POPCNTQ (BX), R15")
	a.f("ADDQ R15, R15") // the bytes of a row's values
	a.f("JZ end")
	a.f("SUBQ $4, CX")
	a.f("JLT tail")
	a.label("rows4")
	pairRowsWalk(a, n, 4)
	a.f("SUBQ $4, CX")
	a.f("JGE rows4")
	a.label("tail")
	a.f("ADDQ $4, CX")
	a.f("JZ end")
	a.label("rows1")
	pairRowsWalk(a, n, 1)
	a.f("DECQ CX")
	a.f("JNZ rows1")
	a.label("end")
	a.ret()
}

// pairRowsWalk does the next one row or four. Values come four pairs at a time: to broadcast each from memory would take a fifth of all loads.
func pairRowsWalk(a *asm, n, rows int) {
	const quads, value = 24, 28 // registers of a row's next four pairs, and of one of them everywhere
	sets := max(1, 4/n)         // partial sums of a row, taken in turn
	sum := func(r, s, i int) int { return (r*sets+s)*n + i }
	words := []string{"R9", "R10", "R13", "R14"}
	values := []string{"(DX)", "(DX)(R15*1)", "(DX)(R15*2)", "(SI)"}
	for r := range rows {
		a.f("MOVQ (BX), %s", words[r])
		a.f("ADDQ R8, BX")
		for i := range n {
			a.f("VMOVUPS %d(DI), Z%d", 64*(r*n+i), sum(r, 0, i))
			for s := 1; s < sets; s++ {
				a.f("VPXORD Z%d, Z%d, Z%d", sum(r, s, i), sum(r, s, i), sum(r, s, i))
			}
		}
	}
	if rows == 4 {
		a.f("LEAQ (DX)(R15*2), SI")
		a.f("ADDQ R15, SI")
	}
	move := func(bytes int) {
		a.f("ADDQ $%d, DX", bytes)
		if rows == 4 {
			a.f("ADDQ $%d, SI", bytes)
		}
	}
	pair := func(r, u int) { // number u of the four in row r
		a.f("MOVL %s, AX", words[r])
		a.f("SHRQ $4, %s", words[r])
		a.f("ANDL $14, AX")
		width(a, "AX", 32*n)
		a.f("ADDQ R12, AX")
		for i := range n {
			a.pairDot(64*n*(6*u-1)+64*i, "AX", value+r, sum(r, u%sets, i))
		}
	}
	four, last, one, done := fmt.Sprintf("four%d", rows), fmt.Sprintf("last%d", rows), fmt.Sprintf("one%d", rows), fmt.Sprintf("done%d", rows)
	a.f("MOVQ x+16(FP), R12")
	a.f("MOVQ R15, R11")
	a.f("SUBQ $16, R11")
	a.f("JLT %s", last)
	a.f("PCALIGN $32")
	a.label(four)
	for r := range rows {
		a.f("VBROADCASTI32X4 %s, Z%d", values[r], quads+r)
	}
	for u := range 4 {
		for r := range rows {
			a.f("VPSHUFD $%d, Z%d, Z%d", 0x55*u, quads+r, value+r)
			pair(r, u)
		}
	}
	move(16)
	a.f("ADDQ $%d, R12", 4*6*64*n)
	a.f("SUBQ $16, R11")
	a.f("JGE %s", four)
	a.label(last)
	a.f("ADDQ $16, R11")
	a.f("JZ %s", done)
	a.label(one)
	for r := range rows {
		a.f("VPBROADCASTD %s, Z%d", values[r], value+r)
		pair(r, 0)
	}
	move(4)
	a.f("ADDQ $%d, R12", 6*64*n)
	a.f("SUBQ $4, R11")
	a.f("JNZ %s", one)
	a.label(done)
	for r := range rows {
		for i := range n {
			for s := 1; s < sets; s++ {
				a.f("VADDPS Z%d, Z%d, Z%d", sum(r, s, i), sum(r, 0, i), sum(r, 0, i))
			}
			a.f("VMOVUPS Z%d, %d(DI)", sum(r, 0, i), 64*(r*n+i))
		}
	}
	a.f("ADDQ $%d, DI", 64*n*rows)
	if rows == 4 {
		a.f("MOVQ SI, DX")
	}
}

// sixPairs writes
//
//	func sixPairs512(groups, regs int, dst, src *float32)
//
// the rows of pairWalk's x: of each four inputs a, b, c, d, whose pairs (a, b) and (c, d) are two rows of src, the pairs
// (a, b), (a, c), (b, c), (a, d), (b, d), (c, d). Rows have regs registers of 16 pairs.
func sixPairs(a *asm) {
	a.text("sixPairs512", 32)
	a.f("MOVQ groups+0(FP), CX")
	a.f("MOVQ regs+8(FP), R8")
	a.f("MOVQ dst+16(FP), DI")
	a.f("MOVQ src+24(FP), SI")
	a.f("MOVL $0xaaaaaaaa, AX")
	a.f("KMOVD AX, K1") // the later of a pair
	a.f("MOVQ R8, R9")
	a.f("SHLQ $6, R9") // bytes of a row
	a.f("LEAQ (R9)(R9*2), R10")
	a.label("group")
	a.f("MOVQ R8, BX")
	a.label("reg")
	a.f("VMOVDQU64 (SI), Z0")
	a.f("VMOVDQU64 (SI)(R9*1), Z1")
	a.f("VPSRLD $16, Z0, Z2") // b
	a.f("VPSLLD $16, Z1, Z3") // c, as the later of a pair
	for _, p := range []struct{ first, second, to int }{{0, 3, 4}, {2, 3, 5}, {0, 1, 6}, {2, 1, 7}} {
		a.f("VPBLENDMW Z%d, Z%d, K1, Z%d", p.second, p.first, p.to)
	}
	a.f("LEAQ (DI)(R10*1), DX")
	a.f("VMOVDQU64 Z0, (DI)")
	a.f("VMOVDQU64 Z4, (DI)(R9*1)")
	a.f("VMOVDQU64 Z5, (DI)(R9*2)")
	a.f("VMOVDQU64 Z6, (DX)")
	a.f("VMOVDQU64 Z7, (DX)(R9*1)")
	a.f("VMOVDQU64 Z1, (DX)(R9*2)")
	a.f("ADDQ $64, SI")
	a.f("ADDQ $64, DI")
	a.f("DECQ BX")
	a.f("JNZ reg")
	a.f("ADDQ R9, SI")
	a.f("LEAQ (DI)(R9*4), DI")
	a.f("ADDQ R9, DI")
	a.f("DECQ CX")
	a.f("JNZ group")
	a.ret()
}

// pairRows writes
//
//	func pairRows512(k, regs int, dst, src *float32)
//
// the rows of keptDots512…Half's x and y, and of classWalk's x: of each two inputs a, b, whose pairs (a, b) of 32·regs tokens are a row of src, a row of
// a's and one of b's. In each 32 tokens, four of the first 16 and four of the second 16 take turns, so that unpacking two such rows, the lower
// halves of their eights and the upper ones, gives the pairs of the first 16 tokens and of the second 16, in order.
func pairRows(a *asm) {
	a.text("pairRows512", 32)
	a.f("MOVQ k+0(FP), CX")
	a.f("MOVQ regs+8(FP), R8")
	a.f("MOVQ dst+16(FP), DI")
	a.f("MOVQ src+24(FP), SI")
	a.f("MOVL $0x55555555, AX")
	a.f("KMOVD AX, K1")
	a.f("MOVQ R8, R9")
	a.f("SHLQ $6, R9")
	a.label("row")
	a.f("MOVQ R8, BX")
	a.label("reg")
	for i := range 2 {
		a.f("VMOVDQU16.Z %d(SI), K1, Z%d", 64*i, i)
		a.f("VPSRLD $16, %d(SI), Z%d", 64*i, 2+i)
	}
	a.f("VPACKUSDW Z1, Z0, Z0")
	a.f("VPACKUSDW Z3, Z2, Z2")
	a.f("VMOVDQU64 Z0, (DI)")
	a.f("VMOVDQU64 Z2, (DI)(R9*1)")
	a.f("ADDQ $128, SI")
	a.f("ADDQ $64, DI")
	a.f("DECQ BX")
	a.f("JNZ reg")
	a.f("ADDQ R9, DI")
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// weaveRows writes
//
//	func weaveRows512(k, regs int, dst, src *float32)
//
// k times a row of pairs of bfloat16, rounded, from two rows of regs registers of float32; dst may be src.
func weaveRows(a *asm) {
	a.text("weaveRows512", 32)
	a.f("MOVQ k+0(FP), CX")
	a.f("MOVQ regs+8(FP), R8")
	a.f("MOVQ dst+16(FP), DI")
	a.f("MOVQ src+24(FP), SI")
	a.f("VMOVDQU64 weave<>(SB), Z3")
	a.f("MOVQ R8, R9")
	a.f("SHLQ $6, R9")
	a.label("row")
	a.f("MOVQ R8, BX")
	a.label("reg")
	a.f("VMOVUPS (SI), Z0")
	a.f("VMOVUPS (SI)(R9*1), Z1")
	a.convert2(1, 0, 2)
	a.f("VPERMW Z2, Z3, Z2")
	a.f("VMOVDQU64 Z2, (DI)")
	a.f("ADDQ $64, SI")
	a.f("ADDQ $64, DI")
	a.f("DECQ BX")
	a.f("JNZ reg")
	a.f("ADDQ R9, SI")
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}
