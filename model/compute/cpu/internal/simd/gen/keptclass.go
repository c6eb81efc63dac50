package main

import "fmt"

// Kernels of 2:4 along the outputs, in bfloat16. Of a group of four inputs an output keeps two; the outputs that keep the same two are a class, and
// any two of them make pairs, one for each of the two inputs.

// keptClass writes them.
func keptClass(a *asm) {
	classPack(a)
	for n := 1; n <= classWidths; n++ {
		classWalk(a, n)
	}
}

func keptClassDeclarations(stub func(string, ...any)) {
	stub("classPack512(m *ClassPack)")
	for n := 1; n <= classWidths; n++ {
		stub("classWalk512x%d(groups int, y, x *float32, records unsafe.Pointer, values, size int)", n)
	}
}

// classWidths is the width of the widest panel of classWalk, in registers of 32 tokens.
const classWidths = 2

// classes are the inputs that each class keeps. One and the next, of which each keeps what the other does not, are walked together.
var classes = [6][2]int{{0, 1}, {2, 3}, {0, 2}, {1, 3}, {0, 3}, {1, 2}}

// Offsets of the fields of simd.ClassPack.
const (
	packGroups = 8 * iota
	packSlices
	packWords
	packBits
	packDst
	packValues
	packSize
)

// classPack writes
//
//	func classPack512(m *ClassPack)
//
// Sixteen outputs at a time: their bits of the group are compared with each class's, which gives those that are in it, whose words and numbers are
// compressed and stored behind the last ones.
func classPack(a *asm) {
	for i := range 8 {
		fmt.Fprintf(a, "DATA ordinals<>+%d(SB)/8, $0x%08x%08x\n", 8*i, 2*i+1, 2*i)
	}
	a.WriteString("GLOBL ordinals<>(SB), RODATA|NOPTR, $64\n")
	const class, ordinal, low, step = 20, 26, 27, 28
	a.text("classPack512", 8)
	a.f("MOVQ m+0(FP), R15")
	a.f("MOVQ %d(R15), R11", packGroups)
	a.f("MOVQ %d(R15), R13", packSlices)
	a.f("SHLQ $6, R13")
	a.f("MOVQ %d(R15), SI", packWords)
	a.f("MOVQ %d(R15), DX", packBits)
	a.f("MOVQ %d(R15), DI", packDst)
	for c, keeps := range classes {
		a.f("MOVL $%d, AX", 1<<keeps[0]|1<<keeps[1])
		a.f("VPBROADCASTD AX, Z%d", class+c)
	}
	a.f("VMOVDQU64 ordinals<>(SB), Z%d", ordinal)
	for _, c := range []struct{ value, reg int }{{15, low}, {16, step}} {
		a.f("MOVL $%d, AX", c.value)
		a.f("VPBROADCASTD AX, Z%d", c.reg)
	}
	a.f("XORL BX, BX") // bits before the group's
	a.label("group")
	a.f("VMOVD BX, X29")
	a.f("LEAQ 8(DI), R8")
	a.f("MOVQ %d(R15), R9", packValues)
	a.f("ADDQ DI, R9")
	a.f("MOVQ R9, R14")
	for c := range classes {
		a.f("MOVQ R8, R10")
		a.f("VMOVDQA64 Z%d, Z3", ordinal)
		a.f("XORL R12, R12")
		a.label(fmt.Sprint("slice", c))
		a.f("VMOVDQU32 (DX)(R12*1), Z0")
		a.f("VPSRLD X29, Z0, Z0")
		a.f("VPANDD Z%d, Z0, Z0", low)
		a.f("VPCMPEQD Z%d, Z0, K1", class+c)
		a.f("VMOVDQU32 (SI)(R12*1), Z1")
		a.f("VPCOMPRESSD.Z Z1, K1, Z2")
		a.f("VMOVDQU32 Z2, (R9)")
		a.f("VPCOMPRESSD.Z Z3, K1, Z4")
		a.f("VPMOVDB Z4, (R8)")
		a.f("VPADDD Z%d, Z3, Z3", step)
		a.f("KMOVW K1, AX")
		a.f("POPCNTL AX, AX")
		a.f("ADDQ AX, R8")
		a.f("LEAQ (R9)(AX*4), R9")
		a.f("ADDQ $64, R12")
		a.f("CMPQ R12, R13")
		a.f("JLT slice%d", c)
		// The last one of an odd number goes with itself, and a weight of 0.
		a.f("MOVBLZX -1(R8), AX")
		a.f("MOVB AX, (R8)")
		a.f("MOVL $0, (R9)")
		a.f("MOVQ R8, AX")
		a.f("SUBQ R10, AX")
		a.f("LEAQ 1(AX), CX")
		a.f("SHRQ $1, CX")
		a.f("MOVB CX, %d(DI)", c)
		a.f("ANDL $1, AX")
		a.f("ADDQ AX, R8")
		a.f("LEAQ (R9)(AX*4), R9")
	}
	// (a, b) of two outputs become the a of both and the b of both.
	a.label("two")
	a.f("VMOVDQU32 (R14), Z0")
	a.f("VPSHUFLW $0xd8, Z0, Z0")
	a.f("VPSHUFHW $0xd8, Z0, Z0")
	a.f("VMOVDQU32 Z0, (R14)")
	a.f("ADDQ $64, R14")
	a.f("CMPQ R14, R9")
	a.f("JLT two")
	a.f("ADDQ R13, SI")
	a.f("ADDQ %d(R15), DI", packSize)
	a.f("ADDL $4, BX")
	a.f("CMPL BX, $32")
	a.f("JNE same")
	a.f("XORL BX, BX")
	a.f("ADDQ R13, DX")
	a.label("same")
	a.f("DECQ R11")
	a.f("JNZ group")
	a.ret()
}

