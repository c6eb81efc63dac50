package main

import "fmt"

// gemm writes the micro-kernels of an instruction set: tiles of its panels' width, and the narrower ones for the edges.
//
//	func gemm512x12x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)
//
// c [rows, vecs·lanes] = α·Σ_k a_kᵀ·b_k + β·c; a is a panel mr wide, b one of nr. One FMA per accumulator and k, in rising k.
func gemm(a *asm, v isa) {
	mr, sizes := 12, []int{12, 8, 4}
	if v.lanes == 8 {
		mr, sizes = 6, []int{6, 4, 2}
	}
	for _, rows := range sizes {
		for _, vecs := range []int{2, 1} {
			tile(a, v, mr, rows, vecs)
		}
	}
	peak(a, v)
}

func tile(a *asm, v isa, mr, rows, vecs int) {
	acc := func(i, j int) string { return v.r(i*vecs + j) }
	b := func(j int) string { return v.r(rows*vecs + j) }
	x := v.r(rows*vecs + vecs)
	a.text(fmt.Sprintf("gemm%sx%dx%d", v.name, rows, vecs), 48)
	a.f("MOVQ kc+0(FP), CX")
	a.f("MOVQ a+8(FP), SI")
	a.f("MOVQ b+16(FP), DI")
	a.f("MOVQ c+24(FP), DX")
	a.f("MOVQ ldc+32(FP), R8")
	a.f("SHLQ $2, R8")
	a.f("MOVQ DX, R9") // c is far away; it arrives while the sum is built
	for i := range rows {
		for j := 0; j < vecs*v.bytes(); j += 64 {
			a.f("PREFETCHT0 %d(R9)", j)
		}
		if i < rows-1 {
			a.f("ADDQ R8, R9")
		}
	}
	for i := range rows * vecs {
		a.f("VXORPS %s, %s, %s", v.r(i), v.r(i), v.r(i))
	}
	a.f("PCALIGN $32")
	a.label("loop")
	for j := range vecs {
		a.f("VMOVUPS %d(DI), %s", j*v.bytes(), b(j))
	}
	for i := range rows {
		a.f("VBROADCASTSS %d(SI), %s", 4*i, x)
		for j := range vecs {
			a.f("VFMADD231PS %s, %s, %s", b(j), x, acc(i, j))
		}
	}
	a.f("ADDQ $%d, SI", 4*mr)
	a.f("ADDQ $%d, DI", 2*v.bytes())
	a.f("DECQ CX")
	a.f("JNZ loop")
	store(a, v, rows, vecs)
}

// store writes the accumulators: c = α·acc, or c = α·acc + β·c.
func store(a *asm, v isa, rows, vecs int) {
	n := rows * vecs
	alpha, beta, t := v.r(n), v.r(n+1), v.r(n+2)
	a.f("VBROADCASTSS alpha+40(FP), %s", alpha)
	a.f("MOVL beta+44(FP), AX")
	a.f("ADDL AX, AX")
	a.f("JZ set")
	a.f("VBROADCASTSS beta+44(FP), %s", beta)
	for i := range n {
		a.f("VMULPS %d(DX), %s, %s", i%vecs*v.bytes(), beta, t)
		a.f("VFMADD231PS %s, %s, %s", alpha, v.r(i), t)
		a.f("VMOVUPS %s, %d(DX)", t, i%vecs*v.bytes())
		if i%vecs == vecs-1 {
			a.f("ADDQ R8, DX")
		}
	}
	a.ret()
	a.label("set")
	for i := range n {
		a.f("VMULPS %s, %s, %s", alpha, v.r(i), v.r(i))
		a.f("VMOVUPS %s, %d(DX)", v.r(i), i%vecs*v.bytes())
		if i%vecs == vecs-1 {
			a.f("ADDQ R8, DX")
		}
	}
	a.ret()
}

// peak writes n rounds of 12 independent FMAs, for measuring what a core can do.
//
//	func peak512(n int)
func peak(a *asm, v isa) {
	a.text("peak"+v.name, 8)
	a.f("MOVQ n+0(FP), CX")
	for i := range 13 {
		a.f("VXORPS %s, %s, %s", v.r(i), v.r(i), v.r(i))
	}
	a.f("PCALIGN $32")
	a.label("loop")
	for i := range 12 {
		a.f("VFMADD231PS %s, %s, %s", v.r(12), v.r(12), v.r(i))
	}
	a.f("DECQ CX")
	a.f("JNZ loop")
	a.ret()
}
