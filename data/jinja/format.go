package jinja

import (
	"fmt"
	"strconv"
	"strings"
)

// format is Python's s % v with the conversions s, r, d, i, f, x and %%.
func format(s string, v any) any {
	args, isTuple := v.(Tuple)
	if !isTuple {
		args = Tuple{v}
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		end := i + 1
		for end < len(s) && strings.IndexByte("0123456789.+- ", s[end]) >= 0 {
			end++
		}
		if end == len(s) {
			panic(failure("incomplete format"))
		}
		spec, verb := s[i:end], s[end]
		i = end
		if verb == '%' {
			b.WriteByte('%')
			continue
		}
		if len(args) == 0 {
			panic(failure("not enough arguments for the format %q", s))
		}
		width, _ := strconv.Atoi(strings.TrimLeft(strings.SplitN(spec[1:], ".", 2)[0], "+- 0"))
		if width > maxLength || len(spec) > 20 {
			panic(failure("format %q is too wide", s))
		}
		b.WriteString(convert(spec, verb, args[0]))
		args = args[1:]
	}
	if len(args) > 0 && isTuple {
		panic(failure("not all arguments converted by the format %q", s))
	}
	return b.String()
}

func convert(spec string, verb byte, v any) string {
	switch verb {
	case 's':
		return fmt.Sprintf(spec+"s", str(v))
	case 'r':
		return fmt.Sprintf(spec+"s", repr(v))
	}
	x, n, isInt, ok := number(v)
	if ok && !isInt && verb != 'f' {
		n = truncated(x)
	}
	switch {
	case !ok:
		panic(failure("format %%%c wants a number, not %s", verb, typeName(v)))
	case verb == 'd' || verb == 'i':
		return fmt.Sprintf(spec+"d", n)
	case verb == 'x' || verb == 'X':
		return fmt.Sprintf(spec+string(verb), n)
	case verb == 'f':
		return fmt.Sprintf(spec+"f", x)
	}
	panic(failure("unsupported format %%%c", verb))
}

// braces is "{} {0} {name}".format(…), without format specifications.
func braces(s string, args []any, kw map[string]any) any {
	var b strings.Builder
	next := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c {
			b.WriteByte(c)
			i++
			continue
		}
		if c != '{' {
			b.WriteByte(c)
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			panic(failure("expected '}' in the format %q", s))
		}
		name := s[i+1 : i+end]
		i += end
		if name == "" {
			name = strconv.Itoa(next)
			next++
		}
		v, ok := kw[name]
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(args) {
			v, ok = args[n], true
		}
		if !ok {
			panic(failure("no argument %q for the format %q", name, s))
		}
		b.WriteString(str(v))
	}
	return b.String()
}
