package jinja

import (
	"fmt"
	"math"
	"strings"
)

func call(f *frame, fn any, a arguments) any {
	if u, ok := fn.(undefined); ok {
		panic(failure("%s is undefined", u.what))
	}
	if _, ok := fn.(dictFunc); ok {
		args, kw := a.eval(f)
		return dictOf(args, a.names, kw)
	}
	run, ok := fn.(Func)
	if !ok {
		panic(failure("a %s cannot be called", typeName(fn)))
	}
	caller, ok := f.vars[callerSlot]
	delete(f.vars, callerSlot) // it is not for what is called in the arguments
	args, kw := a.eval(f)
	if ok {
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
		return exact(a+b, (a+b > a) == (b > 0) || b == 0)
	case "-":
		return exact(a-b, (a-b < a) == (b > 0) || b == 0)
	case "*":
		return product(a, b)
	case "**":
		return power(a, b)
	}
	if b == 0 {
		panic(failure("division by zero"))
	}
	exact(0, a != math.MinInt || b != -1)
	quotient, remainder := a/b, a%b
	if remainder != 0 && (remainder < 0) != (b < 0) {
		quotient, remainder = quotient-1, remainder+b
	}
	if op == "%" {
		return remainder
	}
	return quotient
}

// exact gives n unless a calculation left 64 bits: Python's integers have no end.
func exact(n int, ok bool) int {
	if !ok {
		panic(failure("an integer beyond 64 bits"))
	}
	return n
}

func product(a, b int) int {
	n := a * b
	return exact(n, a == 0 || n/a == b && (a != -1 || b != math.MinInt))
}

// negative is −v.
func negative(v any) any {
	if x, ok := v.(float64); ok {
		return -x // 0 − x has another sign where x is 0
	}
	return arithmetic("-", 0, v)
}

func power(a, b int) any {
	if b < 0 {
		return math.Pow(float64(a), float64(b))
	}
	if a >= -1 && a <= 1 && b > 2 {
		b = 2 - b%2
	}
	out := 1
	for range b {
		out = product(out, a)
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
