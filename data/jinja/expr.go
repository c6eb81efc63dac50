package jinja

import (
	"errors"
	"strconv"
)

// tuple reads a, or a, b as a tuple; bare stops before `if`, as a loop's list does.
func (p *parser) tuple(bare bool) expr {
	read := p.expr
	if bare {
		read = p.or
	}
	first := read()
	if !p.is(",") {
		return first
	}
	list := []expr{first}
	for p.accept(",") {
		if t := p.peek(); t.kind == tEnd || t.text == ")" && t.kind == tOp {
			break
		}
		list = append(list, read())
	}
	return func(f *frame) any { return Tuple(all(f, list)) }
}

func all(f *frame, list []expr) []any {
	out := make([]any, len(list))
	for i, e := range list {
		out[i] = e(f)
	}
	return out
}

// expr reads a if b else c.
func (p *parser) expr() expr {
	defer p.enter()()
	e := p.or()
	for p.accept("if") {
		yes, test := e, p.or()
		no := func(*frame) any { return undefined{"the value of an if without else"} }
		if p.accept("else") {
			no = p.expr()
		}
		e = func(f *frame) any {
			if truth(test(f)) {
				return yes(f)
			}
			return no(f)
		}
	}
	return e
}

func (p *parser) or() expr {
	e := p.and()
	for p.accept("or") {
		a, b := e, p.and()
		e = func(f *frame) any {
			if v := a(f); truth(v) {
				return v
			}
			return b(f)
		}
	}
	return e
}

func (p *parser) and() expr {
	e := p.not()
	for p.accept("and") {
		a, b := e, p.not()
		e = func(f *frame) any {
			if v := a(f); !truth(v) {
				return v
			}
			return b(f)
		}
	}
	return e
}

func (p *parser) not() expr {
	defer p.enter()()
	if p.accept("not") {
		e := p.not()
		return func(f *frame) any { return !truth(e(f)) }
	}
	return p.compare()
}

var comparisons = map[string]func(a, b any) bool{
	"==":     equal,
	"!=":     func(a, b any) bool { return !equal(a, b) },
	"<":      func(a, b any) bool { return compare(a, b) < 0 },
	"<=":     func(a, b any) bool { return compare(a, b) <= 0 },
	">":      func(a, b any) bool { return compare(a, b) > 0 },
	">=":     func(a, b any) bool { return compare(a, b) >= 0 },
	"in":     func(a, b any) bool { return contains(b, a) },
	"not in": func(a, b any) bool { return !contains(b, a) },
}

// compare reads a < b < c, which is a < b and b < c.
func (p *parser) compare() expr {
	first := p.sum()
	var ops []func(a, b any) bool
	var rest []expr
	for {
		t := p.peek()
		if p.is("not") && p.tokens[p.pos+1].text == "in" && p.tokens[p.pos+1].kind == tName {
			p.pos++
			t.text = "not in"
		}
		op := comparisons[t.text]
		if op == nil || t.kind != tOp && t.kind != tName {
			break
		}
		p.pos++
		ops, rest = append(ops, op), append(rest, p.sum())
	}
	if len(ops) == 0 {
		return first
	}
	return func(f *frame) any {
		a := first(f)
		for i, op := range ops {
			b := rest[i](f)
			if !op(a, b) {
				return false
			}
			a = b
		}
		return true
	}
}

// binary reads operands joined by the given operators, from the left.
func (p *parser) binary(operand func() expr, ops ...string) expr {
	e := operand()
	for {
		op := ""
		for _, o := range ops {
			if p.peek().kind == tOp && p.accept(o) {
				op = o
				break
			}
		}
		if op == "" {
			return e
		}
		a, b := e, operand()
		e = func(f *frame) any { return arithmetic(op, a(f), b(f)) }
	}
}

func (p *parser) sum() expr     { return p.binary(p.concat, "+", "-") }
func (p *parser) concat() expr  { return p.binary(p.product, "~") }
func (p *parser) product() expr { return p.binary(p.power, "*", "//", "/", "%") }
func (p *parser) power() expr {
	return p.binary(func() expr { return p.unary(true) }, "**")
}

// unary reads −x, +x or a primary with what follows it.
func (p *parser) unary(filters bool) expr {
	defer p.enter()()
	var e expr
	switch {
	case p.peek().kind == tOp && p.accept("-"):
		x := p.unary(false)
		e = func(f *frame) any { return negative(x(f)) }
	case p.peek().kind == tOp && p.accept("+"):
		x := p.unary(false)
		e = func(f *frame) any { return arithmetic("+", 0, x(f)) }
	default:
		e = p.primary()
	}
	e = p.postfix(e)
	if filters {
		e = p.filters(e)
	}
	return e
}