// classWalk writes
//
//	func classWalk512x2(groups int, y, x *float32, records unsafe.Pointer, values, size int)
//
// y has a row of 2·n registers of float32 for each input, four a group, and x a row of n registers of bfloat16 for each output: unpacking two of
// these gives the pairs. A class and its opposite take steps in turn, for each has only half of the sums, which wait for themselves.
func classWalk(a *asm, n int) {
	a.text(fmt.Sprintf("classWalk512x%d", n), 48)
	a.read("MOVQ", "groups", "R11", "y", "DI", "x", "BX", "records", "R15")
	a.label("group")
	for i := range 8 * n {
		a.f("VMOVUPS %d(DI), Z%d", 64*i, i)
	}
	a.f("LEAQ 8(R15), SI")
	a.f("MOVQ values+32(FP), DX")
	a.f("ADDQ R15, DX")
	for c := 0; c < len(classes); c += 2 {
		a.f("MOVBLZX %d(R15), CX", c)
		a.f("MOVBLZX %d(R15), R8", c+1)
		a.f("LEAQ (SI)(CX*2), R12")
		a.f("LEAQ (DX)(CX*8), R13")
		a.f("MOVQ CX, R9")
		a.f("CMPQ R8, R9")
		a.f("CMOVQLT R8, R9")
		a.f("SUBQ R9, CX")
		a.f("SUBQ R9, R8")
		a.loop(fmt.Sprint("both", c), "R9", func() {
			classStep(a, n, "SI", "DX", classes[c])
			classStep(a, n, "R12", "R13", classes[c+1])
		})
		a.loop(fmt.Sprint("first", c), "CX", func() { classStep(a, n, "SI", "DX", classes[c]) })
		a.loop(fmt.Sprint("second", c), "R8", func() { classStep(a, n, "R12", "R13", classes[c+1]) })
		if c+2 < len(classes) {
			a.f("MOVQ R12, SI")
			a.f("MOVQ R13, DX")
		}
	}
	for i := range 8 * n {
		a.f("VMOVUPS Z%d, %d(DI)", i, 64*i)
	}
	a.f("ADDQ $%d, DI", 8*64*n)
	a.f("ADDQ size+40(FP), R15")
	a.f("DECQ R11")
	a.f("JNZ group")
	a.ret()
}

// loop does body as often as count says, which may be 0.
func (a *asm) loop(label, count string, body func()) {
	a.f("TESTQ %s, %s", count, count)
	a.f("JZ %sEnd", label)
	a.f("PCALIGN $32")
	a.label(label)
	body()
	a.f("DECQ %s", count)
	a.f("JNZ %s", label)
	a.label(label + "End")
}

// classStep adds the products of the next two outputs of a class, whose numbers and values are at the given places.
func classStep(a *asm, n int, numbers, values string, keeps [2]int) {
	const first, second, pair, weight = 16, 18, 20, 24
	for i, reg := range []string{"AX", "R10"} {
		a.f("MOVBLZX %d(%s), %s", i, numbers, reg)
		width(a, reg, 64*n)
		a.f("ADDQ BX, %s", reg)
	}
	for i := range n {
		a.f("VMOVDQU64 %d(AX), Z%d", 64*i, first+i)
		a.f("VMOVDQU64 %d(R10), Z%d", 64*i, second+i)
	}
	for k := range keeps {
		a.f("VPBROADCASTD %d(%s), Z%d", 4*k, values, weight+k)
	}
	for i := range n {
		a.f("VPUNPCKLWD Z%d, Z%d, Z%d", second+i, first+i, pair+2*i)
		a.f("VPUNPCKHWD Z%d, Z%d, Z%d", second+i, first+i, pair+2*i+1)
	}
	for i := range 2 * n {
		for k, input := range keeps {
			a.pairDotOf(pair+i, weight+k, 2*n*input+i)
		}
	}
	a.f("ADDQ $2, %s", numbers)
	a.f("ADDQ $8, %s", values)
}
