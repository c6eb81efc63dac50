package jinja

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A value is one of: nil (None), undefined, bool, int, float64, string, []any (list), Tuple, *Dict, *namespace, Func.

// Tuple is a Python tuple; it differs from a list only in how it prints and compares.
type Tuple []any

// Func is a function that a template can call. Keyword arguments are nil where there are none.
type Func func(args []any, kw map[string]any) (any, error)

// undefined is the value of a name or item that does not exist: it prints as nothing, is false and empty, and using it
// in any other way fails.
type undefined struct{ what string }

// namespace is what {% set ns.x = … %} may assign to, from inside loops, too.
type namespace struct{ vars *Dict }

// Dict is a dictionary that remembers the order of insertion.
type Dict struct {
	keys []any
	vals map[any]any
}

// Set sets d[key], where key is a string, int, float64, bool or nil.
func (d *Dict) Set(key, val any) {
	if d.vals == nil {
		d.vals = map[any]any{}
	}
	if _, ok := d.vals[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.vals[key] = val
}

// Get returns d[key].
func (d *Dict) Get(key any) (any, bool) {
	if !hashable(key) {
		return nil, false
	}
	v, ok := d.vals[key]
	return v, ok
}

func hashable(v any) bool {
	switch v.(type) {
	case nil, bool, int, float64, string:
		return true
	}
	return false
}

// FromJSON decodes one JSON value, keeping the order of keys.
func FromJSON(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return fromJSON(dec)
}

func fromJSON(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case json.Number:
		if n, err := strconv.Atoi(t.String()); err == nil {
			return n, nil
		}
		return t.Float64()
	case json.Delim:
		if t == '[' {
			return listFromJSON(dec)
		}
		return dictFromJSON(dec)
	}
	return tok, nil
}

func listFromJSON(dec *json.Decoder) (any, error) {
	list := []any{}
	for dec.More() {
		v, err := fromJSON(dec)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := dec.Token()
	return list, err
}

func dictFromJSON(dec *json.Decoder) (any, error) {
	d := &Dict{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		v, err := fromJSON(dec)
		if err != nil {
			return nil, err
		}
		d.Set(key, v)
	}
	_, err := dec.Token()
	return d, err
}

// truth is Python's bool(v).
func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case Tuple:
		return len(v) > 0
	case *Dict:
		return len(v.keys) > 0
	}
	return true
}

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

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "NoneType"
	case undefined:
		return "Undefined"
	case bool:
		return "bool"
	case int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []any:
		return "list"
	case Tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *namespace:
		return "Namespace"
	}
	return "function"
}

// number returns v as float64 and, where exact, int; bools are numbers.
func number(v any) (f float64, n int, isInt, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, 1, true, true
		}
		return 0, 0, true, true
	case int:
		return float64(v), v, true, true
	case float64:
		return v, 0, false, true
	}
	return 0, 0, false, false
}

// equal is Python's ==.
func equal(a, b any) bool {
	if fa, na, ia, ok := number(a); ok {
		fb, nb, ib, ok := number(b)
		return ok && (ia && ib && na == nb || !(ia && ib) && fa == fb)
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		s, ok := b.(string)
		return ok && a == s
	case undefined:
		_, ok := b.(undefined)
		return ok
	case []any:
		s, ok := b.([]any)
		return ok && slices.EqualFunc(a, s, equal)
	case Tuple:
		s, ok := b.(Tuple)
		return ok && slices.EqualFunc(a, s, equal)
	case *Dict:
		d, ok := b.(*Dict)
		return ok && equalDicts(a, d)
	case *namespace:
		return a == b
	}
	return false
}

func equalDicts(a, b *Dict) bool {
	if len(a.keys) != len(b.keys) {
		return false
	}
	for _, k := range a.keys {
		if v, ok := b.Get(k); !ok || !equal(a.vals[k], v) {
			return false
		}
	}
	return true
}

// compare is −1, 0 or 1 for two numbers, strings, lists or tuples; anything else fails.
func compare(a, b any) int {
	if fa, na, ia, ok := number(a); ok {
		if fb, nb, ib, ok := number(b); ok {
			if ia && ib {
				return min(max(na-nb, -1), 1)
			}
			return map[bool]int{true: -1, false: map[bool]int{true: 1}[fa > fb]}[fa < fb]
		}
	}
	if s, ok := a.(string); ok {
		if t, ok := b.(string); ok {
			return strings.Compare(s, t)
		}
	}
	if s, ok := sequence(a); ok && typeName(a) == typeName(b) {
		t, _ := sequence(b)
		return slices.CompareFunc(s, t, compare)
	}
	panic(failure("'<' not supported between %s and %s", typeName(a), typeName(b)))
}

// sequence returns the elements of a list or tuple.
func sequence(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case Tuple:
		return v, true
	}
	return nil, false
}

// iterate returns what a loop over v sees.
func iterate(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case Tuple:
		return v
	case *Dict:
		return v.keys
	case undefined:
		return nil
	case string:
		list := make([]any, 0, len(v))
		for _, r := range v {
			list = append(list, string(r))
		}
		return list
	}
	panic(failure("a %s cannot be iterated over", typeName(v)))
}

// contains is Python's x in v.
func contains(v, x any) bool {
	switch v := v.(type) {
	case string:
		s, ok := x.(string)
		if !ok {
			panic(failure("'in <string>' requires a string, not %s", typeName(x)))
		}
		return strings.Contains(v, s)
	case *Dict:
		_, ok := v.Get(x)
		return ok
	}
	return slices.ContainsFunc(iterate(v), func(y any) bool { return equal(x, y) })
}

// length is Python's len(v).
func length(v any) int {
	if s, ok := v.(string); ok {
		return utf8.RuneCountInString(s)
	}
	return len(iterate(v))
}

// dump appends v as json.dumps writes it. indent < 0: on one line, else that many spaces per level.
func dump(b *strings.Builder, v any, indent, level int, ascii, sorted bool) {
	line := func(level int) {
		if indent >= 0 {
			b.WriteString("\n" + strings.Repeat(" ", indent*level))
		}
	}
	comma := func(i int) {
		if i > 0 && indent >= 0 {
			b.WriteString(",")
		} else if i > 0 {
			b.WriteString(", ")
		}
		line(level + 1)
	}
	if list, ok := sequence(v); ok {
		b.WriteString("[")
		for i, x := range list {
			comma(i)
			dump(b, x, indent, level+1, ascii, sorted)
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
	case int, float64:
		b.WriteString(repr(v))
	case string:
		dumpString(b, v, ascii)
	case *Dict:
		keys := v.keys
		if sorted {
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
			dumpString(b, name, ascii)
			b.WriteString(": ")
			dump(b, v.vals[k], indent, level+1, ascii, sorted)
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
