package main

import "fmt"

// formats are the element types that packing widens.
var formats = []struct {
	name string
	size int
}{{"F32", 4}, {"BF16", 2}, {"F16", 2}}

func pack(a *asm, v isa) {
	if v.lanes == 8 {
		maskTable(a)
	}
	for _, f := range formats {
		transpose(a, v, f.name, f.size)
		along(a, v, f.name, f.size)
		panels(a, v, f.name, f.size, 2)
		if v.lanes == 16 || f.size == 4 { // half-width elements have no masked load in AVX2
			panels(a, v, f.name, f.size, 1)
		}
	}
}

// load writes the widening load of a register from memory; k is a mask register (AVX-512) or "".
func load(a *asm, v isa, format, mem, k, reg string) {
	z, half := "", "Y"
	if v.lanes == 8 {
		half = "X"
	}
	if k != "" {
		z, k = ".Z", k+", "
	}
	switch format {
	case "F32":
		a.f("VMOVUPS%s %s, %s%s", z, mem, k, reg)
	case "BF16":
		a.f("VPMOVZXWD%s %s, %s%s", z, mem, k, reg)
		a.f("VPSLLD $16, %s, %s", reg, reg)
	case "F16":
		if k != "" {
			a.f("VMOVDQU16%s %s, %s%s", z, mem, k, half+reg[1:])
			mem = half + reg[1:]
		}
		a.f("VCVTPH2PS %s, %s", mem, reg)
	}
}

// transpose writes
//
//	func transpose512F32(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)
//
// dst[(lanes·k + c)·step + r] = src[r·stride + lanes·k + c] for r < width ≤ lanes, k < blocks, c < lanes.
func transpose(a *asm, v isa, format string, size int) {
	a.text(fmt.Sprintf("transpose%s%s", v.name, format), 48)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ step+8(FP), DX")
	a.f("MOVQ src+16(FP), SI")
	a.f("MOVQ stride+24(FP), R8")
	a.f("MOVQ blocks+32(FP), R9")
	a.f("MOVQ width+40(FP), CX")
	a.f("SHLQ $2, DX")
	a.f("SHLQ $%d, R8", size/2)
	a.f("XORL R12, R12")
	a.f("MOVQ CX, R13")
	mask(a, v)
	a.label("loop")
	a.f("MOVQ SI, AX")
	a.f("MOVQ R8, R11")
	for r := range v.lanes {
		load(a, v, format, "(AX)", "", v.r(r))
		if r+1 < v.lanes { // the last row is read again instead of those that are not there
			a.f("CMPQ R13, $%d", r+1)
			a.f("CMOVQLE R12, R11")
			a.f("ADDQ R11, AX")
		}
	}
	if v.lanes == 16 {
		square16(a)
	} else {
		square8(a)
	}
	a.f("ADDQ $%d, SI", v.lanes*size)
	a.f("DECQ R9")
	a.f("JNZ loop")
	a.ret()
}

// mask prepares the store of CX lanes: K1, or the address of a vector mask in R10.
func mask(a *asm, v isa) {
	if v.lanes == 16 {
		a.f("MOVL $1, AX")
		a.f("SHLL CX, AX")
		a.f("DECL AX")
		a.f("KMOVW AX, K1")
		return
	}
	a.f("LEAQ laneMask<>+32(SB), R10")
	a.f("SHLQ $2, CX")
	a.f("SUBQ CX, R10")
}

// maskTable is 8 lanes of ones and 8 of zeros: a mask of w lanes begins 4·w bytes before the middle.
func maskTable(a *asm) {
	a.WriteString("\n")
	for i := range 8 {
		fmt.Fprintf(a, "DATA laneMask<>+%d(SB)/8, $%s\n", 8*i, []string{"0xffffffffffffffff", "0"}[i/4])
	}
	a.WriteString("GLOBL laneMask<>(SB), RODATA|NOPTR, $64\n")
}

// unpack writes the first two steps of a transposition: registers [0,n) by way of [n,2n) back to [0,n). Register 4g+q then holds
// element 4·L+q of rows 4g…4g+3 in its 128-bit lane L.
func unpack(a *asm, v isa, n int) {
	for i := 0; i < n; i += 2 {
		a.f("VUNPCKLPS %s, %s, %s", v.r(i+1), v.r(i), v.r(n+i))
		a.f("VUNPCKHPS %s, %s, %s", v.r(i+1), v.r(i), v.r(n+i+1))
	}
	for g := 0; g < n; g += 4 {
		for h := range 2 {
			lo, hi := v.r(n+g+h), v.r(n+g+h+2)
			a.f("VUNPCKLPD %s, %s, %s", hi, lo, v.r(g+2*h))
			a.f("VUNPCKHPD %s, %s, %s", hi, lo, v.r(g+2*h+1))
		}
	}
}

