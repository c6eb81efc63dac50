package main

import "fmt"

// Offsets of the fields of Strip.
const (
	offN, offK, offA, offAStep, offB, offBStep, offC, offAdd = 0, 8, 16, 24, 32, 40, 48, 56
	offNext, offApart, offPerStep, offPerPanel               = 64, 72, 80, 88
)

// tile is the size of one tile in bytes; half of a step of a panel.
const tile = 1024

// strips writes the products of panels: by tiles for every number of parts and halves, and by pairs.
func strips(a *asm) {
	config(a)
	for _, p := range [][2]int{{1, 1}, {1, 3}, {3, 1}, {3, 3}} {
		for _, h := range [][2]int{{2, 2}, {2, 1}, {1, 2}, {1, 1}} {
			for _, moves := range []string{"a", "b"} {
				strip(a, p[0], p[1], h[0], h[1], moves)
			}
		}
	}
	pairs(a)
}

// config is the palette: eight tiles of 16 rows of 64 bytes.
func config(a *asm) {
	a.WriteString("\nDATA config<>+0(SB)/8, $1\n")
	for i := 8; i < 64; i += 8 {
		var v uint64
		switch {
		case i >= 16 && i < 32:
			v = 0x0040004000400040
		case i == 48:
			v = 0x1010101010101010
		}
		fmt.Fprintf(a, "DATA config<>+%d(SB)/8, $0x%016x\n", i, v)
	}
	a.WriteString("GLOBL config<>(SB), RODATA|NOPTR, $64\n")
}

// terms are the pairs of parts whose products make a product of numbers in so many parts, in the order in which they are added: a pair
// shares a part with the one before it where it can.
func terms(pa, pb int) [][2]int {
	switch {
	case pa == 3 && pb == 3:
		return [][2]int{{0, 2}, {0, 1}, {0, 0}, {2, 0}, {1, 0}, {1, 1}}
	case pa == 3:
		return [][2]int{{2, 0}, {1, 0}, {0, 0}}
	case pb == 3:
		return [][2]int{{0, 2}, {0, 1}, {0, 0}}
	}
	return [][2]int{{0, 0}}
}

// strip writes
//
//	func strip33x22a(s *Strip)
//
// for pa and pb parts, as many halves of rows and columns as there are, and one side, a or b, that moves: its panels come from the second
// cache and leave the first one to the other side's. TMM0…3 hold c, TMM4, 5 the halves of a, TMM6, 7 those of b.
func strip(a *asm, pa, pb, rows, cols int, moves string) {
	loadA, loadB := a.tileLoad, a.tileLoad
	if moves == "a" {
		loadA = a.tileStream
	} else {
		loadB = a.tileStream
	}
	a.text(fmt.Sprintf("strip%d%dx%d%d%s", pa, pb, rows, cols, moves), 8)
	a.f("MOVQ s+0(FP), AX")
	a.f("LEAQ config<>(SB), DX")
	a.tileConfig("DX")
	a.f("MOVQ $64, R8")
	for _, r := range []struct {
		off int
		reg string
	}{{offN, "CX"}, {offA, "R12"}, {offB, "R13"}, {offC, "BX"}, {offNext, "R9"}, {offApart, "R11"}} {
		a.f("MOVQ %d(AX), %s", r.off, r.reg)
	}
	a.label("panel")
	a.f("MOVQ R12, SI")
	a.f("MOVQ R13, DI")
	a.f("MOVQ %d(AX), R10", offK)
	a.f("CMPQ %d(AX), $0", offAdd)
	a.f("JNE add")
	each(rows, cols, func(i, j int) { a.tileZero(2*i + j) })
	a.f("JMP begin")
	a.label("add")
	each(rows, cols, func(i, j int) { a.tileLoad(2*i+j, "BX", "R8", tile*(2*i+j)) })
	a.label("begin")
	a.f("PCALIGN $32")
	a.label("step")
	a.f("PREFETCHT1 (R9)")
	a.f("PREFETCHT1 (R9)(R11*1)")
	if pa+pb > 2 {
		a.f("PREFETCHT1 64(R9)")
		a.f("PREFETCHT1 64(R9)(R11*1)")
	}
	a.f("ADDQ %d(AX), R9", offPerStep)
	inA, inB := -1, -1
	for _, t := range terms(pa, pb) {
		if inA != t[0] {
			for i := range rows {
				loadA(4+i, "SI", "R8", tile*(2*t[0]+i))
			}
		}
		for j := range cols {
			if inB != t[1] {
				loadB(6+j, "DI", "R8", tile*(2*t[1]+j))
			}
			for i := range rows {
				a.tileDot(2*i+j, 4+i, 6+j)
			}
		}
		inA, inB = t[0], t[1]
	}
	a.f("ADDQ $%d, SI", 2*tile*pa)
	a.f("ADDQ $%d, DI", 2*tile*pb)
	a.f("DECQ R10")
	a.f("JNZ step")
	each(rows, cols, func(i, j int) { a.tileStore(2*i+j, "BX", "R8", tile*(2*i+j)) })
	a.f("ADDQ %d(AX), R12", offAStep)
	a.f("ADDQ %d(AX), R13", offBStep)
	a.f("ADDQ %d(AX), R9", offPerPanel)
	a.f("ADDQ $%d, BX", 4*tile)
	a.f("DECQ CX")
	a.f("JNZ panel")
	a.tileRelease()
	a.ret()
}

