package jinja

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
		n, err := strconv.Atoi(t.String())
		if errors.Is(err, strconv.ErrRange) {
			return nil, fmt.Errorf("the integer %s is beyond 64 bits", t)
		} else if err == nil {
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
				return cmp.Compare(na, nb)
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
