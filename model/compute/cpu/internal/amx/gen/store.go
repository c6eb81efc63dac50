package main

import "fmt"

// turn writes
//
//	func turn(dst unsafe.Pointer, n int)
//
// n tiles of 16×16 dwords, transposed in place.
func turn(a *asm) {
	a.text("turn", 16)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ n+8(FP), CX")
	a.label("tile")
	for i := range 16 {
		a.f("VMOVDQU64 %d(DI), Z%d", 64*i, i)
	}
	square(a)
	for i := range 16 {
		a.f("VMOVDQU64 Z%d, %d(DI)", i, 64*i)
	}
	a.f("ADDQ $%d, DI", tile)
	a.f("DECQ CX")
	a.f("JNZ tile")
	a.ret()
}

// square transposes the 16×16 dwords in Z0…Z15: pairs, pairs of pairs, then the quarters of the registers. It overwrites Z16…Z31.
func square(a *asm) {
	for i := 0; i < 16; i += 2 {
		a.f("VPUNPCKLDQ Z%d, Z%d, Z%d", i+1, i, 16+i)
		a.f("VPUNPCKHDQ Z%d, Z%d, Z%d", i+1, i, 17+i)
	}
	for i := 0; i < 16; i += 4 {
		for h := range 2 {
			a.f("VPUNPCKLQDQ Z%d, Z%d, Z%d", 18+i+h, 16+i+h, i+2*h)
			a.f("VPUNPCKHQDQ Z%d, Z%d, Z%d", 18+i+h, 16+i+h, i+2*h+1)
		}
	}
	// Z(4g+c), quarter q, holds rows 4g…4g+3 of column 4q+c.
	for c := range 4 {
		for h := range 2 { // h: groups 0, 1 or 2, 3
			x, y := 8*h+c, 8*h+4+c
			a.f("VSHUFI32X4 $0x44, Z%d, Z%d, Z%d", y, x, 16+8*h+2*c)
			a.f("VSHUFI32X4 $0xee, Z%d, Z%d, Z%d", y, x, 17+8*h+2*c)
		}
	}
	for c := range 4 {
		for h := range 2 { // columns c, 4+c from the lower quarters, 8+c, 12+c from the upper ones
			x, y := 16+2*c+h, 24+2*c+h
			a.f("VSHUFI32X4 $0x88, Z%d, Z%d, Z%d", y, x, 8*h+c)
			a.f("VSHUFI32X4 $0xdd, Z%d, Z%d, Z%d", y, x, 8*h+4+c)
		}
	}
}

// store writes
//
//	func store32(dst unsafe.Pointer, stride int, src unsafe.Pointer, rows, cols int, alpha, beta float32)
//
// and store16, which rounds to bfloat16: dst [rows,cols] = α·src + β·dst from a block of four tiles, rows of dst stride bytes apart. β = 0
// does not read dst.
func store(a *asm, half bool) {
	name := "store32"
	if half {
		name = "store16"
	}
	a.text(name, 48)
	a.f("MOVQ dst+0(FP), DI")
	a.f("MOVQ stride+8(FP), R8")
	a.f("MOVQ src+16(FP), SI")
	a.f("MOVQ rows+24(FP), CX")
	a.f("MOVQ cols+32(FP), DX")
	lowMask(a, "DX", 1)
	a.f("KSHIFTRD $16, K1, K2")
	a.f("VBROADCASTSS alpha+40(FP), Z4")
	a.f("VBROADCASTSS beta+44(FP), Z5")
	a.f("MOVL beta+44(FP), R11")
	a.f("ADDL R11, R11")
	a.f("MOVQ $16, R10")
	a.label("row")
	for h := range 2 {
		a.f("VMULPS %d(SI), Z4, Z%d", tile*h, h)
	}
	a.f("TESTL R11, R11")
	a.f("JZ set")
	if half {
		a.f("VMOVDQU16.Z (DI), K1, Z6")
		a.f("VEXTRACTI64X4 $1, Z6, Y3")
		a.f("VPMOVZXWD Y6, Z2")
		a.f("VPMOVZXWD Y3, Z3")
		for h := range 2 {
			a.f("VPSLLD $16, Z%d, Z%d", 2+h, 2+h)
		}
	} else {
		for h := range 2 {
			a.f("VMOVUPS.Z %d(DI), K%d, Z%d", 64*h, 1+h, 2+h)
		}
	}
	for h := range 2 {
		a.f("VFMADD231PS Z5, Z%d, Z%d", 2+h, h)
	}
	a.label("set")
	if half {
		a.narrow2(0, 1, 0)
		a.f("VMOVDQU16 Z0, K1, (DI)")
	} else {
		for h := range 2 {
			a.f("VMOVUPS Z%d, K%d, %d(DI)", h, 1+h, 64*h)
		}
	}
	a.f("ADDQ R8, DI")
	a.f("ADDQ $64, SI")
	a.f("DECQ R10")
	a.f("JNZ same")
	a.f("ADDQ $%d, SI", tile)
	a.f("MOVQ $16, R10")
	a.label("same")
	a.f("DECQ CX")
	a.f("JNZ row")
	a.ret()
	if half {
		tables(a)
	}
}

// tables are the orders of quadwords: lanes brings the halves of each lane together, halves does the opposite.
func tables(a *asm) {
	for _, t := range []struct {
		name string
		at   [8]int
	}{{"lanes", [8]int{0, 2, 4, 6, 1, 3, 5, 7}}, {"halves", [8]int{0, 4, 1, 5, 2, 6, 3, 7}}} {
		a.WriteString("\n")
		for i, x := range t.at {
			fmt.Fprintf(a, "DATA %s<>+%d(SB)/8, $%d\n", t.name, 8*i, x)
		}
		fmt.Fprintf(a, "GLOBL %s<>(SB), RODATA|NOPTR, $64\n", t.name)
	}
}