func constant(v any) expr { return func(*frame) any { return v } }

func (p *parser) primary() expr {
	t := p.take()
	switch t.kind {
	case tString:
		for p.peek().kind == tString {
			t.text += p.take().text
		}
		return constant(t.text)
	case tNumber:
		n, err := strconv.Atoi(t.text)
		if errors.Is(err, strconv.ErrRange) {
			p.fail("the integer %s is beyond 64 bits", t.text)
		} else if err == nil {
			return constant(n)
		}
		x, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			p.fail("malformed number %q", t.text)
		}
		return constant(x)
	case tName:
		switch t.text {
		case "true", "True":
			return constant(true)
		case "false", "False":
			return constant(false)
		case "none", "None":
			return constant(nil)
		}
		return func(f *frame) any { return f.get(t.text) }
	case tOp:
		switch t.text {
		case "(":
			return p.parenthesis()
		case "[":
			list := p.list("]")
			return func(f *frame) any { return all(f, list) }
		case "{":
			return p.dict()
		}
	}
	p.pos--
	p.fail("unexpected %q", t.text)
	return nil
}

func (p *parser) parenthesis() expr {
	if p.accept(")") {
		return constant(Tuple{})
	}
	e := p.tuple(false)
	p.expect(")")
	return e
}

func (p *parser) list(closing string) []expr {
	var list []expr
	for !p.accept(closing) {
		list = append(list, p.expr())
		if !p.is(closing) {
			p.expect(",")
		}
	}
	return list
}

func (p *parser) dict() expr {
	var keys, vals []expr
	for !p.accept("}") {
		keys = append(keys, p.expr())
		p.expect(":")
		vals = append(vals, p.expr())
		if !p.is("}") {
			p.expect(",")
		}
	}
	return func(f *frame) any {
		d := &Dict{}
		for i, k := range keys {
			key := k(f)
			if !hashable(key) {
				panic(failure("a %s cannot be a key", typeName(key)))
			}
			d.Set(key, vals[i](f))
		}
		return d
	}
}

// postfix reads .name, [item], [a:b:c] and (arguments).
func (p *parser) postfix(e expr) expr {
	for p.peek().kind == tOp {
		of := e
		switch {
		case p.accept("."):
			t := p.take()
			if t.kind != tName && t.kind != tNumber {
				p.pos--
				p.fail("expected a name after '.', found %q", t.text)
			}
			if n, err := strconv.Atoi(t.text); err == nil {
				e = func(f *frame) any { return item(of(f), n) }
				continue
			}
			e = func(f *frame) any { return attribute(of(f), t.text) }
		case p.accept("["):
			e = p.subscript(of)
		case p.accept("("):
			args := p.arguments()
			e = func(f *frame) any { return call(f, of(f), args) }
		default:
			return e
		}
	}
	return e
}

func (p *parser) subscript(of expr) expr {
	var part [3]expr
	colons := 0
	for !p.accept("]") {
		if p.accept(":") {
			if colons++; colons > 2 {
				p.fail("a slice has three parts at most")
			}
			continue
		}
		if part[colons] != nil {
			p.fail("expected ']', found %q", p.peek().text)
		}
		part[colons] = p.tuple(false)
	}
	if colons > 0 {
		return func(f *frame) any { return slice(f, of(f), part) }
	}
	if part[0] == nil {
		p.fail("empty index")
	}
	return func(f *frame) any { return item(of(f), part[0](f)) }
}

// arguments of a call.
type arguments struct {
	args    []expr
	starred []bool
	names   []string
	named   []expr
}

func (p *parser) arguments() (a arguments) {
	for !p.accept(")") {
		if p.peek().kind == tName && p.tokens[p.pos+1].kind == tOp && p.tokens[p.pos+1].text == "=" {
			a.names = append(a.names, p.name())
			p.expect("=")
			a.named = append(a.named, p.expr())
		} else {
			a.starred = append(a.starred, p.accept("*"))
			a.args = append(a.args, p.expr())
		}
		if !p.is(")") {
			p.expect(",")
		}
	}
	return a
}

func (a arguments) eval(f *frame) (args []any, kw map[string]any) {
	for i, e := range a.args {
		if a.starred[i] {
			args = append(args, iterate(e(f))...)
		} else {
			args = append(args, e(f))
		}
	}
	for i, e := range a.named {
		if kw == nil {
			kw = map[string]any{}
		}
		kw[a.names[i]] = e(f)
	}
	return
}
