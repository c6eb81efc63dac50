package main

import "fmt"

// packNEON writes the packing kernels, as pack does.
func packNEON(a *asm) {
	for _, f := range formats {
		transposeNEON(a, f.name, f.size)
		alongNEON(a, f.name, f.size)
		panelsNEON(a, f.name, f.size, 2)
		panelsNEON(a, f.name, f.size, 3)
	}
}

// transposeNEON writes
//
//	func transpose128F32(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)
//
// dst[(4·k + c)·step + r] = src[r·stride + 4·k + c] for r < width ≤ 4, k < blocks, c < 4.
func transposeNEON(a *asm, format string, size int) {
	a.text("transpose128"+format, 48)
	a.arguments("dst", "R0", "step", "R1", "src", "R6", "stride", "R3", "blocks", "R4", "width", "R5")
	a.f("LSL $2, R1")
	a.f("LSL $%d, R3", size/2)
	for r := 1; r < 4; r++ { // the last row is read again instead of those that are not there
		a.f("CMP $%d, R5", r)
		a.f("CSEL GT, R3, ZR, R3")
		a.f("ADD R3, R%d, R%d", 5+r, 6+r)
	}
	op, bytes := memory(format)
	a.label("loop")
	for r := range 4 {
		a.f("%s.P %d(R%d), F%d", op, bytes, 6+r, r)
		a.widen(format, neon.r(r))
	}
	for h := range 2 { // pairs of rows, then pairs of pairs
		a.f("VTRN1 V%d.S4, V%d.S4, V%d.S4", 2*h+1, 2*h, 4+2*h)
		a.f("VTRN2 V%d.S4, V%d.S4, V%d.S4", 2*h+1, 2*h, 5+2*h)
	}
	for c := range 4 {
		a.f("VTRN%d V%d.D2, V%d.D2, V%d.D2", 1+c/2, 6+c%2, 4+c%2, c)
	}
	a.f("CMP $4, R5")
	a.f("BNE narrow")
	for c := range 4 {
		a.f("FMOVQ F%d, (R0)", c)
		a.f("ADD R1, R0")
	}
	a.label("next")
	a.f("SUBS $1, R4")
	a.f("BNE loop")
	a.f("RET")
	a.label("narrow")
	for c := range 4 {
		a.storeSome(fmt.Sprintf("lane%d", c), neon.r(c), "R0", "R5")
		a.f("ADD R1, R0")
	}
	a.f("JMP next")
}

// alongNEON writes
//
//	func along128F32(dst *float32, step int, src unsafe.Pointer, stride, k, width int)
//
// dst[p·step + r] = src[p·stride + r] for p < k, r < width ≤ 4.
func alongNEON(a *asm, format string, size int) {
	a.text("along128"+format, 48)
	a.arguments("dst", "R0", "step", "R1", "src", "R2", "stride", "R3", "k", "R4", "width", "R5")
	a.f("LSL $2, R1")
	a.f("LSL $%d, R3", size/2)
	a.f("CMP $4, R5")
	a.f("BNE narrow")
	a.label("loop")
	a.loadQuad(format, "(R2)", "V0")
	a.f("FMOVQ F0, (R0)")
	a.f("ADD R3, R2")
	a.f("ADD R1, R0")
	a.f("SUBS $1, R4")
	a.f("BNE loop")
	a.f("RET")
	a.label("narrow")
	a.f("MOVD ZR, R6")
	a.label("lane")
	a.f("ADD R6<<%d, R2, R7", size/2)
	a.loadOne(format, "(R7)", "V0")
	a.f("FMOVS F0, (R0)(R6<<2)")
	a.f("ADD $1, R6")
	a.f("CMP R5, R6")
	a.f("BNE lane")
	a.f("ADD R3, R2")
	a.f("ADD R1, R0")
	a.f("SUBS $1, R4")
	a.f("BNE narrow")
	a.f("RET")
}

// panelsNEON writes the packing of several full panels that lie along the memory, 4·vecs wide: 8 for b, 12 for a.
//
//	func panels128F32x2(dst *float32, panel int, src unsafe.Pointer, stride, k, count int)
func panelsNEON(a *asm, format string, size, vecs int) {
	a.text(fmt.Sprintf("panels128%sx%d", format, vecs), 48)
	a.arguments("dst", "R0", "panel", "R1", "src", "R2", "stride", "R3", "k", "R4", "count", "R5")
	a.f("LSL $2, R1")
	a.f("LSL $%d, R3", size/2)
	op, bytes := memory(format)
	a.label("row")
	a.f("MOVD R2, R6")
	a.f("MOVD R0, R7")
	a.f("MOVD R5, R8")
	a.label("panel")
	for i := range vecs {
		a.f("%s.P %d(R6), F%d", op, bytes, i)
		a.widen(format, neon.r(i))
	}
	a.f("VST1 %s, (R7)", list(0, vecs))
	a.f("ADD R1, R7")
	a.f("SUBS $1, R8")
	a.f("BNE panel")
	a.f("ADD R3, R2")
	a.f("ADD $%d, R0", 16*vecs)
	a.f("SUBS $1, R4")
	a.f("BNE row")
	a.f("RET")
}
