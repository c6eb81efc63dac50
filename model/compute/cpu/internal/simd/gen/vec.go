package main

import (
	"fmt"
	"strings"
)

// routine is an elementwise loop or a reduction over n float32s:
//
//	func name(n int, ptrs… *float32, scalars… float32) float32 (with reduce)
//
// body computes one register at the pointers' offset BX. The last, partial register runs the same body under a lane mask: loads give
// 0 in dead lanes, stores leave them alone.
type routine struct {
	name    string
	ptrs    []string
	scalars []string // broadcast to the last registers of the file, in order
	ints    bool     // the scalars are int32
	reduce  string   // "", "add" or "max": accumulators are the first `unroll` registers
	unroll  int
	only    int // the number of lanes that it is for; 0: any
	body    func(l *lane)
}

// lane is one step of a routine: what its body needs to know.
type lane struct {
	*asm
	isa
	rt     *routine
	u      int // number within the unrolled step
	masked bool
	sizes  []int // of the pointers' elements, NEON
}

var pointers = []string{"SI", "DI", "DX", "R8", "R9"}

// scalar is the register of a broadcast scalar.
func (l *lane) scalar(name string) string {
	for i, s := range l.rt.scalars {
		if s == name {
			return l.r(l.top() - i)
		}
	}
	panic(name)
}

// top is the last free register: with 8 lanes the very last holds the mask.
func (l *lane) top() int {
	if l.lanes == 8 {
		return l.regs - 2
	}
	return l.regs - 1
}

func (l *lane) at(ptr string, size int) string {
	for i, p := range l.rt.ptrs {
		if name, _, _ := strings.Cut(p, " "); name == ptr {
			if l.lanes == 4 {
				l.sizes[i] = size
				return fmt.Sprintf("%d(R%d)", l.u*l.lanes*size, 1+i)
			}
			scale := "*2"
			if size == 4 {
				scale = "*4"
			}
			return fmt.Sprintf("%d(%s)(BX%s)", l.u*l.lanes*size, pointers[i], scale)
		}
	}
	panic(ptr)
}

// load sets a register to the next lanes of an operand.
func (l *lane) load(ptr, reg string) { l.loadAs("F32", ptr, reg) }

func (l *lane) loadAs(format, ptr, reg string) {
	if l.lanes == 4 {
		l.loadNEON(format, ptr, reg)
		return
	}
	size := 4
	if format != "F32" {
		size = 2
	}
	mem := l.at(ptr, size)
	switch {
	case !l.masked:
		load(l.asm, l.isa, format, mem, "", reg)
	case l.lanes == 16:
		load(l.asm, l.isa, format, mem, "K1", reg)
	default:
		l.f("VMASKMOVPS %s, Y15, %s", mem, reg)
	}
}

// convert writes VCVTNEPS2BF16 (AVX512_BF16, which Go's assembler does not know): to, the lower half of a register, is from rounded to
// nearest even; subnormal numbers become 0.
func (a *asm) convert(from, to int) {
	p0 := 0xf2 ^ to>>3&1<<7 ^ from>>4&1<<6 ^ from>>3&1<<5 ^ to>>4&1<<4
	a.f("BYTE $0x62; BYTE $0x%02x; BYTE $0x7e; BYTE $0x48; BYTE $0x72; BYTE $0x%02x", p0, 0xc0|to&7<<3|from&7)
}

// storeBF16 rounds a register to nearest even and writes it to an operand; a NaN becomes quiet. t and u are overwritten, and K2 or Y12.
func (l *lane) storeBF16(reg, ptr, t, u string) {
	if l.lanes == 4 {
		l.storeBF16NEON(reg, ptr, t, u)
		return
	}
	l.f("VPSRLD $16, %s, %s", reg, t)
	if l.lanes == 16 {
		l.f("VCMPPS $3, %s, %s, K2", reg, reg) // NaN
		l.f("VPANDD %s, %s, %s", constant("unit"), t, t)
		l.f("VPADDD %s, %s, %s", constant("half"), t, t)
		l.f("VPADDD %s, %s, %s", reg, t, t)
		l.f("VPORD %s, %s, K2, %s", constant("quiet"), reg, t)
		l.f("VPSRLD $16, %s, %s", t, t)
		if l.masked {
			l.f("VPMOVDW %s, K1, %s", t, l.at(ptr, 2))
		} else {
			l.f("VPMOVDW %s, %s", t, l.at(ptr, 2))
		}
		return
	}
	l.f("VPAND %s, %s, %s", constant("unit"), t, t)
	l.f("VPADDD %s, %s, %s", constant("half"), t, t)
	l.f("VPADDD %s, %s, %s", reg, t, t)
	l.f("VCMPPS $3, %s, %s, Y12", reg, reg)
	l.f("VPOR %s, %s, %s", constant("quiet"), reg, u)
	l.f("VBLENDVPS Y12, %s, %s, %s", u, t, t)
	l.f("VPSRLD $16, %s, %s", t, t)
	l.f("VPACKUSDW %s, %s, %s", t, t, t)
	l.f("VPERMQ $8, %s, %s", t, t)
	l.f("VMOVDQU X%s, %s", t[1:], l.at(ptr, 2))
}

