package jinja

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

var globals = map[string]any{
	"range": Func(rangeOf),
	"dict": Func(func(args []any, kw map[string]any) (any, error) {
		return dictOf(args, kw), nil
	}),
	"namespace": Func(func(args []any, kw map[string]any) (any, error) {
		return &namespace{dictOf(args, kw)}, nil
	}),
	"raise_exception": Func(func(args []any, _ map[string]any) (any, error) {
		message := "the template refuses this conversation"
		if len(args) > 0 {
			message = str(args[0])
		}
		return nil, Raised{message}
	}),
}

func dictOf(args []any, kw map[string]any) *Dict {
	d := &Dict{}
	if len(args) > 0 {
		if from, ok := args[0].(*Dict); ok {
			for _, k := range from.keys {
				d.Set(k, from.vals[k])
			}
		}
	}
	for _, k := range sortedKeys(kw) {
		d.Set(k, kw[k])
	}
	return d
}

func sortedKeys(kw map[string]any) []string {
	keys := make([]string, 0, len(kw))
	for k := range kw {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func rangeOf(args []any, _ map[string]any) (any, error) {
	var n [3]int
	for i, a := range args {
		v, ok := a.(int)
		if !ok || i > 2 {
			return nil, fmt.Errorf("range() takes one to three integers")
		}
		n[i] = v
	}
	start, stop, step := 0, n[0], 1
	if len(args) > 1 {
		start, stop = n[0], n[1]
	}
	if len(args) > 2 {
		step = n[2]
	}
	if len(args) == 0 || step == 0 {
		return nil, fmt.Errorf("range() takes one to three integers, and no step of 0")
	}
	out := []any{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if out = append(out, i); len(out) > maxLength {
			return nil, fmt.Errorf("range of more than %d numbers", maxLength)
		}
	}
	return out, nil
}

// filters reads | filter and is test.
func (p *parser) filters(e expr) expr {
	for {
		switch {
		case p.accept("|"):
			e = p.filter(e)
		case p.accept("is"):
			e = p.test(e)
		case p.accept("("):
			of, args := e, p.arguments()
			e = func(f *frame) any { return call(f, of(f), args) }
		default:
			return e
		}
	}
}

// filter reads a filter's name and arguments; the | has been read.
func (p *parser) filter(e expr) expr {
	name := p.name()
	run := filterByName(name)
	if run == nil {
		p.fail("unknown filter %q", name)
	}
	var a arguments
	if p.accept("(") {
		a = p.arguments()
	}
	return func(f *frame) any {
		args, kw := a.eval(f)
		return run(e(f), args, kw)
	}
}

// test reads [not] name, with arguments in parentheses or a single one without.
func (p *parser) test(e expr) expr {
	negated := p.accept("not")
	name := p.name()
	run := tests[name]
	if run == nil {
		p.fail("unknown test %q", name)
	}
	var a arguments
	if p.accept("(") {
		a = p.arguments()
	} else if t := p.peek(); t.kind == tString || t.kind == tNumber || t.kind == tOp && (t.text == "[" || t.text == "{") ||
		t.kind == tName && !slices.Contains([]string{"else", "or", "and", "is", "if", "not", "in"}, t.text) {
		a.args, a.starred = []expr{p.postfix(p.primary())}, []bool{false}
	}
	return func(f *frame) any {
		args, _ := a.eval(f)
		return run(e(f), args) != negated
	}
}

func isA[T any](v any, _ []any) bool { _, ok := v.(T); return ok }

func against(op string) func(any, []any) bool {
	return func(v any, args []any) bool { return comparisons[op](v, argument(args, nil, 0, "", undefined{})) }
}

var tests = map[string]func(v any, args []any) bool{
	"defined":   func(v any, _ []any) bool { return !isA[undefined](v, nil) },
	"undefined": isA[undefined],
	"none":      func(v any, _ []any) bool { return v == nil },
	"string":    isA[string],
	"boolean":   isA[bool],
	"integer":   isA[int],
	"float":     isA[float64],
	"number":    func(v any, _ []any) bool { _, _, _, ok := number(v); return ok },
	"mapping":   isA[*Dict],
	"callable":  isA[Func],
	"true":      func(v any, _ []any) bool { return v == true },
	"false":     func(v any, _ []any) bool { return v == false },
	"sequence": func(v any, _ []any) bool {
		_, list := sequence(v)
		return list || isA[string](v, nil) || isA[*Dict](v, nil) || isA[undefined](v, nil)
	},
	"iterable": func(v any, _ []any) bool {
		_, list := sequence(v)
		return list || isA[string](v, nil) || isA[*Dict](v, nil) || isA[undefined](v, nil)
	},
	"odd":         func(v any, _ []any) bool { return arithmetic("%", v, 2) == 1 },
	"even":        func(v any, _ []any) bool { return arithmetic("%", v, 2) == 0 },
	"divisibleby": func(v any, args []any) bool { return arithmetic("%", v, argument(args, nil, 0, "", 0)) == 0 },
	"lower":       func(v any, _ []any) bool { return cased(str(v), unicode.IsUpper, unicode.IsLower) },
	"upper":       func(v any, _ []any) bool { return cased(str(v), unicode.IsLower, unicode.IsUpper) },
	"sameas":      func(v any, args []any) bool { return same(v, argument(args, nil, 0, "", nil)) },
	"in":          against("in"),
	"==":          against("=="), "eq": against("=="), "equalto": against("=="),
	"ne": against("!="), "lt": against("<"), "lessthan": against("<"), "le": against("<="),
	"gt": against(">"), "greaterthan": against(">"), "ge": against(">="),
}

func same(a, b any) bool { return typeName(a) == typeName(b) && equal(a, b) }

func cased(s string, never, some func(rune) bool) bool {
	return strings.IndexFunc(s, never) < 0 && strings.IndexFunc(s, some) >= 0
}

// argument returns an argument by place or name, or its default.
func argument(args []any, kw map[string]any, i int, name string, otherwise any) any {
	if i >= 0 && i < len(args) {
		return args[i]
	}
	if v, ok := kw[name]; ok {
		return v
	}
	return otherwise
}

func toInt(v any, otherwise int) int {
	switch v := v.(type) {
	case int:
		return v
	case bool:
		return map[bool]int{true: 1}[v]
	case float64:
		return int(v)
	case string:
		if n, err := strconv.Atoi(strings.TrimFunc(v, space)); err == nil {
			return n
		}
		if x, err := strconv.ParseFloat(strings.TrimFunc(v, space), 64); err == nil {
			return int(x)
		}
	}
	return otherwise
}

func toFloat(v any, otherwise float64) float64 {
	if s, ok := v.(string); ok {
		if x, err := strconv.ParseFloat(strings.TrimFunc(s, space), 64); err == nil {
			return x
		}
	}
	if x, _, _, ok := number(v); ok {
		return x
	}
	return otherwise
}
