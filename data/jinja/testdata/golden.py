"""Writes golden.json: small templates, and what transformers' chat template environment renders them to.

python3 golden.py   (Python 3.11, transformers 5.23.0, jinja2 3.1.6)
"""
import json
from transformers.utils.chat_template_utils import _compile_jinja_template

V = {
    "s": "Hello, World", "pad": "  two  words ", "e": "", "n": 7, "f": 2.5, "neg": -3, "t": True, "nul": None,
    "list": [3, 1, 2], "words": ["pear", "Apple", "fig"], "empty": [],
    "d": {"zeta": 1, "alpha": {"b": [1, 2.0, None, True]}, "html": "<a href='x'>&</a>", "uni": "é☃\u2028\U0001f600"},
    "ms": [{"role": "system", "content": "S"}, {"role": "user", "content": "U1"}, {"role": "assistant", "content": "A1"},
           {"role": "user", "content": "U2"}],
    "lines": "one\ntwo\n\nthree\n", "uni": "naïve ☃ 日本",
}
X = [  # expressions
    "s", "n + 1", "n - 10", "n * 2", "n / 2", "n // 2", "neg // 2", "neg % 5", "n % 4", "2 ** 3", "2 ** -1", "f * 2", "-n", "-n + 2",
    "1 + 2 * 3 - 4", "(1 + 2) * 3", "s ~ n ~ nul ~ t", "'a' 'b' 'c'", "'a' + 'b'", "[1] + [2, 3]", "'ab' * 3", "[0] * 2",
    "n == 7", "n == 7.0", "t == 1", "s != 'x'", "1 < n < 9", "1 < n > 9", "'a' < 'b'", "[1, 2] < [1, 3]", "not n", "not e", "not not s",
    "n and s", "e or s", "nul or e or 0", "e and n", "'World' in s", "'z' not in s", "3 in list", "9 in list", "'zeta' in d", "'q' in d",
    "not 3 in list", "s if n > 5 else e", "s if n > 9", "1 if e else 2 if n else 3", "missing", "missing is defined", "s is defined",
    "d.missing is defined", "nul is none", "nul is not none", "nul is defined",
    "missing is none", "s is string", "n is number", "t is number", "n is integer", "t is integer", "f is float", "t is boolean",
    "d is mapping", "list is mapping", "list is sequence", "s is sequence", "d is sequence", "list is iterable", "s is iterable", "n is iterable",
    "t is true", "n is true", "false is false", "n is odd", "n is even", "n is divisibleby 7", "n is divisibleby(2)", "n is eq 7", "s is in ['x', s]",
    "'abc' is lower", "'ABC' is upper", "n is sameas 7", "n is not string and s is string", "missing is undefined", "range is callable",
    "list", "words", "d", "(1, 2)", "(1,)", "()", "{}", "[]", "{'a': 1, 'b': [true, none]}", "[none, 'it\\'s', \"q\\\"\", 'a\\nb']", "1.0", "1e20", "1e-7",
    "0.1 + 0.2", "100000000000000000.0", "true", "none", "d.alpha.b", "d['alpha']['b'][1]", "list[0]", "list[-1]", "list[9]", "list[9] is defined",
    "s[0]", "s[-1]", "uni[6]", "uni|length", "list[1:]", "list[:-1]", "list[::-1]", "list[-1:0:-1]", "list[::2]", "s[1:4]", "s[::-1]", "list[1:1]",
    "list[5:]", "(1, 2, 3)[1:]", "ms[0].role", "ms[0]['role']", "ms[-1].content", "ms[1:]|length", "list.0", "d.keys()|list",
    "d.values()|list|length", "d.get('zeta')", "d.get('q')", "d.get('q', 5)", "d|length", "d|list", "pad.strip()", "pad.lstrip()", "pad.rstrip()",
    "s.strip('Hd')", "s.split()", "pad.split()", "s.split(',')", "s.split(', ')[-1]", "'a,b,c'.split(',', 1)", "'a b  c d'.split(none, 2)", "'a,b,c'.rsplit(',', 1)",
    "''.split()", "''.split(',')", "lines.splitlines()", "lines.splitlines(true)", "s.upper()", "s.lower()", "'hello world'.title()", "'hELLO'.capitalize()",
    "s.startswith('Hell')", "s.startswith(('x', 'He'))", "s.endswith('ld')", "s.replace('o', '0')", "s.replace('o', '0', 1)", "', '.join(words)",
    "s.find('o')", "s.rfind('o')", "s.find('zz')", "uni.find('日')", "s.count('o')", "'12'.isdigit()", "'1a'.isdigit()", "'ab'.isalpha()", "''.isdigit()",
    "'  '.isspace()", "s.removeprefix('Hello')", "s.removesuffix('World')", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'%s is %d' % ('x', 3)", "'%s' % s",
    "'%.2f|%5d|%-4s|' % (f, n, 'a')", "'%r' % s", "'100%%' % ()", "'{} {}'.format(s, n)", "'{0}{1}{0}'.format('a', 'b')", "'{k}'.format(k=n)",
    "pad|trim", "s|trim('Hd')", "s|upper", "s|lower", "s|title", "'abc DEF'|capitalize", "list|length", "list|first", "list|last", "empty|first is defined", "list|sort",
    "words|sort", "words|sort(case_sensitive=true)", "list|sort(reverse=true)", "list|reverse|list", "s|reverse", "list|sum", "list|min", "list|max", "words|join",
    "words|join('-')", "ms|map(attribute='role')|join(',')", "words|map('upper')|list", "words|map('replace', 'p', 'b')|list", "ms|selectattr('role', 'equalto', 'user')|list|length",
    "ms|selectattr('role', '==', 'user')|map(attribute='content')|list", "ms|rejectattr('role', 'eq', 'user')|map(attribute='role')|list", "list|select('odd')|list",
    "list|reject('gt', 2)|list", "[0, 1, e, s]|select|list", "missing|default('x')", "e|default('x')", "e|default('x', true)", "nul|default('x')", "missing|d", "s|default('x')",
    "'42'|int", "'x'|int", "'x'|int(5)", "'3.7'|int", "f|int", "'2.5'|float", "n|float", "n|string ~ 1", "neg|abs", "3.14159|round(2)", "2.7|round|int", "2.3|round(0, 'ceil')",
    "'<b>'|e", "'<b>'|safe", "s|replace('l', 'L')", "s|replace('l', 'L', 1)", "d|items|list", "d|dictsort|map(attribute=0)|list", "[1, 1, 2]|unique|list", "s|list|length",
    "d|tojson", "d|tojson(indent=2)", "words|tojson", "s|tojson", "nul|tojson", "t|tojson", "f|tojson", "[]|tojson(indent=2)", "{}|tojson", "d|tojson(ensure_ascii=true)",
    "d|tojson(sort_keys=true)", "'a\"b\\\\c\\n\\t'|tojson", "lines|indent(2)", "lines|indent(2, true)", "lines|indent('> ', first=true, blank=true)",
    "range(3)|list", "range(1, 4)|list", "range(4, 0, -2)|list", "dict(a=1)", "namespace(a=1).a", "s|length > 3 and n", "1|abs + 2", "-1|abs", "not missing", "missing or 'x'",
    "missing == missing", "[1,2,]", "{'a': 1,}", "s is defined and s", "'a' if missing is not defined else 'b'", "(n, s)|first", "n is not none and n > 3", "[[1,2],[3]]|map('length')|list",
    "'\\u00e9\\x41\\t|'", "\"dq 'in'\"", "1_000", "s.split(',')|map('trim')|list", "('a' in s) == false", "d == {'zeta': 1}", "[1, 2] == [1, 2]", "(1, 2) == [1, 2]", "'%s' % nul",
]
T = [  # templates
    "a\n{% if n %}\n  b\n{% endif %}\nc\n", "a\n  {% if n %}\n  b\n  {% endif %}\nc", "a  {%- if n -%}  b  {%- endif -%}  c", "a\n  {{ n }}\n  {{- n }}  \n{{ s -}}\n  z",
    "{# c #}\nx{# d -#}\n  y\n  {#- e #} z", "  {%+ if n %} k {% endif %}", "{% if n +%}\nkept\n{% endif %}", "a {% if n %}x{% endif %} b\n", "\n\nlead\n\n",
    "{% raw %}{{ not }} {% if %}{% endraw %}!", "a\n  {% raw -%}\n {{ x }}\n  {%- endraw %}\n b", "{% for m in ms %}{{ m.role }}:{{ m.content }}\n{% endfor %}", "{% for m in ms -%}\n{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }};\n{%- endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{% for x in empty %}x{% else %}none{% endfor %}", "{% for m in ms if m.role == 'user' %}{{ loop.index }}{{ m.content }}{{ loop.last }}{% endfor %}",
    "{% for x in list %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in list %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% set x = 1 %}{% for i in list %}{% set x = i %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1, found=false) %}{% for i in list %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.found }}", "{% if n %}{% set q = 5 %}{% endif %}{{ q }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = (1, 2) %}{{ a }}", "{% set block %}x{{ n }}y{% endset %}{{ block|upper }}", "{% set b | trim %}  q  {% endset %}[{{ b }}]", "{% macro f(a, b='d') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}",
    "{% macro r(x) %}{{ x }}{% if x > 0 %}{{ r(x - 1) }}{% endif %}{% endmacro %}{{ r(3) }}", "{% macro w() %}[{{ caller() }}]{% endmacro %}{% call w() %}in{{ n }}{% endcall %}", "{% macro w(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(y) w(list) %}<{{ y }}>{% endcall %}",
    "{% filter upper %}abc{{ s }}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}", "{% for m in ms %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ loop.nextitem.role if not loop.last else '-' }} {% endfor %}",
    "{% for x in list %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}", "{% for a in list %}{% for b in words %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{%- for m in ms[::-1] %}{%- set i = (ms|length - 1) - loop.index0 %}{{ i }}{{ m.content }}{%- endfor %}", "{% if e %}1{% elif nul %}2{% elif n == 7 %}3{% else %}4{% endif %}", "{% if ms[0]['role'] == 'system' %}{% set sys = ms[0]['content'] %}{% set rest = ms[1:] %}{% else %}{% set rest = ms %}{% endif %}{{ sys }}{{ rest|length }}",
    "{{ '{{' }}{{ '%}' }}{{ \"}}\" }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{% for c in s %}{{ c }}.{% endfor %}", "{% set x %}{% for i in list %}{{ i }}{% endfor %}{% endset %}{{ x }}", "{{ s\n  if n\n  else e }}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }};{% endfor %}",
    "x\r\ny{% if n %}\r\nz{% endif %}", "{%- macro p(o) -%}\n  {%- if o is mapping -%}{%- for k, v in o|dictsort -%}{{ k }}:{{ p(v) }},{%- endfor -%}{%- else -%}{{ o }}{%- endif -%}\n{%- endmacro -%}\n{{ p(d) }}",
    "{% generation %}g{{ n }}{% endgeneration %}t", "{% for m in ms %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}é{% endgeneration %}{% else %}☃{{ m.content }}{% endif %}{% endfor %}", "{% set x = 1 if n else 2 %}{{ x }}", "{{ s -}} {{- n }}",
    "   \n  {% set z = 1 %}  \n  end", "a{% if n %}\n\nb{% endif %}", "{% if n %}x{% endif %}\n\n{% if n %}y{% endif %}", "\t{% if n %}tab{% endif %}\n", "{#- a -#}  b", "{{ n }}{# x #}{{ n }}\n{# y #}\n{{ n }}",
]
BAD = ["{{ s + n }}", "{{ missing.x }}", "{{ missing + 1 }}", "{{ n.x.y }}", "{% if %}", "{{ (1 }}", "{% for x in n %}{% endfor %}", "{% endif %}", "{% if n %}", "{{ s|nofilter }}", "{{ s is notest }}",
       "{{ raise_exception('no way') }}", "{{ 1 / 0 }}", "{{ missing() }}", "{% break %}", "{{ 'abc }}", "{{ [1][0]() }}", "{% set a, b = [1] %}", "{{ n < s }}", "{{ 1 in 'a' }}", "{# open", "{{ list.append(1) }}", "{{ a b }}"]


def render(src):
    t = _compile_jinja_template(src)
    spans = []
    from transformers.utils.chat_template_utils import _render_with_assistant_indices
    if "generation" in src:
        v = dict(V)
        ms = v.pop("ms")
        # the function names its conversation "messages"
        src2 = src.replace(" ms ", " messages ")
        return _render_with_assistant_indices(_compile_jinja_template(src2), ms, None, None, False, **v)
    return t.render(**V), spans


out = {"vars": V, "cases": [], "bad": []}
for src in ["{{ " + x + " }}" for x in X] + T:
    try:
        text, spans = render(src)
        out["cases"].append({"template": src, "text": text, "spans": [list(s) for s in spans]})
    except Exception as err:
        out["bad"].append(src)
        print("fails in Jinja, too:", src, "--", err)
for src in BAD:
    try:
        print("unexpectedly fine:", src, "->", repr(render(src)[0]))
    except Exception:
        out["bad"].append(src)
json.dump(out, open("golden.json", "w"), ensure_ascii=False, indent=0)
print(len(out["cases"]), "cases,", len(out["bad"]), "failures")