// store writes a register to an operand.
func (l *lane) store(reg, ptr string) {
	switch {
	case l.lanes == 4:
		l.storeNEON(reg, ptr)
	case !l.masked:
		l.f("VMOVUPS %s, %s", reg, l.at(ptr, 4))
	case l.lanes == 16:
		l.f("VMOVUPS %s, K1, %s", reg, l.at(ptr, 4))
	default:
		l.f("VMASKMOVPS %s, Y15, %s", reg, l.at(ptr, 4))
	}
}

// dead sets the dead lanes of a register to those of another ("" = 0).
func (l *lane) dead(reg, other string) {
	switch {
	case l.lanes == 4:
		l.deadNEON(reg, other)
	case !l.masked:
	case l.lanes == 16 && other == "":
		l.f("VMOVAPS.Z %s, K1, %s", reg, reg)
	case l.lanes == 16:
		l.f("VBLENDMPS %s, %s, K1, %s", reg, other, reg)
	case other == "":
		l.f("VANDPS Y15, %s, %s", reg, reg)
	default:
		l.f("VBLENDVPS Y15, %s, %s, %s", reg, other, reg)
	}
}

// argBytes is the size of the arguments and the result.
func (rt *routine) argBytes() int {
	n := 8 + 8*len(rt.ptrs) + 4*len(rt.scalars)
	if rt.reduce != "" {
		n = (n+7)/8*8 + 4
	}
	return n
}

// write prints the routine for an instruction set.
func (rt *routine) write(a *asm, v isa) {
	args := rt.argBytes()
	a.text(rt.name+v.name, args)
	a.f("MOVQ n+0(FP), CX")
	for i, p := range rt.ptrs {
		name, _, _ := strings.Cut(p, " ")
		a.f("MOVQ %s+%d(FP), %s", name, 8+8*i, pointers[i])
	}
	l := &lane{asm: a, isa: v, rt: rt}
	for i, s := range rt.scalars {
		a.f("VBROADCASTSS %s+%d(FP), %s", s, 8+8*len(rt.ptrs)+4*i, l.scalar(s))
	}
	for i := range rt.unroll {
		switch rt.reduce {
		case "add":
			a.f("VXORPS %s, %s, %s", v.r(i), v.r(i), v.r(i))
		case "max":
			a.f("VMOVUPS %s, %s", constant("negInf"), v.r(i))
		}
	}
	a.f("XORQ BX, BX")
	if rt.unroll > 1 {
		rt.loop(l, "wide", "narrow", rt.unroll)
		a.label("narrow")
	}
	rt.loop(l, "loop", "tail", 1)
	a.label("tail")
	a.f("TESTQ CX, CX")
	a.f("JZ end")
	mask(a, v)
	if v.lanes == 8 {
		a.f("VMOVUPS (R10), Y15")
	}
	l.masked, l.u = true, 0
	rt.body(l)
	a.label("end")
	if rt.reduce != "" {
		reduce(a, v, rt.reduce, rt.unroll)
		a.f("VMOVSS X0, ret+%d(FP)", args-4)
	}
	a.ret()
}

// declare prints the Go declaration.
func (rt *routine) declare(a *asm, v isa) {
	args := "n int"
	for _, p := range rt.ptrs {
		if !strings.Contains(p, " ") {
			p += " *float32"
		}
		args += ", " + p
	}
	if len(rt.scalars) > 0 {
		args += ", " + strings.Join(rt.scalars, ", ") + map[bool]string{false: " float32", true: " int32"}[rt.ints]
	}
	ret := ""
	if rt.reduce != "" {
		ret = " float32"
	}
	fmt.Fprintf(a, "\n//go:noescape\nfunc %s%s(%s)%s\n", rt.name, v.name, args, ret)
}

// loop runs the body while a full step is left.
func (rt *routine) loop(l *lane, name, done string, steps int) {
	n := steps * l.lanes
	l.f("CMPQ CX, $%d", n)
	l.f("JLT %s", done)
	l.f("PCALIGN $32")
	l.label(name)
	l.masked = false
	for l.u = range steps {
		rt.body(l)
	}
	l.f("ADDQ $%d, BX", n)
	l.f("SUBQ $%d, CX", n)
	l.f("CMPQ CX, $%d", n)
	l.f("JGE %s", name)
}

