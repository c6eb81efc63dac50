package jinja

import (
	"strings"
	"testing"
)

func rendered(t *testing.T, template string) (string, error) {
	t.Helper()
	x, err := FromJSON([]byte(`{"b":[1,"é"],"a":{},"c":null}`))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := Parse(template)
	if err != nil {
		return "", err
	}
	text, _, err := tm.Render(map[string]any{"x": x})
	return text, err
}

// The wanted texts are those of transformers 5.24 with Jinja 3.1.6.
func TestFiltersAndMethodsAreJinjasInDetail(t *testing.T) {
	for _, c := range [][2]string{
		{`{{ x|tojson(separators=(',',':')) }}`, "{\"b\":[1,\"é\"],\"a\":{},\"c\":null}"},
		{`{{ x|tojson(separators=(',',':'),indent=2) }}`, "{\n  \"b\":[\n    1,\n    \"é\"\n  ],\n  \"a\":{},\n  \"c\":null\n}"},
		{`{{ x|tojson(indent=0) }}`, "{\n\"b\": [\n1,\n\"é\"\n],\n\"a\": {},\n\"c\": null\n}"},
		{`{{ x|tojson(indent='\t') }}`, "{\n\t\"b\": [\n\t\t1,\n\t\t\"é\"\n\t],\n\t\"a\": {},\n\t\"c\": null\n}"},
		{`{{ x|tojson(indent=true) }}`, "{\n \"b\": [\n  1,\n  \"é\"\n ],\n \"a\": {},\n \"c\": null\n}"},
		{`{{ x|tojson(indent=-1) }}`, "{\n\"b\": [\n1,\n\"é\"\n],\n\"a\": {},\n\"c\": null\n}"},
		{`{{ x|tojson(2) }}`, "{\"b\": [1, \"\\u00e9\"], \"a\": {}, \"c\": null}"},
		{`{{ x|tojson(true,none,(',',':'),true) }}`, "{\"a\":{},\"b\":[1,\"\\u00e9\"],\"c\":null}"},
		{`{{ x|tojson(separators=[', ',' : ']) }}`, "{\"b\" : [1, \"é\"], \"a\" : {}, \"c\" : null}"},
		{`{{ x|tojson(separators=none) }}`, "{\"b\": [1, \"é\"], \"a\": {}, \"c\": null}"},
		{`{{ [(1e308*10), -(1e308*10), 1e308*10-1e308*10]|tojson }}`, "[Infinity, -Infinity, NaN]"},
		{`{{ "they're bill's friends_from the UK-x 3abc (foo) [bar] {b} <c> a.b"|title }}`, "They're Bill's Friends_from The Uk-X 3abc (Foo) [Bar] {B} <C> A.b"},
		{`{{ "they're bill's friends_from the UK-x 3abc (foo) [bar] {b} <c> a.b".title() }}`, "They'Re Bill'S Friends_From The Uk-X 3Abc (Foo) [Bar] {B} <C> A.B"},
		{`{{ "ǆabc ßa"|title }} {{ "ǆabc ßa ΑΣ Σ".title() }} {{ "ßa"|capitalize }} {{ "ǆAΣ".capitalize() }} {{ "ß"|upper }} {{ "ΑΣ ΣΑΣ"|lower }} {{ "İ"|lower }} {{ "ßA".casefold() }}`, "Ǆabc SSa ǅabc Ssa Ας Σ Ssa ǅaς SS ας σας i̇ ssa"},
		{`{{ ""|title }}{{ "".title() }}{{ ""|capitalize }} {{ "  a  b "|title }} {{ "1a1b".title() }}`, "   A  B  1A1B"},
		{`{{ "a\r\nb\rc\n\nd\n"|indent }}`, "a\n    b\n    c\n\n    d\n"},
		{`{{ "a\r\nb\rc\n\nd\n"|indent(2,true) }}`, "  a\n  b\n  c\n\n  d\n"},
		{`{{ "a\nb\n\nc"|indent(2,true,true) }}`, "  a\n  b\n  \n  c"},
		{`{{ "a\nb\n"|indent(2,blank=true) }}`, "a\n  b\n  "},
		{`{{ ""|indent(2,true) }}|{{ "\na"|indent(1,true) }}`, "  | \n a"},
		{`{{ "a\u2028b\x0bc\x1dd"|indent(width="> ") }}`, "a\n> b\n> c\n> d"},
		{`{{ "²".isdigit() }} {{ "½".isdigit() }} {{ "٣".isdigit() }} {{ "①".isdigit() }} {{ "Ⅷ".isdigit() }} {{ "12".isdigit() }} {{ "".isdigit() }}`, "True False True True False True False"},
		{`{{ "²".isdecimal() }} {{ "½".isnumeric() }} {{ "一".isnumeric() }} {{ "½".isalnum() }} {{ "Ⅷ".isalnum() }} {{ "Ⅷ".isalpha() }}`, "False True True True True False"},
		{`{{ "Aǅ".isupper() }} {{ "ⓐ".islower() }} {{ "Ⅷ".isupper() }} {{ "1".islower() }} {{ "aǅ" is lower }} {{ "Ⅷ" is upper }}`, "False True True False False True"},
		{`{{ 2.5|round }} {{ 3.5|round }} {{ -0.5|round }} {{ 2.675|round(2) }} {{ 1.005|round(2) }} {{ 1e300|round(5) }}`, "2.0 4.0 -0.0 2.67 1.0 1e+300"},
		{`{{ 42|round }} {{ 42.55|round(1,'floor') }} {{ 42.55|round(1,'ceil') }} {{ 1250|round(-2) }} {{ 1350.0|round(-2) }} {{ 1250|round(-2,'floor') }} {{ true|round }} {{ 42|round(method='ceil') }}`, "42 42.5 42.6 1200 1400.0 1200.0 1 42.0"},
		{`{{ 9223372036854775807 }} {{ -9223372036854775807 - 1 }} {{ (-2)**63 }} {{ 1**100 }} {{ 0**200 }} {{ (-1)**101 }} {{ -0.0 }}`, "9223372036854775807 -9223372036854775808 -9223372036854775808 1 0 -1 -0.0"},
		{`{{ 9223372036854775807 > -9223372036854775807 }} {{ -9223372036854775807 * 1 }} {{ 3037000499 * 3037000499 }}`, "True -9223372036854775807 9223372030926249001"},
		{`{{ '1e3'|int }} {{ true|int }} {{ none|int(3) }} {{ 'x'|int('y') }} {{ 3.7|int }} {{ 'x'|float(2) }} {{ none|float }} {{ 'inf'|int(4) }}`, "1000 1 3 y 3 2 0.0 4"},
		{`{{ {'b':1,'A':2,'c':0}|dictsort }} {{ {'b':1,'A':2}|dictsort(true) }} {{ {'b':1,'A':2,'c':0}|dictsort(by='value',reverse=true) }}`, "[('A', 2), ('b', 1), ('c', 0)] [('A', 2), ('b', 1)] [('A', 2), ('b', 1), ('c', 0)]"},
		{`{{ ['b','A']|max }} {{ ['b','A']|max(true) }} {{ [{'a':1},{'a':3}]|max(attribute='a') }} {{ ['a','A']|unique|list }} {{ ['a','A']|unique(true)|list }}`, "b b {'a': 3} ['a'] ['a', 'A']"},
		{`{{ [{'a':1,'b':1},{'a':1,'b':2},{'a':2,'b':3}]|sort(reverse=true,attribute='a') }}`, "[{'a': 2, 'b': 3}, {'a': 1, 'b': 1}, {'a': 1, 'b': 2}]"},
		{`{{ 'aXa'|replace('a','b',1) }} {{ 'aXa'|replace('a','b',count=none) }} {{ 'aa'.replace('a','b',1) }} {{ 'a b c'.split(maxsplit=1) }}`, "bXa bXb ba ['a', 'b c']"},
		{`{{ dict(b=1,a=2) }}{{ dict is callable }}`, "{'b': 1, 'a': 2}True"},
		{`{{ dict([('a',1)]) }} {{ dict({'a':1},a=3) }} {{ namespace([('a',1)]).a }}`, "{'a': 1} {'a': 3} 1"},
		{`{{ [{'a':1}]|map(attribute='b',default=3)|list }} {{ [1.5]|map('round',0,'floor')|list }}`, "[3] [1.0]"},
		{`{% macro c(x) %}[{{ x }}{{ caller() }}]{% endmacro %}{% call c(' a '.strip()) %}b{% endcall %}`, "[ab]"},
	} {
		if got, err := rendered(t, c[0]); err != nil || got != c[1] {
			t.Errorf("%s\n got %q (%v)\nwant %q", c[0], got, err, c[1])
		}
	}
}

