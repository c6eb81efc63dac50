package main

import "slices"

// routines are the vector loops; each says its formula.
func routines() []routine {
	return []routine{
		{ // y += x
			name: "add", ptrs: []string{"y", "x"}, unroll: 1,
			body: func(l *lane) {
				l.load("y", l.r(0))
				l.load("x", l.r(1))
				l.add(l.r(0), l.r(0), l.r(1))
				l.store(l.r(0), "y")
			},
		},
		{ // y += s·x
			name: "axpy", ptrs: []string{"y", "x"}, scalars: []string{"s"}, unroll: 1,
			body: func(l *lane) {
				l.load("y", l.r(0))
				l.load("x", l.r(1))
				l.fma(l.r(0), l.r(1), l.scalar("s"))
				l.store(l.r(0), "y")
			},
		},
		{ // x *= s
			name: "scale", ptrs: []string{"x"}, scalars: []string{"s"}, unroll: 1,
			body: func(l *lane) {
				l.load("x", l.r(0))
				l.mul(l.r(0), l.r(0), l.scalar("s"))
				l.store(l.r(0), "x")
			},
		},
		dot("F32"), dot("BF16"), dot("F16"),
		{ // Σ x·y·z
			name: "dot3", ptrs: []string{"x", "y", "z"}, reduce: "add", unroll: 4,
			body: func(l *lane) {
				t, u := l.r(4), l.r(5)
				l.load("x", t)
				l.load("y", u)
				l.mul(t, t, u)
				l.load("z", u)
				l.fma(l.r(l.u), t, u)
			},
		},
		{ // max x; NaNs do not count
			name: "max", ptrs: []string{"x"}, reduce: "max", unroll: 4,
			body: func(l *lane) {
				l.load("x", l.r(4))
				l.dead(l.r(4), l.r(l.u))
				l.max(l.r(l.u), l.r(4))
			},
		},
		{ // x = exp(x − m), Σ x
			name: "expSum", ptrs: []string{"x"}, scalars: []string{"m"}, reduce: "add", unroll: 2,
			body: func(l *lane) {
				x, y, t := l.r(2), l.r(3), l.r(4)
				l.load("x", x)
				l.sub(x, x, l.scalar("m"))
				l.exp(x, y, t)
				l.dead(y, "")
				l.store(y, "x")
				l.add(l.r(l.u), l.r(l.u), y)
			},
		},
		{ // s = −∞ unless 0 ≤ qpos − kpos < window and kdoc = qdoc
			name: "hide", ptrs: []string{"s", "kpos *int32", "kdoc *int32"}, scalars: []string{"qpos", "qdoc", "window"}, ints: true, unroll: 1,
			body: func(l *lane) {
				far, doc := l.r(1), l.r(2)
				l.load("s", l.r(0))
				l.load("kpos", far)
				l.load("kdoc", doc)
				l.subInt(far, l.scalar("qpos"), far)
				l.hide("qdoc")
				l.store(l.r(0), "s")
			},
		},
		{ // m = max(m, x); NaNs do not count
			name: "maxOf", ptrs: []string{"m", "x"}, unroll: 1,
			body: func(l *lane) {
				l.load("m", l.r(0))
				l.load("x", l.r(1))
				l.max(l.r(0), l.r(1))
				l.store(l.r(0), "m")
			},
		},
		{ // x = exp(x − m)
			name: "expOf", ptrs: []string{"x", "m"}, unroll: 2,
			body: func(l *lane) {
				x, y, t := l.r(3*l.u), l.r(3*l.u+1), l.r(3*l.u+2)
				l.load("x", x)
				l.load("m", t)
				l.sub(x, x, t)
				l.exp(x, y, t)
				l.store(y, "x")
			},
		},
		{ // x = exp(x − m), sum += x
			name: "expAdd", ptrs: []string{"x", "m", "sum"}, unroll: 2,
			body: func(l *lane) {
				x, y, t := l.r(3*l.u), l.r(3*l.u+1), l.r(3*l.u+2)
				l.load("x", x)
				l.load("m", t)
				l.sub(x, x, t)
				l.exp(x, y, t)
				l.store(y, "x")
				l.load("sum", t)
				l.add(t, t, y)
				l.store(t, "sum")
			},
		},
		{ // s = −∞ unless 0 ≤ qpos − kpos < window and kdoc = qdoc
			name: "hideFrom", ptrs: []string{"s", "qpos *int32", "qdoc *int32"}, scalars: []string{"kpos", "kdoc", "window"}, ints: true, unroll: 1,
			body: func(l *lane) {
				far, doc := l.r(1), l.r(2)
				l.load("s", l.r(0))
				l.load("qpos", far)
				l.load("qdoc", doc)
				l.subInt(far, far, l.scalar("kpos"))
				l.hide("kdoc")
				l.store(l.r(0), "s")
			},
		},
		{ // d = s·p·(d − δ)
			name: "softmaxBackOf", ptrs: []string{"d", "p", "delta"}, scalars: []string{"s"}, unroll: 1,
			body: func(l *lane) {
				l.load("d", l.r(0))
				l.load("delta", l.r(2))
				l.load("p", l.r(1))
				l.sub(l.r(0), l.r(0), l.r(2))
				l.mul(l.r(1), l.r(1), l.scalar("s"))
				l.mul(l.r(0), l.r(0), l.r(1))
				l.store(l.r(0), "d")
			},
		},
		{ // d = s·p·(d − δ)
			name: "softmaxBack", ptrs: []string{"d", "p"}, scalars: []string{"delta", "s"}, unroll: 1,
			body: func(l *lane) {
				l.load("d", l.r(0))
				l.load("p", l.r(1))
				l.sub(l.r(0), l.r(0), l.scalar("delta"))
				l.mul(l.r(1), l.r(1), l.scalar("s"))
				l.mul(l.r(0), l.r(0), l.r(1))
				l.store(l.r(0), "d")
			},
		},
		{ // h = silu(g)·u
			name: "silu", ptrs: []string{"h", "gate", "u"}, unroll: 1,
			body: func(l *lane) {
				g, s := l.r(0), l.r(1)
				l.load("gate", g)
				l.sigmoid(g, s, l.r(2), l.r(3))
				l.mul(g, g, s)
				l.load("u", s)
				l.mul(g, g, s)
				l.store(g, "h")
			},
		},
		{ // dg = dh·u·σ·(1 + g·(1−σ)), du = dh·g·σ
			name: "siluBack", ptrs: []string{"dg", "du", "dh", "gate", "u"}, unroll: 1,
			body: func(l *lane) {
				g, s, rest, t, dh := l.r(0), l.r(1), l.r(2), l.r(3), l.r(4)
				l.load("gate", g)
				l.sigmoid(g, s, rest, t)
				l.load("dh", dh)
				l.timesPlus(rest, g, l.constant("one"))
				l.mul(rest, rest, s)
				l.load("u", t)
				l.mul(t, t, dh)
				l.mul(rest, rest, t)
				l.mul(g, g, s)
				l.mul(g, g, dh)
				l.store(rest, "dg")
				l.store(g, "du")
			},
		},
		{ // y = x·rstd·w
			name: "norm", ptrs: []string{"y", "x", "w"}, scalars: []string{"rstd"}, unroll: 1,
			body: func(l *lane) {
				l.load("x", l.r(0))
				l.load("w", l.r(1))
				l.mul(l.r(0), l.r(0), l.scalar("rstd"))
				l.mul(l.r(0), l.r(0), l.r(1))
				l.store(l.r(0), "y")
			},
		},
		normBack("normBack", false), normBack("normBackAdd", true),
		{ // (a, b) = (a·cos − b·sin, b·cos + a·sin), sin times sign
			name: "rotate", ptrs: []string{"a", "b", "cos", "sin"}, scalars: []string{"sign"}, unroll: 1,
			body: func(l *lane) {
				x, y, c, s, t := l.r(0), l.r(1), l.r(2), l.r(3), l.r(4)
				l.load("a", x)
				l.load("b", y)
				l.load("cos", c)
				l.load("sin", s)
				l.mul(s, s, l.scalar("sign"))
				l.mul(t, y, s)
				l.mul(y, y, c)
				l.fma(y, x, s)
				l.timesMinus(x, c, t)
				l.store(x, "a")
				l.store(y, "b")
			},
		},
		adam(),
		{ // Σ x·y, both bfloat16
			name: "dotHalf", ptrs: []string{"x unsafe.Pointer", "y unsafe.Pointer"}, reduce: "add", unroll: 4, only: 16,
			body: func(l *lane) {
				l.loadAs("BF16", "x", l.r(4))
				l.loadAs("BF16", "y", l.r(5))
				l.fma(l.r(l.u), l.r(4), l.r(5))
			},
		},
		widen("BF16"), widen("F16"),
		{ // y = x, rounded to nearest even
			name: "narrowBF16", ptrs: []string{"y unsafe.Pointer", "x"}, unroll: 1,
			body: func(l *lane) {
				if l.masked && l.lanes == 8 {
					return // as in dot
				}
				l.load("x", l.r(0))
				l.storeBF16(l.r(0), "y", l.r(1), l.r(2))
			},
		},
		{ // narrowBF16, but subnormal numbers become 0
			name: "roundBF16", ptrs: []string{"y unsafe.Pointer", "x"}, unroll: 4, only: 16,
			body: func(l *lane) {
				l.load("x", l.r(l.u))
				l.convert(l.u, l.u)
				if l.masked {
					l.f("VMOVDQU16 Y%d, K1, %s", l.u, l.at("y", 2))
				} else {
					l.f("VMOVDQU Y%d, %s", l.u, l.at("y", 2))
				}
			},
		},
	}
}