// reduce folds the accumulators into lane 0 of X0.
func reduce(a *asm, v isa, op string, n int) {
	f := map[string]string{"add": "VADDPS", "max": "VMAXPS"}[op]
	for i := 1; i < n; i++ {
		a.f("%s %s, %s, %s", f, v.r(i), v.r(0), v.r(0))
	}
	if v.lanes == 16 {
		a.f("VEXTRACTF64X4 $1, Z0, Y1")
		a.f("%s Y1, Y0, Y0", f)
	}
	a.f("VEXTRACTF128 $1, Y0, X1")
	a.f("%s X1, X0, X0", f)
	a.f("VPERMILPS $0x0e, X0, X1")
	a.f("%s X1, X0, X0", f)
	a.f("VPERMILPS $0x01, X0, X1")
	a.f("%s X1, X0, X0", f)
}

// constants are replicated over a register's width. c2…c6 are a minimax fit: eʳ = 1 + r + r²·Σ c_k·r^(k−2) on |r| ≤ ½·ln 2, to
// a relative 6e-9.
var constants = []struct {
	name string
	bits uint32
}{
	{"one", 0x3f800000}, {"sign", 0x80000000}, {"negInf", 0xff800000},
	{"log2e", 0x3fb8aa3b}, {"ln2hi", 0xbf317218}, {"ln2lo", 0x3102e308}, // −ln 2 in two parts
	{"c2", 0x3efffffb}, {"c3", 0x3e2aaa35}, {"c4", 0x3d2aae0c}, {"c5", 0x3c092928}, {"c6", 0x3ab434c7},
	{"expHi", 0x42b20000}, {"expLo", 0xc2ae999a}, // 89 and −87.3: e⁸⁹ overflows, and below −87.3 a normal number ends
	{"bias", 127},
	{"unit", 1}, {"half", 0x7fff}, {"quiet", 0x400000}, // of rounding to bfloat16
}

func constant(name string) string {
	for i, c := range constants {
		if c.name == name {
			return fmt.Sprintf("consts<>+%d(SB)", 64*i)
		}
	}
	panic(name)
}

func constantTable(a *asm) {
	a.WriteString("\n")
	for i, c := range constants {
		for j := range 8 {
			fmt.Fprintf(a, "DATA consts<>+%d(SB)/8, $0x%08x%08x\n", 64*i+8*j, c.bits, c.bits)
		}
	}
	fmt.Fprintf(a, "GLOBL consts<>(SB), RODATA|NOPTR, $%d\n", 64*len(constants))
}

// exp sets y = eˣ, and 0 where that would be subnormal (which costs the processor a hundred cycles a register); x and t are
// overwritten, and K2 or Y12. NaN stays NaN, since MIN and MAX give their last operand then.
func (l *lane) exp(x, y, t string) {
	if l.lanes == 4 {
		l.expNEON(x, y, t)
		return
	}
	l.f("VMOVUPS %s, %s", constant("expHi"), y)
	l.f("VMINPS %s, %s, %s", x, y, x)
	l.f("VMOVUPS %s, %s", constant("expLo"), y)
	if l.lanes == 16 {
		l.f("VCMPPS $5, %s, %s, K2", y, x) // not less
	} else {
		l.f("VCMPPS $5, %s, %s, Y12", y, x)
	}
	l.f("VMAXPS %s, %s, %s", x, y, x)
	l.f("VMULPS %s, %s, %s", constant("log2e"), x, t)
	if l.lanes == 16 {
		l.f("VRNDSCALEPS $0, %s, %s", t, t)
	} else {
		l.f("VROUNDPS $0, %s, %s", t, t)
	}
	l.f("VFMADD231PS %s, %s, %s", constant("ln2hi"), t, x)
	l.f("VFMADD231PS %s, %s, %s", constant("ln2lo"), t, x)
	l.f("VMOVUPS %s, %s", constant("c6"), y)
	for _, c := range []string{"c5", "c4", "c3", "c2", "one", "one"} {
		l.f("VFMADD213PS %s, %s, %s", constant(c), x, y)
	}
	if l.lanes == 16 {
		l.f("VSCALEFPS.Z %s, %s, K2, %s", t, y, y)
		return
	}
	l.f("VCVTPS2DQ %s, %s", t, t) // 2ᵗ in two halves, so that 2¹²⁸ is one, too
	l.f("VPSRAD $1, %s, %s", t, x)
	l.f("VPSUBD %s, %s, %s", x, t, t)
	for _, half := range []string{x, t} {
		l.f("VPADDD %s, %s, %s", constant("bias"), half, half)
		l.f("VPSLLD $23, %s, %s", half, half)
		l.f("VMULPS %s, %s, %s", half, y, y)
	}
	l.f("VANDPS Y12, %s, %s", y, y)
}

// sigmoid sets s = σ(g), and rest = 1 − σ(g) = e⁻ᵍ·σ(g); t is overwritten.
func (l *lane) sigmoid(g, s, rest, t string) {
	l.neg(t, g)
	l.exp(t, rest, s)
	l.set(t, "one")
	l.add(s, rest, t)
	l.div(s, t, s)
	l.mul(rest, rest, s)
	l.min(rest, t) // ∞·0 is 1
}
