package jinja

import "slices"

// parameters reads (a, b=1) of a macro.
func (p *parser) parameters() (names []string, defaults []expr) {
	p.expect("(")
	for !p.accept(")") {
		names = append(names, p.name())
		var d expr
		if p.accept("=") {
			d = p.expr()
		}
		defaults = append(defaults, d)
		if !p.is(")") {
			p.expect(",")
		}
	}
	return
}

// macro returns the function of a macro, defined in frame f. args are those that are not named.
func macro(f *frame, name string, names []string, defaults []expr, body block) Func {
	return func(args []any, kw map[string]any) (any, error) {
		if len(args) > len(names) {
			panic(failure("%s() takes %d arguments, not %d", name, len(names), len(args)))
		}
		for _, k := range sortedKeys(kw) {
			if at := slices.Index(names, k); at < 0 && k != "caller" || at >= 0 && at < len(args) {
				panic(failure("%s() takes no argument %q", name, k))
			}
		}
		if f.state.depth++; f.state.depth > maxDepth {
			panic(failure("%s() calls itself more than %d deep", name, maxDepth))
		}
		defer func() { f.state.depth-- }()
		c := f.child()
		for i, n := range names {
			v, ok := kw[n]
			switch {
			case i < len(args):
				v = args[i]
			case ok:
			case defaults[i] != nil:
				v = defaults[i](c)
			default:
				v = undefined{"'" + n + "'"}
			}
			c.vars[n] = v
		}
		c.vars["caller"] = undefined{"'caller'"}
		if v, ok := kw["caller"]; ok {
			c.vars["caller"] = v
		}
		return c.capture(body), nil
	}
}

func (p *parser) macroStmt() stmt {
	name := p.name()
	names, defaults := p.parameters()
	p.end()
	loops := p.loops
	p.loops = 0
	body := p.block("endmacro")
	p.loops = loops
	p.closing()
	return func(f *frame) signal {
		f.vars[name] = macro(f, name, names, defaults, body)
		return proceed
	}
}

func (p *parser) callStmt() stmt {
	var names []string
	var defaults []expr
	if p.is("(") {
		names, defaults = p.parameters()
	}
	called := p.unary(true)
	p.end()
	body := p.block("endcall")
	p.closing()
	return func(f *frame) signal {
		c := f.child()
		c.vars[callerSlot] = macro(f, "caller", names, defaults, body)
		f.out.WriteString(str(called(c)))
		return proceed
	}
}

// callerSlot holds, in the frame of {% call %}, what the call passes as caller.
const callerSlot = " caller"
