package main

import "strings"

// vecNEON writes every routine.
func vecNEON(a *asm) {
	for _, rt := range routinesOf(neon) {
		rt.writeNEON(a)
	}
	squaresNEON(a)
}

// writeNEON is write for NEON. What is less than a register goes through the same body element by element, in lane 0: the other lanes are
// loaded as 0 and not stored. R0 counts; the pointers are R1 … R5.
func (rt *routine) writeNEON(a *asm) {
	args := rt.argBytes()
	a.text(rt.name+neon.name, args)
	a.arguments("n", "R0")
	for i, p := range rt.ptrs {
		name, _, _ := strings.Cut(p, " ")
		a.f("MOVD %s+%d(FP), R%d", name, 8+8*i, 1+i)
	}
	l := &lane{asm: a, isa: neon, rt: rt, sizes: make([]int, len(rt.ptrs))}
	for i, s := range rt.scalars {
		r := l.scalar(s)
		a.f("FMOVS %s+%d(FP), %s", s, 8+8*len(rt.ptrs)+4*i, scalar(r))
		a.f("VDUP %s.S[0], %s.S4", r, r)
	}
	for i := range rt.unroll {
		switch rt.reduce {
		case "add":
			a.zero(l.r(i))
		case "max":
			a.literal("negInf", l.r(i))
		}
	}
	if rt.unroll > 1 {
		rt.loopNEON(l, "wide", "narrow", rt.unroll)
		a.label("narrow")
	}
	rt.loopNEON(l, "loop", "tail", 1)
	a.label("tail")
	a.f("CBZ R0, end")
	a.label("one")
	l.masked, l.u = true, 0
	rt.body(l)
	l.advance(1)
	a.f("BNE one")
	a.label("end")
	if rt.reduce != "" {
		reduceNEON(a, rt.reduce, rt.unroll)
		a.f("FMOVS F0, ret+%d(FP)", args-4)
	}
	a.f("RET")
}

// loopNEON runs the body while a full step is left.
func (rt *routine) loopNEON(l *lane, name, done string, steps int) {
	n := steps * l.lanes
	l.f("CMP $%d, R0", n)
	l.f("BLT %s", done)
	l.f("PCALIGN $32")
	l.label(name)
	l.masked = false
	for l.u = range steps {
		rt.body(l)
	}
	l.advance(n)
	l.f("CMP $%d, R0", n)
	l.f("BGE %s", name)
}

// advance moves the pointers by n elements, and sets the flags by what is left.
func (l *lane) advance(n int) {
	for i, size := range l.sizes {
		l.f("ADD $%d, R%d", n*size, 1+i)
	}
	l.f("SUBS $%d, R0", n)
}

// loadNEON is loadAs.
func (l *lane) loadNEON(format, ptr, reg string) {
	mem := l.at(ptr, map[string]int{"F32": 4, "BF16": 2, "F16": 2}[format])
	if l.masked {
		l.loadOne(format, mem, reg)
		return
	}
	l.loadQuad(format, mem, reg)
}

// storeNEON is store.
func (l *lane) storeNEON(reg, ptr string) {
	op := "FMOVQ"
	if l.masked {
		op = "FMOVS"
	}
	l.f("%s %s, %s", op, scalar(reg), l.at(ptr, 4))
}

// deadNEON is dead.
func (l *lane) deadNEON(reg, other string) {
	switch {
	case !l.masked:
	case other == "":
		l.f("FMOVS %s, %s", scalar(reg), scalar(reg)) // clears the rest
	default:
		l.move(other, spare)
		l.f("VMOV %s.S[0], %s.S[0]", reg, spare)
		l.move(spare, reg)
	}
}

// reduceNEON folds the accumulators into F0.
func reduceNEON(a *asm, op string, n int) {
	f := map[string]string{"add": "fadd", "max": "fmaxnm"}[op]
	for i := 1; i < n; i++ {
		a.v3(f, "V0", "V0", neon.r(i))
	}
	a.v3(f+"p", "V0", "V0", "V0")
	a.v3(f+"p", "V0", "V0", "V0")
}