// Jinja refuses all of these.
func TestArgumentsThatAreNotTakenAreRefused(t *testing.T) {
	for _, template := range []string{
		`{{ x|tojson(foo=1) }}`,
		`{{ x|tojson(separators=',') }}`,
		`{{ x|tojson(false,none,none,false,1) }}`,
		`{{ x|tojson(true,ensure_ascii=true) }}`,
		`{{ x|tojson(indent=1.5) }}`,
		`{{ 42|round(method='foo') }}`,
		`{{ "3.7"|round }}`,
		`{{ 1|round(foo=2) }}`,
		`{{ {'b':1}|dictsort(false,'foo') }}`,
		`{{ 'a,b'|replace(',') }}`,
		`{{ 'x'|upper(1) }}`,
		`{{ 'x'.upper(1) }}`,
		`{{ 'abc'.strip(chars='a') }}`,
		`{{ {'a':1}.get('b',default=2) }}`,
		`{{ 1 is defined(2) }}`,
		`{{ 4 is divisibleby(2,3) }}`,
		`{{ [1,2]|map('string',1)|list }}`,
		`{{ [1]|select('odd',foo=1)|list }}`,
		`{{ [{'a':1}]|map(attribute='a',foo=1)|list }}`,
		`{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1,b=2) }}`,
		`{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1,a=2) }}`,
		`{{ range(stop=3)|list }}`,
		`{{ 'x'.title(a=1) }}`,
		`{{ 'ab'|list(1) }}`,
		`{{ 'a'|default('b',true,1) }}`,
		`{{ [3,1]|sort(reverse=true,foo=1) }}`,
		`{{ 'a'|first(1) }}`,
		`{{ [1,2,3].count(1,2) }}`,
		`{{ 'a'.join(['x'],1) }}`,
		`{{ {'a':1}.items(1) }}`,
		`{{ 'ab'.partition('a','b') }}`,
		`{% for i in [1] %}{{ loop.cycle('a',b=1) }}{% endfor %}`,
		`{{ 'ab' is lower(1) }}`,
		`{{ [1,2,3]|length(1) }}`,
		`{{ 'x'|indent(2,foo=1) }}`,
		`{{ 'x'|indent(2.5) }}`,
		`{{ raise_exception() }}`,
		`{{ raise_exception('a','b') }}`,
	} {
		if got, err := rendered(t, template); err == nil {
			t.Errorf("%s rendered %q", template, got)
		}
	}
}

