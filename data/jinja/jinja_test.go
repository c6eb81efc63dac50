package jinja

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

type golden struct {
	Vars  json.RawMessage `json:"vars"`
	Cases []struct {
		Template string   `json:"template"`
		Text     string   `json:"text"`
		Spans    [][2]int `json:"spans"` // in runes
	} `json:"cases"`
	Bad []string `json:"bad"`
}

func load(t testing.TB) (golden, map[string]any) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	v, err := FromJSON(g.Vars)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]any{}
	for _, p := range pairs(v) {
		vars[p.(Tuple)[0].(string)] = p.(Tuple)[1]
	}
	vars["messages"] = vars["ms"]
	return g, vars
}

func TestTemplatesRenderAsTransformersRendersThem(t *testing.T) {
	g, vars := load(t)
	if len(g.Cases) < 300 {
		t.Fatalf("only %d cases", len(g.Cases))
	}
	for _, c := range g.Cases {
		tm, err := Parse(c.Template)
		if err != nil {
			t.Errorf("%q: %v", c.Template, err)
			continue
		}
		text, spans, err := tm.Render(vars)
		if err != nil || text != c.Text {
			t.Errorf("%q\n got %q (%v)\nwant %q", c.Template, text, err, c.Text)
			continue
		}
		if len(spans) != len(c.Spans) {
			t.Errorf("%q: spans %v, want %v", c.Template, spans, c.Spans)
			continue
		}
		for i, s := range spans {
			got := [2]int{utf8.RuneCountInString(text[:s.Start]), utf8.RuneCountInString(text[:s.End])}
			if got != c.Spans[i] {
				t.Errorf("%q: span %d is %v, want %v", c.Template, i, got, c.Spans[i])
			}
		}
	}
}

func TestTemplatesThatJinjaRefusesAreRefused(t *testing.T) {
	g, vars := load(t)
	for _, src := range g.Bad {
		tm, err := Parse(src)
		if err == nil {
			var text string
			if text, _, err = tm.Render(vars); err == nil {
				t.Errorf("%q rendered %q", src, text)
			}
		}
	}
}

func TestAnErrorNamesItsLineAndARaisedOneIsItsMessage(t *testing.T) {
	tm, err := Parse("a\n{% if true %}\n{{ x.y }}{% endif %}")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = tm.Render(nil); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v, want line 3", err)
	}
	tm, _ = Parse("{{ raise_exception('roles must alternate') }}")
	if _, _, err = tm.Render(nil); err != (Raised{"roles must alternate"}) {
		t.Errorf("got %#v", err)
	}
}

func TestEndlessTemplatesStop(t *testing.T) {
	for _, src := range []string{
		"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"{{ range(1000000000) }}", "{{ 'x' * 1000000000 }}", strings.Repeat("{{ (", 1) + strings.Repeat("(", 100000),
		strings.Repeat("{% if x %}", 100000), "{{ 9 ** 999999999 }}", "{{ '%999999999d' % 1 }}",
	} {
		tm, err := Parse(src)
		if err == nil {
			_, _, err = tm.Render(nil)
		}
		if err == nil {
			t.Errorf("%.40q stopped without an error", src)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	g, vars := load(f)
	for _, c := range g.Cases {
		f.Add(c.Template)
	}
	for _, src := range g.Bad {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Count(src, "for") > 3 || strings.Contains(src, "range") { // loops in loops may run for long
			t.Skip()
		}
		if tm, err := Parse(src); err == nil {
			tm.Render(vars)
		}
	})
}

func TestAGenerationBlockInAnotherIsPartOfIt(t *testing.T) {
	tmpl, err := Parse("u{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}v{% generation %}d{% endgeneration %}")
	if err != nil {
		t.Fatal(err)
	}
	if _, spans, err := tmpl.Render(nil); err != nil || !slices.Equal(spans, []Span{{1, 4}, {5, 6}}) {
		t.Errorf("%v %v, want rising spans that do not overlap", spans, err)
	}
}
