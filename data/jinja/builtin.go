package jinja

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

var globals = map[string]any{
	"range": Func(rangeOf),
	"dict":  dictFunc{},
	"namespace": Func(func(args []any, kw map[string]any) (any, error) {
		return &namespace{dictOf(args, sortedKeys(kw), kw)}, nil
	}),
	"raise_exception": Func(func(args []any, kw map[string]any) (any, error) {
		signature("message").check("raise_exception()", args, kw)
		return nil, Raised{str(argument(args, kw, 0, "message", ""))}
	}),
}

// dictFunc is dict(), for which alone the order of its named arguments counts.
type dictFunc struct{}

// dictOf is dict() of a dictionary or pairs, and of names.
func dictOf(args []any, names []string, kw map[string]any) *Dict {
	d := &Dict{}
	signature("[-]").check("dict()", args, nil)
	if len(args) > 0 {
		list, _ := sequence(args[0])
		if _, ok := args[0].(*Dict); ok {
			list = pairs(args[0])
		} else if list == nil {
			panic(failure("dict() takes a dictionary or pairs, not a %s", typeName(args[0])))
		}
		for _, x := range list {
			pair := iterate(x)
			if len(pair) != 2 || !hashable(pair[0]) {
				panic(failure("dict() of %s, which is no key and value", repr(x)))
			}
			d.Set(pair[0], pair[1])
		}
	}
	for _, k := range names {
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

func rangeOf(args []any, kw map[string]any) (any, error) {
	signature("- [-] [-]").check("range()", args, kw)
	var n [3]int
	for i, a := range args {
		v, ok := a.(int)
		if !ok {
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
	if step == 0 {
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
	run := testByName(name)
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
		args, kw := a.eval(f)
		if len(kw) > 0 {
			panic(failure("the test %s takes no named arguments", name))
		}
		return run(e(f), args) != negated
	}
}

// testByName is a test that checks its arguments; nil: there is none.
func testByName(name string) func(v any, args []any) bool {
	run := tests[name]
	if run == nil {
		return nil
	}
	return func(v any, args []any) bool {
		testArguments[name].check("the test "+name, args, nil)
		return run(v, args)
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
	"callable":  func(v any, _ []any) bool { return isA[Func](v, nil) || isA[dictFunc](v, nil) },
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
	"lower":       func(v any, _ []any) bool { return cased(str(v), isLower, isUpper) },
	"upper":       func(v any, _ []any) bool { return cased(str(v), isUpper, isLower) },
	"sameas":      func(v any, args []any) bool { return same(v, argument(args, nil, 0, "", nil)) },
	"in":          against("in"),
	"==":          against("=="), "eq": against("=="), "equalto": against("=="),
	"ne": against("!="), "lt": against("<"), "lessthan": against("<"), "le": against("<="),
	"gt": against(">"), "greaterthan": against(">"), "ge": against(">="),
}

func same(a, b any) bool { return typeName(a) == typeName(b) && equal(a, b) }

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

// whole is an argument that must be an integer.
func whole(v any) int {
	_, n, isInt, _ := number(v)
	if !isInt {
		panic(failure("an argument is a %s and must be an integer", typeName(v)))
	}
	return n
}

// truncated is x without its fraction. Python's integers have no end, ours do, and must not be wrong.
func truncated(x float64) int {
	if !(math.Abs(x) < 1<<63) {
		panic(failure("the integer %g is beyond 64 bits", x))
	}
	return int(x)
}

// toInt is Python's int(v), and of text that is a number with a fraction, as Jinja's filter.
func toInt(v any) (n int, ok bool) {
	s, isText := v.(string)
	if !isText {
		x, n, isInt, ok := number(v)
		if ok && !isInt && !math.IsNaN(x) {
			n = truncated(x)
		}
		return n, ok && !math.IsNaN(x)
	}
	s = strings.TrimFunc(s, space)
	n, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) {
		panic(failure("the integer %s is beyond 64 bits", s))
	} else if err == nil {
		return n, true
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0, false
	}
	return truncated(x), true
}

func toFloat(v any) (x float64, ok bool) {
	if s, isText := v.(string); isText {
		x, err := strconv.ParseFloat(strings.TrimFunc(s, space), 64)
		return x, err == nil
	}
	x, _, _, ok = number(v)
	return x, ok
}
