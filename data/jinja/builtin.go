package jinja

import (
	"fmt"
	"math"
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

type filterFunc func(v any, args []any, kw map[string]any) any

// text is a filter of the value as a string.
func text(f func(string) any) filterFunc {
	return func(v any, _ []any, _ map[string]any) any { return f(str(v)) }
}

// filterByName is a function and no map because map, select and reject look filters up themselves.
func filterByName(name string) filterFunc {
	switch name {
	case "map":
		return mapFilter
	case "select", "reject", "selectattr", "rejectattr":
		return func(v any, args []any, kw map[string]any) any { return choose(name, v, args) }
	}
	return simpleFilters[name]
}

var simpleFilters = map[string]filterFunc{
	"safe": func(v any, _ []any, _ map[string]any) any { return v }, "string": text(func(s string) any { return s }),
	"upper": text(func(s string) any { return strings.ToUpper(s) }), "lower": text(func(s string) any { return strings.ToLower(s) }),
	"title": text(func(s string) any { return title(s) }), "capitalize": text(func(s string) any { return capitalize(s) }),
	"e": text(escape), "escape": text(escape), "forceescape": text(escape),
	"trim": func(v any, args []any, kw map[string]any) any {
		return stripped(str(v), argument(args, kw, 0, "chars", nil), true, true)
	},
	"length": func(v any, _ []any, _ map[string]any) any { return length(v) },
	"count":  func(v any, _ []any, _ map[string]any) any { return length(v) },
	"list":   func(v any, _ []any, _ map[string]any) any { return slices.Clone(iterate(v)) },
	"first":  func(v any, _ []any, _ map[string]any) any { return item(slices.Clone(iterate(v)), 0) },
	"last":   func(v any, _ []any, _ map[string]any) any { return item(slices.Clone(iterate(v)), -1) },
	"int": func(v any, args []any, kw map[string]any) any {
		return toInt(v, toInt(argument(args, kw, 0, "default", 0), 0))
	},
	"float": func(v any, args []any, kw map[string]any) any {
		return toFloat(v, toFloat(argument(args, kw, 0, "default", 0.0), 0))
	},
	"abs": func(v any, _ []any, _ map[string]any) any {
		if compare(v, 0) < 0 {
			return arithmetic("-", 0, v)
		}
		return v
	},
	"round":   round,
	"default": defaulted, "d": defaulted,
	"items": func(v any, _ []any, _ map[string]any) any {
		if isA[undefined](v, nil) {
			return []any{}
		}
		return pairs(v)
	},
	"dictsort": func(v any, _ []any, _ map[string]any) any {
		list := pairs(v)
		slices.SortStableFunc(list, func(a, b any) int { return compare(folded(a.(Tuple)[0]), folded(b.(Tuple)[0])) })
		return list
	},
	"replace": func(v any, args []any, kw map[string]any) any {
		n := toInt(argument(args, kw, 2, "count", -1), -1)
		return strings.Replace(str(v), str(argument(args, kw, 0, "old", "")), str(argument(args, kw, 1, "new", "")), n)
	},
	"join":    joinFilter,
	"tojson":  toJSON,
	"indent":  indent,
	"sort":    sortFilter,
	"unique":  unique,
	"reverse": reverse,
	"sum":     sum,
	"min":     extreme(-1), "max": extreme(1),
}

func escape(s string) any {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(s)
}

func title(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		defer func() { start = !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\'' }()
		if start {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, s)
}

func capitalize(s string) string {
	for i, r := range s {
		return string(unicode.ToUpper(r)) + strings.ToLower(s[i+len(string(r)):])
	}
	return s
}

func round(v any, args []any, kw map[string]any) any {
	scale := math.Pow(10, float64(toInt(argument(args, kw, 0, "precision", 0), 0)))
	x := toFloat(v, 0) * scale
	switch argument(args, kw, 1, "method", "common") {
	case "floor":
		return math.Floor(x) / scale
	case "ceil":
		return math.Ceil(x) / scale
	}
	return math.RoundToEven(x) / scale
}

func defaulted(v any, args []any, kw map[string]any) any {
	if isA[undefined](v, nil) || truth(argument(args, kw, 1, "boolean", false)) && !truth(v) {
		return argument(args, kw, 0, "default_value", "")
	}
	return v
}

func pairs(v any) []any {
	d, ok := v.(*Dict)
	if !ok {
		panic(failure("a %s has no items", typeName(v)))
	}
	list := make([]any, len(d.keys))
	for i, k := range d.keys {
		list[i] = Tuple{k, d.vals[k]}
	}
	return list
}

func folded(v any) any {
	if s, ok := v.(string); ok {
		return strings.ToLower(s)
	}
	return v
}

// path is v.a.b for a filter's attribute argument.
func path(v, name any) any {
	if n, ok := name.(int); ok {
		return item(v, n)
	}
	for _, part := range strings.Split(str(name), ".") {
		if n, err := strconv.Atoi(part); err == nil {
			v = item(v, n)
		} else {
			v = item(v, part)
		}
	}
	return v
}

func joinFilter(v any, args []any, kw map[string]any) any {
	var parts []string
	name := argument(args, kw, 1, "attribute", nil)
	for _, x := range iterate(v) {
		if name != nil {
			x = path(x, name)
		}
		parts = append(parts, str(x))
	}
	return strings.Join(parts, str(argument(args, kw, 0, "d", "")))
}

func toJSON(v any, args []any, kw map[string]any) any {
	var b strings.Builder
	indent := toInt(argument(args, kw, 1, "indent", -1), -1)
	if i, ok := kw["indent"]; ok {
		indent = toInt(i, -1)
	}
	dump(&b, v, indent, 0, truth(argument(args, kw, 0, "ensure_ascii", false)), truth(argument(args, kw, 3, "sort_keys", false)))
	return b.String()
}

func indent(v any, args []any, kw map[string]any) any {
	width := argument(args, kw, 0, "width", 4)
	pad, ok := width.(string)
	if !ok {
		pad = strings.Repeat(" ", min(max(toInt(width, 4), 0), maxLength))
	}
	first, blank := truth(argument(args, kw, 1, "first", false)), truth(argument(args, kw, 2, "blank", false))
	lines := strings.Split(str(v), "\n")
	for i, line := range lines {
		if (i > 0 || first) && (line != "" || blank) {
			lines[i] = pad + line
		}
	}
	return strings.Join(lines, "\n")
}

func sortFilter(v any, args []any, kw map[string]any) any {
	list := slices.Clone(iterate(v))
	name, cased := argument(args, kw, 2, "attribute", nil), truth(argument(args, kw, 1, "case_sensitive", false))
	key := func(x any) any {
		if name != nil {
			x = path(x, name)
		}
		if !cased {
			x = folded(x)
		}
		return x
	}
	slices.SortStableFunc(list, func(a, b any) int { return compare(key(a), key(b)) })
	if truth(argument(args, kw, 0, "reverse", false)) {
		slices.Reverse(list)
	}
	return list
}

func unique(v any, args []any, kw map[string]any) any {
	out, seen := []any{}, []any{}
	name := argument(args, kw, 1, "attribute", nil)
	for _, x := range iterate(v) {
		key := x
		if name != nil {
			key = path(x, name)
		}
		if key = folded(key); !contains(seen, key) {
			seen, out = append(seen, key), append(out, x)
		}
	}
	return out
}

func reverse(v any, _ []any, _ map[string]any) any {
	list := slices.Clone(iterate(v))
	slices.Reverse(list)
	if _, ok := v.(string); ok {
		return joinFilter(list, nil, nil)
	}
	return list
}

func sum(v any, args []any, kw map[string]any) any {
	total := argument(args, kw, 1, "start", 0)
	name := argument(args, kw, 0, "attribute", nil)
	for _, x := range iterate(v) {
		if name != nil {
			x = path(x, name)
		}
		total = arithmetic("+", total, x)
	}
	return total
}

func extreme(sign int) filterFunc {
	return func(v any, _ []any, _ map[string]any) any {
		list := iterate(v)
		if len(list) == 0 {
			return undefined{"the extreme of nothing"}
		}
		best := list[0]
		for _, x := range list[1:] {
			if compare(folded(x), folded(best)) == sign {
				best = x
			}
		}
		return best
	}
}

// mapFilter is map("filter", arguments…) or map(attribute="name", default=…).
func mapFilter(v any, args []any, kw map[string]any) any {
	name, byAttribute := kw["attribute"]
	out := []any{}
	for _, x := range iterate(v) {
		if byAttribute {
			if x = path(x, name); isA[undefined](x, nil) {
				x = argument(nil, kw, -1, "default", x)
			}
		} else {
			run := filterByName(str(argument(args, nil, 0, "", "")))
			if run == nil {
				panic(failure("unknown filter %q", str(argument(args, nil, 0, "", ""))))
			}
			x = run(x, args[1:], kw)
		}
		out = append(out, x)
	}
	return out
}

// choose is select, reject, selectattr and rejectattr.
func choose(name string, v any, args []any) any {
	var attr any
	if strings.HasSuffix(name, "attr") {
		attr, args = argument(args, nil, 0, "", ""), args[min(1, len(args)):]
	}
	test := func(x any, _ []any) bool { return truth(x) }
	if len(args) > 0 {
		if test = tests[str(args[0])]; test == nil {
			panic(failure("unknown test %q", str(args[0])))
		}
		args = args[1:]
	}
	out := []any{}
	for _, x := range iterate(v) {
		y := x
		if attr != nil {
			y = path(x, attr)
		}
		if test(y, args) == strings.HasPrefix(name, "select") {
			out = append(out, x)
		}
	}
	return out
}
