package main

import "fmt"

// Kernels over the kept weights of blocks of 64 inputs: one mask word is one row's part, and says where its weights are. The
// activations are panels: a row of 16·v tokens for each input.

// kept writes them for AVX-512.
func kept(a *asm, v isa) {
	if v.lanes != 16 {
		return
	}
	for n := 1; n <= 8; n++ {
		walk(a, n)
	}
	for _, n := range keptWidths {
		keptDots(a, n)
	}
	spread(a)
	compress(a)
}

// keptWidths are the widths of the panels, in registers, for keptDots.
var keptWidths = []int{1, 2, 4, 8, 12, 16}

// width sets AX to the place of panel row AX.
func width(a *asm, n int) {
	if n&(n-1) == 0 {
		shift := 6
		for ; n > 1; n /= 2 {
			shift++
		}
		a.f("SHLQ $%d, AX", shift)
		return
	}
	a.f("IMUL3Q $%d, AX, AX", 64*n)
}

// walk writes
//
//	func walk512x8(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// y[i,:] += Σ_j kept in bits[i·step] of value·x[j,:], i < rows, rows of 16·n floats; the values are packed, i by i. The sum runs in
// rising j, over `sets` partial sums in turn where n is small.
func walk(a *asm, n int) {
	sets := max(1, min(4, 8/n))
	a.text(fmt.Sprintf("walk512x%d", n), 48)
	a.f("MOVQ rows+0(FP), CX")
	a.f("MOVQ y+8(FP), DI")
	a.f("MOVQ x+16(FP), SI")
	a.f("MOVQ bits+24(FP), BX")
	a.f("MOVQ step+32(FP), R8")
	a.f("MOVQ values+40(FP), DX")
	a.f("SHLQ $3, R8")
	a.label("row")
	a.f("MOVQ (BX), R9")
	a.f("ADDQ R8, BX")
	a.f("TESTQ R9, R9")
	a.f("JZ next")
	for i := range n {
		a.f("VMOVUPS %d(DI), Z%d", 64*i, i)
	}
	for i := n; i < n*sets; i++ {
		a.f("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	a.f("PCALIGN $32")
	a.label("entry")
	for s := range sets {
		a.f("TZCNTQ R9, AX")
		width(a, n)
		a.f("ADDQ SI, AX")
		a.f("VBROADCASTSS (DX), Z31")
		for i := range n {
			a.f("VFMADD231PS %d(AX), Z31, Z%d", 64*i, s*n+i)
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
			a.f("VADDPS Z%d, Z%d, Z%d", s*n+i, i, i)
		}
	}
	for i := range n {
		a.f("VMOVUPS Z%d, %d(DI)", i, 64*i)
	}
	a.label("next")
	a.f("ADDQ $%d, DI", 64*n)
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// keptDots writes
//
//	func keptDots512x16(rows int, dst, y, x *float32, bits *uint64, step int, keep, below uint64, add int)
//
// dst_ij = y[i,:]·x[j,:] (+ dst_ij with add) for the j kept in bits[i·step] & keep; rows of 16·n floats. dst is packed by whole words; of each, those
// in below are passed over. Sixteen sums are folded into one register at a time. Row 64 of x is read, and not used.
func keptDots(a *asm, n int) {
	a.text(fmt.Sprintf("keptDots512x%d", n), 72)
	a.f("MOVQ rows+0(FP), CX")
	a.f("MOVQ dst+8(FP), DX")
	a.f("MOVQ y+16(FP), DI")
	a.f("MOVQ x+24(FP), SI")
	a.f("MOVQ bits+32(FP), BX")
	a.f("MOVQ step+40(FP), R8")
	a.f("SHLQ $3, R8")
	a.label("row")
	a.f("MOVQ (BX), R9")
	a.f("ADDQ R8, BX")
	a.f("MOVQ R9, R11")
	a.f("ANDQ below+56(FP), R11")
	a.f("POPCNTQ R11, R11")
	a.f("LEAQ (DX)(R11*4), R12")
	a.f("POPCNTQ R9, R11")
	a.f("LEAQ (DX)(R11*4), DX")
	a.f("ANDQ keep+48(FP), R9")
	a.f("JZ next")
	a.f("POPCNTQ R9, R10")
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
		dots(a, n, 4)
		quad(a, 0, 8+2*q)
		a.f("JMP fold")
		a.label(fmt.Sprintf("oct%d", q))
		dots(a, n, 8)
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
	a.f("CMPQ add+64(FP), $0")
	a.f("JE set")
	a.f("VADDPS (R12), Z0, K1, Z0")
	a.label("set")
	a.f("VMOVUPS Z0, K1, (R12)")
	a.f("ADDQ $64, R12")
	a.f("SUBQ $16, R10")
	a.f("JGT group")
	a.label("next")
	a.f("ADDQ $%d, DI", 64*n)
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// dots sets Z0…Z(m−1) to the products, lane by lane, of the next m kept positions of R9.
func dots(a *asm, n, m int) {
	at := []string{"R14", "R11", "R13", "R15"}
	for p := 0; p < m; p += 4 {
		for i := range 4 {
			a.f("TZCNTQ R9, AX")
			width(a, n)
			a.f("BLSRQ R9, R9")
			a.f("LEAQ (SI)(AX*1), %s", at[i])
		}
		for k := range n {
			for i := range 4 {
				op, mem := "VFMADD231PS", fmt.Sprintf("%d(%s)", 64*k, at[i])
				if k == 0 {
					op = "VMULPS"
				}
				a.f("%s %s, Z%d, Z%d", op, mem, 16+k, p+i)
			}
		}
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

// spread writes
//
//	func spread512(rows int, y, x *float32, bits *uint64, step int, values *float32)
//
// y[j,:] += value·x[i,:] for the j kept in bits[i·step], i < rows; rows of 16 floats. The transpose of walk.
func spread(a *asm) {
	a.text("spread512", 48)
	a.f("MOVQ rows+0(FP), CX")
	a.f("MOVQ y+8(FP), DI")
	a.f("MOVQ x+16(FP), SI")
	a.f("MOVQ bits+24(FP), BX")
	a.f("MOVQ step+32(FP), R8")
	a.f("MOVQ values+40(FP), DX")
	a.f("SHLQ $3, R8")
	a.label("row")
	a.f("MOVQ (BX), R9")
	a.f("ADDQ R8, BX")
	a.f("TESTQ R9, R9")
	a.f("JZ next")
	a.f("VMOVUPS (SI), Z0")
	a.f("PCALIGN $32")
	a.label("entry")
	a.f("TZCNTQ R9, AX")
	a.f("SHLQ $6, AX")
	a.f("VMOVUPS (DI)(AX*1), Z1")
	a.f("VFMADD231PS.BCST (DX), Z0, Z1")
	a.f("VMOVUPS Z1, (DI)(AX*1)")
	a.f("ADDQ $4, DX")
	a.f("BLSRQ R9, R9")
	a.f("JNZ entry")
	a.label("next")
	a.f("ADDQ $64, SI")
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
}

// compress writes
//
//	func compress512(words int, dst *float32, at *uint32, src *float32, bits *uint64)
//
// dst[at_k …] = the elements of src[64·k …] that bits_k keeps, k < words; at_k moves on behind them. With at nil they follow each other.
func compress(a *asm) {
	a.text("compress512", 40)
	a.f("MOVQ words+0(FP), CX")
	a.f("MOVQ dst+8(FP), DI")
	a.f("MOVQ at+16(FP), R8")
	a.f("MOVQ src+24(FP), SI")
	a.f("MOVQ bits+32(FP), BX")
	a.f("MOVQ DI, DX")
	a.label("word")
	a.f("MOVQ (BX), R9")
	a.f("POPCNTQ R9, R10")
	a.f("TESTQ R8, R8")
	a.f("JZ follow")
	a.f("MOVL (R8), AX")
	a.f("LEAQ (DI)(AX*4), DX")
	a.f("ADDL R10, (R8)")
	a.f("ADDQ $4, R8")
	a.label("follow")
	a.f("MOVL $-1, R12")
	for q := range 4 {
		a.f("KMOVW R9, K1")
		a.f("MOVWLZX R9, AX")
		a.f("POPCNTL AX, AX")
		a.f("BZHIL AX, R12, R13")
		a.f("KMOVW R13, K2")
		a.f("VMOVUPS.Z %d(SI), K1, Z0", 64*q) // masked: the last row may end here
		a.f("VCOMPRESSPS Z0, K1, Z1")
		a.f("VMOVUPS Z1, K2, (DX)")
		a.f("LEAQ (DX)(AX*4), DX")
		if q < 3 {
			a.f("SHRQ $16, R9")
		}
	}
	a.f("ADDQ $256, SI")
	a.f("ADDQ $8, BX")
	a.f("DECQ CX")
	a.f("JNZ word")
	a.ret()
}

// keptDeclarations are their Go stubs.
func keptDeclarations() string {
	a := new(asm)
	a.WriteString("// Code generated by go generate (gen). DO NOT EDIT.\n\npackage simd\n")
	for n := 1; n <= 8; n++ {
		fmt.Fprintf(a, "\n//go:noescape\nfunc walk512x%d(rows int, y, x *float32, bits *uint64, step int, values *float32)\n", n)
	}
	for _, n := range keptWidths {
		fmt.Fprintf(a, "\n//go:noescape\nfunc keptDots512x%d(rows int, dst, y, x *float32, bits *uint64, step int, keep, below uint64, add int)\n", n)
	}
	a.WriteString("\n//go:noescape\nfunc spread512(rows int, y, x *float32, bits *uint64, step int, values *float32)\n")
	a.WriteString("\n//go:noescape\nfunc compress512(words int, dst *float32, at *uint32, src *float32, bits *uint64)\n")
	return a.String()
}
