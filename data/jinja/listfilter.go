package jinja

import (
	"slices"
	"strings"
)

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