func square16(a *asm) {
	v := avx512
	unpack(a, v, 16)
	for q := range 4 {
		for h := range 2 {
			x, y := v.r(8*h+q), v.r(8*h+4+q)
			a.f("VSHUFF32X4 $0x88, %s, %s, %s", y, x, v.r(16+4*q+2*h))
			a.f("VSHUFF32X4 $0xdd, %s, %s, %s", y, x, v.r(16+4*q+2*h+1))
		}
	}
	for c := range 16 { // column c = 4·L+q
		q, lane := c%4, c/4
		imm := []string{"$0x88", "$0xdd"}[lane/2]
		a.f("VSHUFF32X4 %s, %s, %s, Z0", imm, v.r(16+4*q+2+lane%2), v.r(16+4*q+lane%2))
		a.f("VMOVUPS Z0, K1, (DI)")
		a.f("ADDQ DX, DI")
	}
}

func square8(a *asm) {
	v := avx2
	unpack(a, v, 8)
	a.f("VMOVUPS (R10), Y15")
	for c := range 8 {
		q, lane := c%4, c/4
		a.f("VPERM2F128 %s, %s, %s, Y8", []string{"$0x20", "$0x31"}[lane], v.r(4+q), v.r(q))
		a.f("VMASKMOVPS Y8, Y15, (DI)")
		a.f("ADDQ DX, DI")
	}
}

// along writes
//
//	func along512F32(dst *float32, step int, src unsafe.Pointer, stride, k, width int)
//
// dst[p·step + r] = src[p·stride + r] for p < k, r < width ≤ lanes.
func along(a *asm, v isa, format string, size int) {
	a.text(fmt.Sprintf("along%s%s", v.name, format), 48)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ step+8(FP), DX")
	a.f("MOVQ src+16(FP), SI")
	a.f("MOVQ stride+24(FP), R8")
	a.f("MOVQ k+32(FP), R9")
	a.f("MOVQ width+40(FP), CX")
	a.f("SHLQ $2, DX")
	a.f("SHLQ $%d, R8", size/2)
	mask(a, v)
	a.label("loop")
	if v.lanes == 16 {
		load(a, v, format, "(SI)", "K1", "Z0")
		a.f("VMOVUPS Z0, K1, (DI)")
	} else {
		// Half-width elements cannot be masked; the caller gives full registers only.
		if format == "F32" {
			a.f("VMOVUPS (R10), Y15")
			a.f("VMASKMOVPS (SI), Y15, Y0")
			a.f("VMASKMOVPS Y0, Y15, (DI)")
		} else {
			load(a, v, format, "(SI)", "", "Y0")
			a.f("VMOVUPS Y0, (DI)")
		}
	}
	a.f("ADDQ R8, SI")
	a.f("ADDQ DX, DI")
	a.f("DECQ R9")
	a.f("JNZ loop")
	a.ret()
}

// panels writes the packing of several full panels that lie along the memory, which reads whole runs of it:
//
//	func panels512F32x2(dst *float32, panel int, src unsafe.Pointer, stride, k, count int)
//
// dst[q·panel + p·width + r] = src[p·stride + q·width + r] for q < count, p < k, r < width; width is 2·lanes for b, and that of a's
// panels (the part of one register) for x1.
func panels(a *asm, v isa, format string, size, vecs int) {
	width := 2 * v.lanes
	if vecs == 1 {
		width = map[int]int{16: 12, 8: 6}[v.lanes]
	}
	a.text(fmt.Sprintf("panels%s%sx%d", v.name, format, vecs), 48)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ panel+8(FP), DX")
	a.f("MOVQ src+16(FP), SI")
	a.f("MOVQ stride+24(FP), R8")
	a.f("MOVQ k+32(FP), R9")
	a.f("SHLQ $2, DX")
	a.f("SHLQ $%d, R8", size/2)
	if vecs == 1 {
		a.f("MOVQ $%d, CX", width)
		mask(a, v)
		if v.lanes == 8 {
			a.f("VMOVUPS (R10), Y15")
		}
	}
	a.label("row")
	a.f("MOVQ SI, AX")
	a.f("MOVQ DI, BX")
	a.f("MOVQ count+40(FP), CX")
	a.label("panel")
	switch {
	case vecs == 2:
		for i := range 2 {
			load(a, v, format, fmt.Sprintf("%d(AX)", i*v.lanes*size), "", v.r(i))
			a.f("VMOVUPS %s, %d(BX)", v.r(i), i*v.bytes())
		}
	case v.lanes == 16:
		load(a, v, format, "(AX)", "K1", "Z0")
		a.f("VMOVUPS Z0, K1, (BX)")
	default:
		a.f("VMASKMOVPS (AX), Y15, Y0")
		a.f("VMASKMOVPS Y0, Y15, (BX)")
	}
	a.f("ADDQ $%d, AX", width*size)
	a.f("ADDQ DX, BX")
	a.f("DECQ CX")
	a.f("JNZ panel")
	a.f("ADDQ R8, SI")
	a.f("ADDQ $%d, DI", 4*width)
	a.f("DECQ R9")
	a.f("JNZ row")
	a.ret()
}