// widen is y = x, x of the given format.
func widen(format string) routine {
	return routine{
		name: "widen" + format, ptrs: []string{"y", "x unsafe.Pointer"}, unroll: 1,
		body: func(l *lane) {
			if l.masked && l.lanes == 8 {
				return // as in dot
			}
			l.loadAs(format, "x", l.r(0))
			l.store(l.r(0), "y")
		},
	}
}

// hide sets scores, register 0, to −∞ unless 0 ≤ distance, register 1, < window, and document, register 2, is the given scalar.
func (l *lane) hide(doc string) {
	if l.lanes == 4 {
		l.hideNEON(doc)
		return
	}
	s, far, docs, hidden, t := l.r(0), l.r(1), l.r(2), l.r(3), l.r(4)
	l.f("VMOVUPS %s, %s", constant("negInf"), hidden)
	if l.lanes == 16 {
		l.f("VPCMPUD $1, %s, %s, K2", l.scalar("window"), far)
		l.f("VPCMPD $0, %s, %s, K2, K3", l.scalar(doc), docs)
		l.f("VBLENDMPS %s, %s, K3, %s", s, hidden, s)
		return
	}
	l.f("VPCMPEQD %s, %s, %s", l.scalar(doc), docs, docs)
	l.f("VPCMPGTD %s, %s, %s", far, l.scalar("window"), t)
	l.f("VPAND %s, %s, %s", t, docs, docs)
	l.f("VPSRAD $31, %s, %s", far, far) // ones where the key is ahead
	l.f("VPANDN %s, %s, %s", docs, far, docs)
	l.f("VBLENDVPS %s, %s, %s, %s", docs, s, hidden, s)
}

