package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// method returns the bound method v.name, or nil. Those that change their object are not there: transformers renders in
// an immutable sandbox.
func method(v any, name string) any {
	var run func(args []any, kw map[string]any) any
	switch v := v.(type) {
	case string:
		if m := stringMethods[name]; m != nil {
			run = func(args []any, kw map[string]any) any { return m(v, args, kw) }
		}
	case *Dict:
		run = dictMethod(v, name)
	case []any, Tuple:
		run = listMethod(v, name)
	}
	if run == nil {
		return nil
	}
	return Func(func(args []any, kw map[string]any) (any, error) {
		methodArguments[name].check(name+"()", args, kw)
		return run(args, kw), nil
	})
}

func dictMethod(d *Dict, name string) func([]any, map[string]any) any {
	switch name {
	case "items":
		return func([]any, map[string]any) any { return pairs(d) }
	case "keys":
		return func([]any, map[string]any) any { return append([]any{}, d.keys...) }
	case "values":
		return func([]any, map[string]any) any {
			out := []any{}
			for _, k := range d.keys {
				out = append(out, d.vals[k])
			}
			return out
		}
	case "get":
		return func(args []any, kw map[string]any) any {
			if v, ok := d.Get(argument(args, kw, 0, "key", nil)); ok {
				return v
			}
			return argument(args, kw, 1, "default", nil)
		}
	case "copy":
		return func([]any, map[string]any) any { return dictOf([]any{d}, nil, nil) }
	}
	return nil
}

func listMethod(v any, name string) func([]any, map[string]any) any {
	list, _ := sequence(v)
	switch name {
	case "index":
		return func(args []any, _ map[string]any) any {
			for i, x := range list {
				if equal(x, argument(args, nil, 0, "", nil)) {
					return i
				}
			}
			panic(failure("%s is not in the list", repr(argument(args, nil, 0, "", nil))))
		}
	case "count":
		return func(args []any, _ map[string]any) any {
			n := 0
			for _, x := range list {
				if equal(x, argument(args, nil, 0, "", nil)) {
					n++
				}
			}
			return n
		}
	}
	return nil
}

type stringMethod = func(s string, args []any, kw map[string]any) any

// plain is a method without arguments.
func plain(f func(string) string) stringMethod {
	return func(s string, _ []any, _ map[string]any) any { return f(s) }
}

// every is a method that asks whether all runes of a string that is not empty are of a class.
func every(class func(rune) bool) stringMethod {
	return func(s string, _ []any, _ map[string]any) any {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !class(r) }) < 0
	}
}

var stringMethods = map[string]stringMethod{
	"upper": plain(upper), "lower": plain(lower), "casefold": plain(fold),
	"title": plain(title), "capitalize": plain(capitalize),
	"strip": func(s string, args []any, kw map[string]any) any {
		return stripped(s, argument(args, kw, 0, "chars", nil), true, true)
	},
	"lstrip": func(s string, args []any, kw map[string]any) any {
		return stripped(s, argument(args, kw, 0, "chars", nil), true, false)
	},
	"rstrip": func(s string, args []any, kw map[string]any) any {
		return stripped(s, argument(args, kw, 0, "chars", nil), false, true)
	},
	"split":      split,
	"rsplit":     rsplit,
	"splitlines": splitLines,
	"partition": func(s string, args []any, _ map[string]any) any {
		a, b, ok := strings.Cut(s, word0(args))
		if !ok {
			return Tuple{s, "", ""}
		}
		return Tuple{a, word0(args), b}
	},
	"rpartition": func(s string, args []any, _ map[string]any) any {
		i := strings.LastIndex(s, word0(args))
		if i < 0 {
			return Tuple{"", "", s}
		}
		return Tuple{s[:i], word0(args), s[i+len(word0(args)):]}
	},
	"startswith": affix(strings.HasPrefix), "endswith": affix(strings.HasSuffix),
	"removeprefix": func(s string, args []any, _ map[string]any) any { return strings.TrimPrefix(s, word0(args)) },
	"removesuffix": func(s string, args []any, _ map[string]any) any { return strings.TrimSuffix(s, word0(args)) },
	"replace": func(s string, args []any, kw map[string]any) any {
		return strings.Replace(s, str(args[0]), str(args[1]), whole(argument(args, kw, 2, "", -1)))
	},
	"join": func(s string, args []any, _ map[string]any) any {
		return joinStrings(s, argument(args, nil, 0, "", []any{}))
	},
	"find": func(s string, args []any, _ map[string]any) any { return runeIndex(s, strings.Index(s, word0(args))) },
	"rfind": func(s string, args []any, _ map[string]any) any {
		return runeIndex(s, strings.LastIndex(s, word0(args)))
	},
	"index": func(s string, args []any, _ map[string]any) any {
		i := strings.Index(s, word0(args))
		if i < 0 {
			panic(failure("substring not found"))
		}
		return runeIndex(s, i)
	},
	"count":     func(s string, args []any, _ map[string]any) any { return strings.Count(s, word0(args)) },
	"isdecimal": every(unicode.IsDigit), "isdigit": every(isDigit), "isnumeric": every(isNumeric), "isalpha": every(unicode.IsLetter),
	"isspace": every(space), "isalnum": every(func(r rune) bool { return unicode.IsLetter(r) || isNumeric(r) }),
	"islower": func(s string, _ []any, _ map[string]any) any { return cased(s, isLower, isUpper) },
	"isupper": func(s string, _ []any, _ map[string]any) any { return cased(s, isUpper, isLower) },
	"format":  braces,
}

