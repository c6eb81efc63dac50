package jinja

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is Python's str(v).
func str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case undefined:
		return ""
	}
	return repr(v)
}

// repr is Python's repr(v).
func repr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case undefined:
		return "Undefined"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int:
		return strconv.Itoa(v)
	case float64:
		return floatRepr(v)
	case string:
		return stringRepr(v)
	case []any:
		return "[" + joinRepr(v) + "]"
	case Tuple:
		if len(v) == 1 {
			return "(" + repr(v[0]) + ",)"
		}
		return "(" + joinRepr(v) + ")"
	case *Dict:
		return dictRepr(v)
	}
	return "<" + typeName(v) + ">"
}

func joinRepr(list []any) string {
	parts := make([]string, len(list))
	for i, x := range list {
		parts[i] = repr(x)
	}
	return strings.Join(parts, ", ")
}

func dictRepr(d *Dict) string {
	parts := make([]string, len(d.keys))
	for i, k := range d.keys {
		parts[i] = repr(k) + ": " + repr(d.vals[k])
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func floatRepr(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func stringRepr(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b := []byte{quote}
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(append(b, quote))
}

// dump appends v, which lies level deep.
func (st *jsonStyle) dump(b *strings.Builder, v any, level int) {
	line := func(level int) {
		if st.lines {
			b.WriteString("\n" + strings.Repeat(st.indent, level))
		}
	}
	comma := func(i int) {
		if i > 0 {
			b.WriteString(st.item)
		}
		line(level + 1)
	}
	if list, ok := sequence(v); ok {
		b.WriteString("[")
		for i, x := range list {
			comma(i)
			st.dump(b, x, level+1)
		}
		if len(list) > 0 {
			line(level)
		}
		b.WriteString("]")
		return
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int:
		b.WriteString(strconv.Itoa(v))
	case float64:
		b.WriteString(strings.NewReplacer("inf", "Infinity", "nan", "NaN").Replace(repr(v)))
	case string:
		dumpString(b, v, st.ascii)
	case *Dict:
		keys := v.keys
		if st.sorted {
			keys = slices.SortedStableFunc(slices.Values(keys), compare)
		}
		b.WriteString("{")
		for i, k := range keys {
			comma(i)
			name, ok := k.(string)
			if !ok {
				name = map[any]string{nil: "null", true: "true", false: "false"}[k]
				if name == "" {
					name = repr(k)
				}
			}
			dumpString(b, name, st.ascii)
			b.WriteString(st.key)
			st.dump(b, v.vals[k], level+1)
		}
		if len(keys) > 0 {
			line(level)
		}
		b.WriteString("}")
	default:
		panic(failure("a %s is not JSON serializable", typeName(v)))
	}
}

func dumpString(b *strings.Builder, s string, ascii bool) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < 0x20 || ascii && r >= 0x7f && r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		case ascii && r >= 0x10000:
			r -= 0x10000
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}
