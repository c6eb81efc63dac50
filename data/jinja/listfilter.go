package jinja

import (
	"slices"
	"strings"
)

// keyOf is what is compared of an element by filters with the arguments case_sensitive and attribute.
func keyOf(args []any, kw map[string]any, caseSensitive, attribute int) func(x any) any {
	name, cased := argument(args, kw, attribute, "attribute", nil), truth(argument(args, kw, caseSensitive, "case_sensitive", false))
	return func(x any) any {
		if name != nil {
			x = path(x, name)
		}
		if !cased {
			x = folded(x)
		}
		return x
	}
}

func sortFilter(v any, args []any, kw map[string]any) any {
	list, key := slices.Clone(iterate(v)), keyOf(args, kw, 1, 2)
	sortBy(list, key, truth(argument(args, kw, 0, "reverse", false)))
	return list
}

// sortBy sorts as Python does: what is equal keeps its order, reversed, too.
func sortBy(list []any, key func(any) any, reverse bool) {
	slices.SortStableFunc(list, func(a, b any) int {
		if reverse {
			a, b = b, a
		}
		return compare(key(a), key(b))
	})
}

func dictSort(v any, args []any, kw map[string]any) any {
	list, by := pairs(v), argument(args, kw, 1, "by", "key")
	at := slices.Index([]any{"key", "value"}, by)
	if at < 0 {
		panic(failure("dictsort sorts by key or value, not %s", repr(by)))
	}
	key := keyOf(args, map[string]any{"attribute": at, "case_sensitive": argument(nil, kw, -1, "case_sensitive", false)}, 0, -1)
	sortBy(list, key, truth(argument(args, kw, 2, "reverse", false)))
	return list
}

func unique(v any, args []any, kw map[string]any) any {
	out, seen, key := []any{}, []any{}, keyOf(args, kw, 0, 1)
	for _, x := range iterate(v) {
		if k := key(x); !contains(seen, k) {
			seen, out = append(seen, k), append(out, x)
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
	return func(v any, args []any, kw map[string]any) any {
		list, key := iterate(v), keyOf(args, kw, 0, 1)
		if len(list) == 0 {
			return undefined{"the extreme of nothing"}
		}
		best := list[0]
		for _, x := range list[1:] {
			if compare(key(x), key(best)) == sign {
				best = x
			}
		}
		return best
	}
}

// mapFilter is map("filter", arguments…) or map(attribute="name", default=…).
func mapFilter(v any, args []any, kw map[string]any) any {
	name, byAttribute := kw["attribute"]
	if byAttribute = byAttribute && len(args) == 0; byAttribute {
		signature("attribute [default]").check("the filter map", args, kw)
	}
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
func choose(name string, v any, args []any, kw map[string]any) any {
	var attr any
	if len(kw) > 0 {
		panic(failure("the filter %s takes no named arguments", name))
	}
	if strings.HasSuffix(name, "attr") {
		attr, args = argument(args, nil, 0, "", ""), args[min(1, len(args)):]
	}
	test := func(x any, _ []any) bool { return truth(x) }
	if len(args) > 0 {
		if test = testByName(str(args[0])); test == nil {
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