// word0 is the first argument, which must be a string.
func word0(args []any) string {
	if len(args) > 0 {
		if s, ok := args[0].(string); ok {
			return s
		}
	}
	panic(failure("a string method wants a string"))
}

func runeIndex(s string, i int) any {
	if i < 0 {
		return -1
	}
	return utf8.RuneCountInString(s[:i])
}

// stripped is strip, lstrip and rstrip; chars nil: white space.
func stripped(s string, chars any, left, right bool) string {
	cut := space
	if chars != nil {
		cut = func(r rune) bool { return strings.ContainsRune(str(chars), r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s
}

func affix(has func(s, affix string) bool) stringMethod {
	return func(s string, args []any, _ map[string]any) any {
		if t, ok := argument(args, nil, 0, "", nil).(Tuple); ok {
			for _, a := range t {
				if has(s, str(a)) {
					return true
				}
			}
			return false
		}
		return has(s, word0(args))
	}
}

func joinStrings(sep string, v any) any {
	var parts []string
	for i, x := range iterate(v) {
		s, ok := x.(string)
		if !ok {
			panic(failure("join() wants strings, item %d is a %s", i, typeName(x)))
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, sep)
}

func list(parts []string) any {
	out := make([]any, len(parts))
	for i, s := range parts {
		out[i] = s
	}
	return out
}

func split(s string, args []any, kw map[string]any) any {
	sep, n := argument(args, kw, 0, "sep", nil), whole(argument(args, kw, 1, "maxsplit", -1))
	if sep != nil && str(sep) == "" {
		panic(failure("empty separator"))
	}
	if sep != nil {
		return list(strings.SplitN(s, str(sep), n+min(n+1, 1)))
	}
	out := []any{}
	for s = strings.TrimLeftFunc(s, space); s != ""; s = strings.TrimLeftFunc(s, space) {
		i := strings.IndexFunc(s, space)
		if n >= 0 && len(out) == n {
			i = -1
			s = strings.TrimRightFunc(s, space)
		}
		if i < 0 {
			return append(out, s)
		}
		out, s = append(out, s[:i]), s[i:]
	}
	return out
}

func rsplit(s string, args []any, kw map[string]any) any {
	sep, n := argument(args, kw, 0, "sep", nil), whole(argument(args, kw, 1, "maxsplit", -1))
	if n < 0 {
		return split(s, args, kw)
	}
	if sep == nil || str(sep) == "" {
		panic(failure("rsplit() with a count wants a separator"))
	}
	parts := strings.Split(s, str(sep))
	if cut := len(parts) - n; cut > 1 {
		parts = append([]string{strings.Join(parts[:cut], str(sep))}, parts[cut:]...)
	}
	return list(parts)
}

func splitLines(s string, args []any, kw map[string]any) any {
	keep := truth(argument(args, kw, 0, "keepends", false))
	out := []any{}
	for s != "" {
		i := strings.IndexAny(s, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029")
		if i < 0 {
			return append(out, s)
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			size = 2
		}
		line := s[:i]
		if keep {
			line = s[:i+size]
		}
		out, s = append(out, line), s[i+size:]
	}
	return out
}