func each(rows, cols int, f func(i, j int)) {
	for i := range rows {
		for j := range cols {
			f(i, j)
		}
	}
}

// pairs writes
//
//	func pairs(s *Strip)
//
// strip11x22 by VDPBF16PS: 8 rows of a block at a time in Z0…15, a row's pairs of b in Z16, 17.
func pairs(a *asm) {
	a.text("pairs", 8)
	a.f("MOVQ s+0(FP), AX")
	for _, r := range []struct {
		off int
		reg string
	}{{offN, "CX"}, {offA, "R12"}, {offB, "R13"}, {offC, "BX"}} {
		a.f("MOVQ %d(AX), %s", r.off, r.reg)
	}
	a.label("panel")
	a.f("MOVQ R12, R9")
	a.f("MOVQ $4, R11")
	a.label("rows")
	a.f("MOVQ R9, SI")
	a.f("MOVQ R13, DI")
	a.f("MOVQ %d(AX), R10", offK)
	a.f("CMPQ %d(AX), $0", offAdd)
	a.f("JNE add")
	for i := range 16 {
		a.f("VPXORD Z%d, Z%d, Z%d", i, i, i)
	}
	a.f("JMP begin")
	a.label("add")
	for i := range 16 {
		a.f("VMOVUPS %d(BX), Z%d", 64*(i/2)+tile*(i%2), i)
	}
	a.label("begin")
	a.f("PCALIGN $32")
	a.label("step")
	a.f("MOVQ $4, DX")
	a.label("quarter")
	for p := range 4 {
		for j := range 2 {
			a.f("VMOVUPS %d(DI), Z%d", 64*p+tile*j, 16+2*(p%2)+j)
		}
		for i := range 8 {
			x := 20 + i%4
			a.f("VPBROADCASTD %d(SI), Z%d", 64*i+4*p, x)
			for j := range 2 {
				a.pairDot(16+2*(p%2)+j, x, 2*i+j)
			}
		}
	}
	a.f("ADDQ $16, SI")
	a.f("ADDQ $256, DI")
	a.f("DECQ DX")
	a.f("JNZ quarter")
	a.f("ADDQ $%d, SI", 2*tile-64)
	a.f("ADDQ $%d, DI", tile)
	a.f("DECQ R10")
	a.f("JNZ step")
	for i := range 16 {
		a.f("VMOVUPS Z%d, %d(BX)", i, 64*(i/2)+tile*(i%2))
	}
	a.f("ADDQ $512, R9")
	a.f("ADDQ $512, BX")
	a.f("CMPQ R11, $3")
	a.f("JNE same")
	a.f("ADDQ $%d, BX", tile)
	a.label("same")
	a.f("DECQ R11")
	a.f("JNZ rows")
	a.f("ADDQ $%d, BX", tile)
	a.f("ADDQ %d(AX), R12", offAStep)
	a.f("ADDQ %d(AX), R13", offBStep)
	a.f("DECQ CX")
	a.f("JNZ panel")
	a.ret()
}
