package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

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
		return func(v any, args []any, kw map[string]any) any { return choose(name, v, args, kw) }
	}
	run := simpleFilters[name]
	if run == nil {
		return nil
	}
	return func(v any, args []any, kw map[string]any) any {
		filterArguments[name].check("the filter "+name, args, kw)
		return run(v, args, kw)
	}
}

var simpleFilters = map[string]filterFunc{
	"safe": func(v any, _ []any, _ map[string]any) any { return v }, "string": text(func(s string) any { return s }),
	"upper": text(func(s string) any { return upper(s) }), "lower": text(func(s string) any { return lower(s) }),
	"title": text(func(s string) any { return titleFilter(s) }), "capitalize": text(func(s string) any { return capitalize(s) }),
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
		if n, ok := toInt(v); ok {
			return n
		}
		return argument(args, kw, 0, "default", 0)
	},
	"float": func(v any, args []any, kw map[string]any) any {
		if x, ok := toFloat(v); ok {
			return x
		}
		return argument(args, kw, 0, "default", 0.0)
	},
	"abs": func(v any, _ []any, _ map[string]any) any {
		if compare(v, 0) < 0 {
			return negative(v)
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
	"dictsort": dictSort,
	"replace": func(v any, args []any, kw map[string]any) any {
		n := argument(args, kw, 2, "count", nil)
		if n == nil {
			n = -1
		}
		return strings.Replace(str(v), str(argument(args, kw, 0, "old", "")), str(argument(args, kw, 1, "new", "")), whole(n))
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

// round is Python's: to even, from the exact decimal value, and an integer stays one.
func round(v any, args []any, kw map[string]any) any {
	x, n, isInt, ok := number(v)
	if !ok {
		panic(failure("a %s cannot be rounded", typeName(v)))
	}
	precision := whole(argument(args, kw, 0, "precision", 0))
	scale := math.Pow(10, float64(precision))
	switch method := argument(args, kw, 1, "method", "common"); method {
	case "floor":
		return math.Floor(x*scale) / scale
	case "ceil":
		return math.Ceil(x*scale) / scale
	case "common":
	default:
		panic(failure("the filter round knows the methods common, ceil and floor, not %s", repr(method)))
	}
	switch {
	case isInt && precision >= 0:
		return n
	case isInt:
		return truncated(nearest(x, precision))
	}
	return nearest(x, precision)
}

func nearest(x float64, precision int) float64 {
	switch {
	case precision < -308:
		return 0
	case precision < 0:
		unit := math.Pow(10, float64(-precision))
		return math.RoundToEven(x/unit) * unit
	case precision < 324 && !math.IsInf(x, 0):
		x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'f', precision, 64), 64)
	}
	return x
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

// jsonStyle is how tojson writes: json.dumps' arguments.
type jsonStyle struct {
	item, key     string // separators
	lines         bool   // an element to a line, indented by so much per level
	indent        string
	ascii, sorted bool
}

// toJSON is transformers' filter, which is json.dumps, and not Jinja's.
func toJSON(v any, args []any, kw map[string]any) any {
	st := jsonStyle{item: ", ", key: ": ", ascii: truth(argument(args, kw, 0, "ensure_ascii", false)), sorted: truth(argument(args, kw, 3, "sort_keys", false))}
	switch by := argument(args, kw, 1, "indent", nil).(type) {
	case nil:
	case string:
		st.lines, st.indent, st.item = true, by, ","
	default:
		st.lines, st.indent, st.item = true, spaces(by), ","
	}
	if separators := argument(args, kw, 2, "separators", nil); separators != nil {
		parts := iterate(separators)
		if len(parts) != 2 || !isA[string](parts[0], nil) || !isA[string](parts[1], nil) {
			panic(failure("tojson's separators are two strings, not %s", repr(separators)))
		}
		st.item, st.key = parts[0].(string), parts[1].(string)
	}
	var b strings.Builder
	st.dump(&b, v, 0)
	return b.String()
}

// spaces are as many as an argument says.
func spaces(n any) string { return strings.Repeat(" ", min(max(whole(n), 0), maxLength)) }

// indent is Jinja's: all line ends become \n.
func indent(v any, args []any, kw map[string]any) any {
	width := argument(args, kw, 0, "width", 4)
	pad, ok := width.(string)
	if !ok {
		pad = spaces(width)
	}
	first, blank := truth(argument(args, kw, 1, "first", false)), truth(argument(args, kw, 2, "blank", false))
	lines := splitLines(str(v)+"\n", nil, nil).([]any)
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\n")
		}
		if i == 0 && first || i > 0 && (line != "" || blank) {
			b.WriteString(pad)
		}
		b.WriteString(line.(string))
	}
	return b.String()
}