// dot is Σ x·w, w of the given format.
func dot(format string) routine {
	return routine{
		name: "dot" + format, ptrs: []string{"x", "w unsafe.Pointer"}, reduce: "add", unroll: 4,
		body: func(l *lane) {
			if l.masked && l.lanes == 8 && format != "F32" {
				return // the caller has an own loop for the rest of a half-width row
			}
			l.load("x", l.r(4))
			l.loadAs(format, "w", l.r(5))
			l.fma(l.r(l.u), l.r(4), l.r(5))
		},
	}
}

// normBack is dx = rstd·(dy·w − x·mean), or adds it.
func normBack(name string, add bool) routine {
	return routine{
		name: name, ptrs: []string{"dx", "dy", "x", "w"}, scalars: []string{"rstd", "mean"}, unroll: 1,
		body: func(l *lane) {
			d, x := l.r(0), l.r(1)
			l.load("dy", d)
			l.load("w", x)
			l.mul(d, d, x)
			l.load("x", x)
			l.fms(d, x, l.scalar("mean"))
			if add {
				l.load("dx", x)
				l.timesPlus(d, l.scalar("rstd"), x)
			} else {
				l.mul(d, d, l.scalar("rstd"))
			}
			l.store(d, "dx")
		},
	}
}

// adam is ĝ = scale·g, m = b1·m + (1−b1)·ĝ, v = b2·v + (1−b2)·ĝ², p = p·decay − step·m/(√(v·inv2) + eps).
func adam() routine {
	return routine{
		name: "adam", ptrs: []string{"p", "grad", "m", "v"}, unroll: 1,
		scalars: []string{"scale", "b1", "c1", "b2", "c2", "decay", "step", "inv2", "eps"},
		body: func(l *lane) {
			g, m, v, t := l.r(0), l.r(1), l.r(2), l.r(3)
			l.load("grad", g)
			l.load("m", m)
			l.load("v", v)
			l.mul(g, g, l.scalar("scale"))
			l.mul(m, m, l.scalar("b1"))
			l.fma(m, g, l.scalar("c1"))
			l.mul(g, g, g)
			l.mul(v, v, l.scalar("b2"))
			l.fma(v, g, l.scalar("c2"))
			l.store(m, "m")
			l.store(v, "v")
			l.mul(v, v, l.scalar("inv2"))
			l.sqrt(v, v)
			l.add(v, v, l.scalar("eps"))
			l.mul(m, m, l.scalar("step"))
			l.div(m, m, v)
			l.load("p", t)
			l.timesMinus(t, l.scalar("decay"), m)
			l.store(t, "p")
		},
	}
}

// vec writes every routine.
func vec(a *asm, v isa) {
	if v.lanes == 16 {
		constantTable(a)
		maskTable(a)
	}
	for _, rt := range routinesOf(v) {
		rt.write(a, v)
	}
}

// routinesOf are those of an instruction set.
func routinesOf(v isa) []routine {
	return slices.DeleteFunc(routines(), func(rt routine) bool { return rt.only != 0 && rt.only != v.lanes })
}
