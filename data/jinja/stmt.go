package jinja

import (
	"slices"
)

// parser turns tokens into functions by recursive descent.
type parser struct {
	tokens     []token
	pos        int
	depth      int
	loops      int
	generation bool
}

const maxDepth = 200

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) take() token {
	t := p.tokens[p.pos]
	if t.kind != tEOF {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	panic(failure(format, args...).at(p.peek().line))
}

// is reports whether the next token is an operator or name with this text.
func (p *parser) is(text string) bool {
	t := p.peek()
	return (t.kind == tOp || t.kind == tName) && t.text == text
}

func (p *parser) accept(text string) bool {
	ok := p.is(text)
	if ok {
		p.pos++
	}
	return ok
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		p.fail("expected %q, found %q", text, p.peek().text)
	}
}

func (p *parser) name() string {
	if p.peek().kind != tName {
		p.fail("expected a name, found %q", p.peek().text)
	}
	return p.take().text
}

func (p *parser) end() {
	if p.peek().kind != tEnd {
		p.fail("unexpected %q in a tag", p.peek().text)
	}
	p.pos++
}

// enter guards against templates that nest without end.
func (p *parser) enter() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested more than %d deep", maxDepth)
	}
	return func() { p.depth-- }
}

// block reads statements up to one of the tags named in until, whose {% and name it takes; none: up to the end.
func (p *parser) block(until ...string) block {
	defer p.enter()()
	var b block
	for {
		t := p.take()
		switch t.kind {
		case tEOF:
			if len(until) > 0 {
				p.fail("the template ends where {%% %s %%} is missing", until[len(until)-1])
			}
			return b
		case tData:
			b = append(b, func(f *frame) signal { f.out.WriteString(t.text); return proceed })
		case tVar:
			e := p.tuple(false)
			p.end()
			b = append(b, located(t.line, func(f *frame) signal { f.out.WriteString(str(e(f))); return proceed }))
		case tBlock:
			if slices.ContainsFunc(until, p.is) {
				return b
			}
			b = append(b, located(t.line, p.statement()))
		default:
			panic("jinja: token outside a tag: " + t.text)
		}
	}
}

// located makes failures of s name their line.
func located(line int, s stmt) stmt {
	return func(f *frame) signal {
		defer func() {
			if e := recover(); e != nil {
				if t, ok := e.(*templateError); ok {
					t.at(line)
				}
				panic(e)
			}
		}()
		return s(f)
	}
}

func (p *parser) statement() stmt {
	switch name := p.name(); name {
	case "if":
		return p.ifStmt()
	case "for":
		return p.forStmt()
	case "set":
		return p.setStmt()
	case "macro":
		return p.macroStmt()
	case "call":
		return p.callStmt()
	case "filter":
		return p.filterStmt()
	case "with":
		return p.withStmt()
	case "generation":
		return p.generationStmt()
	case "do":
		e := p.tuple(false)
		p.end()
		return func(f *frame) signal { e(f); return proceed }
	case "break", "continue":
		if p.loops == 0 {
			p.fail("{%% %s %%} outside a loop", name)
		}
		p.end()
		sig := map[string]signal{"break": breakLoop, "continue": continueLoop}[name]
		return func(*frame) signal { return sig }
	default:
		p.fail("unknown tag {%% %s %%}", name)
		return nil
	}
}

// closing reads the rest of {% endX %}.
func (p *parser) closing() {
	p.name()
	p.end()
}

func (p *parser) ifStmt() stmt {
	var tests []expr
	var bodies []block
	for {
		tests = append(tests, p.tuple(false))
		p.end()
		bodies = append(bodies, p.block("elif", "else", "endif"))
		if !p.accept("elif") {
			break
		}
	}
	var other block
	if p.accept("else") {
		p.end()
		other = p.block("endif")
	}
	p.closing()
	return func(f *frame) signal {
		for i, test := range tests {
			if truth(test(f)) {
				return bodies[i].run(f)
			}
		}
		return other.run(f)
	}
}

// targets reads what a for or set assigns to: a, or a, b, or ns.a.
func (p *parser) targets() func(f *frame, v any) {
	paren := p.accept("(")
	var sets []func(f *frame, v any)
	single := true
	for {
		sets = append(sets, p.target())
		if !p.accept(",") {
			break
		}
		if single = false; p.peek().kind != tName {
			break
		}
	}
	if paren {
		p.expect(")")
	}
	if single {
		return sets[0]
	}
	return func(f *frame, v any) {
		list := iterate(v)
		if len(list) != len(sets) {
			panic(failure("cannot unpack %d values into %d names", len(list), len(sets)))
		}
		for i, set := range sets {
			set(f, list[i])
		}
	}
}

func (p *parser) target() func(f *frame, v any) {
	name := p.name()
	if !p.accept(".") {
		return func(f *frame, v any) { f.vars[name] = v }
	}
	field := p.name()
	return func(f *frame, v any) {
		ns, ok := f.get(name).(*namespace)
		if !ok {
			panic(failure("cannot assign to %s.%s: %s is no namespace", name, field, name))
		}
		ns.vars.Set(field, v)
	}
}

func (p *parser) setStmt() stmt {
	assign := p.targets()
	if p.accept("=") {
		e := p.tuple(false)
		p.end()
		return func(f *frame) signal { assign(f, e(f)); return proceed }
	}
	value := func(f *frame) any { return f.get(" body") }
	for p.accept("|") {
		value = p.filter(value)
	}
	p.end()
	body := p.block("endset")
	p.closing()
	return func(f *frame) signal {
		c := f.child()
		c.vars[" body"] = f.capture(body)
		assign(f, value(c))
		return proceed
	}
}

func (p *parser) filterStmt() stmt {
	value := p.filter(func(f *frame) any { return f.get(" body") })
	for p.accept("|") {
		value = p.filter(value)
	}
	p.end()
	body := p.block("endfilter")
	p.closing()
	return func(f *frame) signal {
		c := f.child()
		c.vars[" body"] = f.capture(body)
		f.out.WriteString(str(value(c)))
		return proceed
	}
}

func (p *parser) withStmt() stmt {
	var sets []func(*frame, any)
	var values []expr
	for p.peek().kind != tEnd {
		sets = append(sets, p.target())
		p.expect("=")
		values = append(values, p.expr())
		if !p.accept(",") {
			break
		}
	}
	p.end()
	body := p.block("endwith")
	p.closing()
	return func(f *frame) signal {
		c := f.child()
		for i, set := range sets {
			set(c, values[i](f))
		}
		return body.run(c)
	}
}

// generationStmt remembers where the body's output lies, if it goes to the text itself. Blocks in it are part of it.
func (p *parser) generationStmt() stmt {
	p.end()
	p.generation = true
	body := p.block("endgeneration")
	p.closing()
	return func(f *frame) signal {
		start, before := f.out.Len(), len(f.state.spans)
		sig := body.run(f.child())
		if f.out == f.state.root {
			f.state.spans = append(f.state.spans[:before], Span{start, f.out.Len()})
		}
		return sig
	}
}