// expNEON is exp; NaN stays NaN, as FMIN and FMAX give it.
func (l *lane) expNEON(x, y, t string) {
	const a, b, low = "V16", "V17", "V18"
	l.v3("fmin", x, x, l.constant("expHi"))
	l.v3("fcmgt", low, l.constant("expLo"), x)
	l.v3("fmax", x, x, literal)
	l.v3("fmul", t, x, l.constant("log2e"))
	l.v2("frintn", t, t)
	l.fma(x, t, l.constant("ln2hi"))
	l.fma(x, t, l.constant("ln2lo"))
	from, to := a, b
	l.literal("c6", from)
	for _, c := range []string{"c5", "c4", "c3", "c2", "one", "one"} {
		l.literal(c, to)
		l.fma(to, from, x)
		from, to = to, from
	}
	l.v2("fcvtns", t, t) // 2ᵗ in two halves, so that 2¹²⁸ is one, too
	l.f("VADD %s.S4, %s.S4, %s.S4", l.constant("bias"), t, t)
	l.f("VADD %s.S4, %s.S4, %s.S4", literal, t, t)
	l.f("VUSHR $1, %s.S4, %s.S4", t, x)
	l.f("VSUB %s.S4, %s.S4, %s.S4", x, t, t)
	for _, half := range []string{x, t} {
		l.f("VSHL $23, %s.S4, %s.S4", half, half)
		l.mul(from, from, half)
	}
	l.zero(y)
	l.f("VBIF %s.B16, %s.B16, %s.B16", low, from, y)
}

// hideNEON is hide.
func (l *lane) hideNEON(doc string) {
	s, far, docs, hidden := l.r(0), l.r(1), l.r(2), l.r(3)
	l.set(hidden, "negInf")
	l.v3("cmhi", far, l.scalar("window"), far) // also where the key is ahead
	l.f("VCMEQ %s.S4, %s.S4, %s.S4", l.scalar(doc), docs, docs)
	l.f("VAND %s.B16, %s.B16, %s.B16", far, docs, docs)
	l.f("VBIF %s.B16, %s.B16, %s.B16", docs, hidden, s)
}

// storeBF16NEON is storeBF16.
func (l *lane) storeBF16NEON(reg, ptr, t, u string) {
	l.f("VUSHR $16, %s.S4, %s.S4", reg, t)
	l.f("VAND %s.B16, %s.B16, %s.B16", l.constant("unit"), t, t)
	l.f("VADD %s.S4, %s.S4, %s.S4", l.constant("half"), t, t)
	l.f("VADD %s.S4, %s.S4, %s.S4", reg, t, t)
	l.f("VORR %s.B16, %s.B16, %s.B16", l.constant("quiet"), reg, u)
	l.v3("fcmeq", spare, reg, reg)
	l.f("VBIF %s.B16, %s.B16, %s.B16", spare, u, t)
	l.f("VUZP2 %s.H8, %s.H8, %s.H8", t, t, t) // the upper halves
	if l.masked {
		l.f("FMOVS %s, R17", scalar(t))
		l.f("MOVH R17, %s", l.at(ptr, 2))
		return
	}
	l.f("FMOVD %s, %s", scalar(t), l.at(ptr, 2))
}

// squaresNEON writes
//
//	func squares128(n int, x *float32) float64
//
// Σ x² of n elements, a multiple of 8 and not 0, in float64.
func squaresNEON(a *asm) {
	a.text("squares128", 24)
	a.arguments("n", "R0", "x", "R1")
	for i := range 4 {
		a.zero(neon.r(i))
	}
	a.label("loop")
	a.f("FLDPQ.P 32(R1), (F4, F5)")
	for i := range 2 {
		a.word(0x0e617800|uint32(4+i)<<5|uint32(6+2*i), "fcvtl v%d.2d, v%d.2s", 6+2*i, 4+i)
		a.word(0x4e617800|uint32(4+i)<<5|uint32(7+2*i), "fcvtl2 v%d.2d, v%d.4s", 7+2*i, 4+i)
	}
	for i := range 4 {
		a.f("VFMLA V%d.D2, V%d.D2, V%d.D2", 6+i, 6+i, i)
	}
	a.f("SUBS $8, R0")
	a.f("BNE loop")
	for i := 1; i < 4; i++ {
		a.word(0x4e60d400|uint32(i)<<16, "fadd v0.2d, v0.2d, v%d.2d", i)
	}
	a.word(0x7e70d800, "faddp d0, v0.2d")
	a.f("FMOVD F0, ret+16(FP)")
	a.f("RET")
}
