package jinja

import (
	"slices"
	"strings"
)

// signature is the arguments that a function takes, in order. Those in brackets may be left out, a dash is one that has no
// name, and a star stands for any.
type signature string

// check fails on arguments that the function does not take: none is ever ignored.
func (s signature) check(function string, args []any, kw map[string]any) {
	if s == "*" {
		return
	}
	names := strings.Fields(string(s))
	if len(args) > len(names) {
		panic(failure("%s takes %d arguments at most, not %d", function, len(names), len(args)))
	}
	for i, n := range names {
		name := strings.Trim(n, "[]")
		_, named := kw[name]
		switch {
		case named && i < len(args):
			panic(failure("%s is given the argument %q twice", function, name))
		case !named && i >= len(args) && name == n:
			panic(failure("%s lacks an argument: it takes %s", function, s))
		}
		names[i] = name
	}
	for _, k := range sortedKeys(kw) {
		if !slices.Contains(names, k) {
			panic(failure("%s takes no argument %q", function, k))
		}
	}
}

// Those that are not listed take no arguments.
var filterArguments = map[string]signature{
	"trim": "[chars]", "int": "[default]", "float": "[default]", "round": "[precision] [method]", "replace": "old new [count]",
	"default": "[default_value] [boolean]", "d": "[default_value] [boolean]", "dictsort": "[case_sensitive] [by] [reverse]",
	"join": "[d] [attribute]", "tojson": "[ensure_ascii] [indent] [separators] [sort_keys]", "indent": "[width] [first] [blank]",
	"sort": "[reverse] [case_sensitive] [attribute]", "unique": "[case_sensitive] [attribute]", "sum": "[attribute] [start]",
	"min": "[case_sensitive] [attribute]", "max": "[case_sensitive] [attribute]",
	"map": "*", "select": "*", "reject": "*", "selectattr": "*", "rejectattr": "*", // they check what they pass on
}

var methodArguments = map[string]signature{
	"get": "- [-]", "index": "-", "count": "-", "strip": "[-]", "lstrip": "[-]", "rstrip": "[-]", "split": "[sep] [maxsplit]",
	"rsplit": "[sep] [maxsplit]", "splitlines": "[keepends]", "partition": "-", "rpartition": "-", "startswith": "-", "endswith": "-",
	"removeprefix": "-", "removesuffix": "-", "replace": "- - [-]", "join": "-", "find": "-", "rfind": "-", "format": "*",
}

var testArguments = map[string]signature{
	"divisibleby": "-", "sameas": "-", "in": "-", "==": "-", "eq": "-", "equalto": "-", "ne": "-", "lt": "-", "lessthan": "-",
	"le": "-", "gt": "-", "greaterthan": "-", "ge": "-",
}
