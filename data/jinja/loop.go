package jinja

func (p *parser) forStmt() stmt {
	assign := p.targets()
	p.expect("in")
	over := p.tuple(true)
	var test expr
	if p.accept("if") {
		test = p.expr()
	}
	if p.accept("recursive") {
		p.fail("recursive loops are not supported")
	}
	p.end()
	p.loops++
	body := p.block("else", "endfor")
	p.loops--
	var empty block
	if p.accept("else") {
		p.end()
		empty = p.block("endfor")
	}
	p.closing()
	return func(f *frame) signal {
		list := iterate(over(f))
		if test != nil {
			list = keep(f, list, assign, test)
		}
		if len(list) == 0 {
			return empty.run(f)
		}
		last := any(undefined{})
		for i := range list {
			c := f.child()
			c.vars["loop"] = loopVars(list, i, &last)
			assign(c, list[i])
			if body.run(c) == breakLoop {
				break
			}
		}
		return proceed
	}
}

// keep returns the elements that pass a loop's test.
func keep(f *frame, list []any, assign func(*frame, any), test expr) []any {
	var kept []any
	for _, v := range list {
		c := f.child()
		assign(c, v)
		if truth(test(c)) {
			kept = append(kept, v)
		}
	}
	return kept
}

func loopVars(list []any, i int, last *any) *Dict {
	n, d := len(list), &Dict{}
	at := func(j int) any {
		if j < 0 || j >= n {
			return undefined{"a loop's item"}
		}
		return list[j]
	}
	for _, kv := range []struct {
		k string
		v any
	}{{"index", i + 1}, {"index0", i}, {"revindex", n - i}, {"revindex0", n - i - 1}, {"first", i == 0}, {"last", i == n-1},
		{"length", n}, {"depth", 1}, {"depth0", 0}, {"previtem", at(i - 1)}, {"nextitem", at(i + 1)}} {
		d.Set(kv.k, kv.v)
	}
	d.Set("cycle", Func(func(args []any, kw map[string]any) (any, error) {
		if len(args) == 0 || len(kw) > 0 {
			return nil, failure("loop.cycle() takes one or more arguments without names").err
		}
		return args[i%len(args)], nil
	}))
	d.Set("changed", Func(func(args []any, kw map[string]any) (any, error) {
		if len(kw) > 0 {
			return nil, failure("loop.changed() takes no named arguments").err
		}
		same := equal(*last, Tuple(args))
		*last = Tuple(args)
		return !same, nil
	}))
	return d
}
