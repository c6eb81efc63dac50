package main

// Arithmetic of a lane's registers, destination first: a routine's body is written once, and prints for every instruction set. An operand
// that is only read may be a constant.

// op prints d = x∘y.
func (l *lane) op(x86, neon, d, x, y string) {
	if l.lanes == 4 {
		l.v3(neon, d, x, y)
		return
	}
	l.f("%s %s, %s, %s", x86, y, x, d)
}

func (l *lane) add(d, x, y string) { l.op("VADDPS", "fadd", d, x, y) }
func (l *lane) sub(d, x, y string) { l.op("VSUBPS", "fsub", d, x, y) }
func (l *lane) mul(d, x, y string) { l.op("VMULPS", "fmul", d, x, y) }
func (l *lane) div(d, x, y string) { l.op("VDIVPS", "fdiv", d, x, y) }

// subInt is sub of int32.
func (l *lane) subInt(d, x, y string) { l.op("VPSUBD", "sub", d, x, y) }

// fma is d += x·y, fms d −= x·y, rounded once.
func (l *lane) fma(d, x, y string) { l.op("VFMADD231PS", "fmla", d, x, y) }
func (l *lane) fms(d, x, y string) { l.op("VFNMADD231PS", "fmls", d, x, y) }

// timesPlus is d = d·x + y, timesMinus d = d·x − y, rounded once.
func (l *lane) timesPlus(d, x, y string) {
	if l.lanes == 4 {
		l.move(y, spare)
		l.v3("fmla", spare, d, x)
		l.move(spare, d)
		return
	}
	l.f("VFMADD213PS %s, %s, %s", y, x, d)
}

func (l *lane) timesMinus(d, x, y string) {
	if l.lanes == 4 {
		l.v2("fneg", spare, y)
		l.v3("fmla", spare, d, x)
		l.move(spare, d)
		return
	}
	l.f("VFMSUB213PS %s, %s, %s", y, x, d)
}

// max sets d to the greater of d and x; where x is NaN, d stays. min sets d to the lesser; where d is NaN, it becomes x.
func (l *lane) max(d, x string) { l.op("VMAXPS", "fmaxnm", d, x, d) }
func (l *lane) min(d, x string) { l.op("VMINPS", "fminnm", d, d, x) }

func (l *lane) sqrt(d, x string) {
	if l.lanes == 4 {
		l.v2("fsqrt", d, x)
		return
	}
	l.f("VSQRTPS %s, %s", x, d)
}

func (l *lane) neg(d, x string) {
	if l.lanes == 4 {
		l.v2("fneg", d, x)
		return
	}
	l.f("VXORPS %s, %s, %s", constant("sign"), x, d)
}

// set sets a register to a constant.
func (l *lane) set(d, name string) {
	if l.lanes == 4 {
		l.literal(name, d)
		return
	}
	l.f("VMOVUPS %s, %s", constant(name), d)
}

// constant is a constant as an operand, until the next.
func (l *lane) constant(name string) string {
	if l.lanes == 4 {
		l.literal(name, literal)
		return literal
	}
	return constant(name)
}
