package jinja

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
		e = func(f *frame) any { return arithmetic("-", 0, x(f)) }
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
		if n, err := strconv.Atoi(t.text); err == nil {
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

func call(f *frame, fn any, a arguments) any {
	if u, ok := fn.(undefined); ok {
		panic(failure("%s is undefined", u.what))
	}
	run, ok := fn.(Func)
	if !ok {
		panic(failure("a %s cannot be called", typeName(fn)))
	}
	args, kw := a.eval(f)
	if caller, ok := f.vars[callerSlot]; ok {
		if kw == nil {
			kw = map[string]any{}
		}
		kw["caller"] = caller
	}
	v, err := run(args, kw)
	if err != nil {
		panic(&templateError{err: err})
	}
	return v
}

// attribute is v.name: a method or field, else an item.
func attribute(v any, name string) any {
	if m := method(v, name); m != nil {
		return m
	}
	switch v := v.(type) {
	case *Dict:
		if x, ok := v.Get(name); ok {
			return x
		}
	case *namespace:
		if x, ok := v.vars.Get(name); ok {
			return x
		}
	case undefined:
		panic(failure("%s is undefined, so it has no %q", v.what, name))
	}
	return undefined{fmt.Sprintf("'%s object' attribute '%s'", typeName(v), name)}
}

// item is v[key]: an item, else a method.
func item(v, key any) any {
	if u, ok := v.(undefined); ok {
		panic(failure("%s is undefined, so it has no item %s", u.what, repr(key)))
	}
	if d, ok := v.(*Dict); ok {
		if x, ok := d.Get(key); ok {
			return x
		}
	} else if i, ok := key.(int); ok {
		_, isString := v.(string)
		if _, isList := sequence(v); isList || isString {
			list := iterate(v)
			if i < 0 {
				i += len(list)
			}
			if i >= 0 && i < len(list) {
				return list[i]
			}
		}
	}
	if name, ok := key.(string); ok {
		if _, ok := v.(*Dict); !ok {
			return attribute(v, name)
		}
		if m := method(v, name); m != nil {
			return m
		}
	}
	return undefined{fmt.Sprintf("item %s of a %s", repr(key), typeName(v))}
}

// slice is v[a:b:c] by Python's rules.
func slice(f *frame, v any, part [3]expr) any {
	var bound [3]*int
	for i, e := range part {
		if e == nil {
			continue
		}
		switch n := e(f).(type) {
		case nil:
		case int:
			bound[i] = &n
		default:
			panic(failure("slice indices must be integers or None, not %s", typeName(n)))
		}
	}
	if _, ok := v.(*Dict); ok {
		panic(failure("a dict cannot be sliced"))
	}
	out := []any{}
	list := iterate(v)
	for _, i := range indices(len(list), bound[0], bound[1], bound[2]) {
		out = append(out, list[i])
	}
	switch v.(type) {
	case string:
		var b strings.Builder
		for _, r := range out {
			b.WriteString(r.(string))
		}
		return b.String()
	case Tuple:
		return Tuple(out)
	}
	return out
}

// indices are those of [start:stop:step] in n elements; nil stands for an omitted part.
func indices(n int, start, stop, step *int) []int {
	by, lo, hi := 1, 0, n
	if step != nil {
		by = *step
	}
	if by == 0 {
		panic(failure("slice step cannot be zero"))
	}
	clip := func(i, low, high int) int {
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	low, high := 0, n
	if by < 0 {
		lo, hi, low, high = n-1, -1, -1, n-1
	}
	if start != nil {
		lo = clip(*start, low, high)
	}
	if stop != nil {
		hi = clip(*stop, low, high)
	}
	var out []int
	for i := lo; by > 0 && i < hi || by < 0 && i > hi; i += by {
		out = append(out, i)
	}
	return out
}

// arithmetic is Python's a op b; ~ joins as strings.
func arithmetic(op string, a, b any) any {
	if op == "~" {
		return str(a) + str(b)
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(undefined); ok {
			panic(failure("%s is undefined", u.what))
		}
	}
	if s, ok := a.(string); ok && op == "%" {
		return format(s, b)
	}
	fa, na, ia, oka := number(a)
	fb, nb, ib, okb := number(b)
	switch {
	case oka && okb && ia && ib && op != "/":
		return integers(op, na, nb)
	case oka && okb:
		return floats(op, fa, fb)
	case op == "+":
		if v, ok := join(a, b); ok {
			return v
		}
	case op == "*" && okb && ib:
		return repeat(a, nb)
	case op == "*" && oka && ia:
		return repeat(b, na)
	}
	panic(failure("unsupported operand types for %s: %s and %s", op, typeName(a), typeName(b)))
}

func join(a, b any) (any, bool) {
	switch a := a.(type) {
	case string:
		s, ok := b.(string)
		return a + s, ok
	case []any:
		l, ok := b.([]any)
		return append(append([]any{}, a...), l...), ok
	case Tuple:
		t, ok := b.(Tuple)
		return append(append(Tuple{}, a...), t...), ok
	}
	return nil, false
}

// maxLength bounds what repetition and range may make, as Jinja's sandbox does.
const maxLength = 100_000

func repeat(v any, n int) any {
	n = max(n, 0)
	if size := length(v); size > 0 && n > maxLength/size {
		panic(failure("a repetition of more than %d elements", maxLength))
	}
	switch v := v.(type) {
	case string:
		return strings.Repeat(v, n)
	case []any:
		out := []any{}
		for range n {
			out = append(out, v...)
		}
		return out
	}
	panic(failure("a %s cannot be repeated", typeName(v)))
}

func integers(op string, a, b int) any {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		return power(a, b)
	}
	if b == 0 {
		panic(failure("division by zero"))
	}
	quotient, remainder := a/b, a%b
	if remainder != 0 && (remainder < 0) != (b < 0) {
		quotient, remainder = quotient-1, remainder+b
	}
	if op == "%" {
		return remainder
	}
	return quotient
}

func power(a, b int) any {
	if b < 0 {
		return math.Pow(float64(a), float64(b))
	}
	if b > 64 {
		panic(failure("exponent %d is too large", b))
	}
	out := 1
	for range b {
		out *= a
	}
	return out
}

func floats(op string, a, b float64) any {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		return math.Pow(a, b)
	}
	if b == 0 {
		panic(failure("division by zero"))
	}
	switch op {
	case "//":
		return math.Floor(a / b)
	case "%":
		return a - b*math.Floor(a/b)
	}
	return a / b
}