// Python's integers have no end.
func TestIntegersBeyond64BitsAreRefusedRatherThanWrong(t *testing.T) {
	for _, template := range []string{
		`{{ 12345678901234567890 }}`,
		`{{ 9223372036854775807 + 1 }}`,
		`{{ -9223372036854775807 - 2 }}`,
		`{{ 9223372036854775807 * 2 }}`,
		`{{ (-9223372036854775807 - 1) * -1 }}`,
		`{{ -1 * (-9223372036854775807 - 1) }}`,
		`{{ (-9223372036854775807 - 1) // -1 }}`,
		`{{ -(-9223372036854775807 - 1) }}`,
		`{{ (-9223372036854775807 - 1)|abs }}`,
		`{{ 2**64 }}`,
		`{{ 2**63 }}`,
		`{{ "12345678901234567890"|int }}`,
		`{{ 1e30|int }}`,
		`{{ '%d' % 1e30 }}`,
	} {
		if got, err := rendered(t, template); err == nil || !strings.Contains(err.Error(), "beyond 64 bits") {
			t.Errorf("%s rendered %q (%v)", template, got, err)
		}
	}
	if _, err := FromJSON([]byte(`{"n":12345678901234567890}`)); err == nil || !strings.Contains(err.Error(), "beyond 64 bits") {
		t.Error(err)
	}
}
