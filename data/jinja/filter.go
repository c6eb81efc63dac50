package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
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
