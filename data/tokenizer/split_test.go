package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// cutBy gives the pieces that a pre-tokenizer cuts a text in.
func cutBy(t *testing.T, spec, text string) (out []string) {
	t.Helper()
	p, err := newPreTokenizer(json.RawMessage(spec))
	if err != nil {
		t.Fatal(spec, err)
	}
	for _, q := range p.run(text, true, new(scratch)) {
		out = append(out, q.text)
	}
	return out
}

// The pieces are those of tokenizers 0.23.
func TestWordCharactersOfAPatternAreThoseOfTheReference(t *testing.T) {
	const text = "a\u200db \u0915\u093e\u20dd Ⅷ²x ⓐ🄰½_9!"
	for pattern, want := range map[string][]string{
		`\w+`:         {"a", "\u200d", "b", " ", "\u0915\u093e\u20dd", " ", "Ⅷ²x", " ", "ⓐ🄰½_9", "!"},
		`\W+`:         {"a", "\u200d", "b", " ", "\u0915\u093e\u20dd", " ", "Ⅷ²x", " ", "ⓐ🄰½_9", "!"},
		`[\w]+`:       {"a", "\u200d", "b", " ", "\u0915\u093e\u20dd", " ", "Ⅷ", "²", "x", " ", "ⓐ🄰", "½", "_9", "!"},
		`[^\w]+`:      {"a", "\u200d", "b", " ", "\u0915\u093e\u20dd", " ", "Ⅷ", "²", "x", " ", "ⓐ🄰", "½", "_9", "!"},
		`[^\s\w]+|\w`: {"a", "\u200d", "b", " ", "\u0915", "\u093e", "\u20dd", " ", "Ⅷ", "²", "x", " ", "ⓐ", "🄰", "½", "_", "9", "!"},
		`[]\w]+`:      {"a", "\u200d", "b", " ", "\u0915\u093e\u20dd", " ", "Ⅷ", "²", "x", " ", "ⓐ🄰", "½", "_9", "!"},
	} {
		if got := cutBy(t, fmt.Sprintf(`{"type":"Split","pattern":{"Regex":%q},"behavior":"Isolated"}`, pattern), text); !slices.Equal(got, want) {
			t.Errorf("%s\n got %+q\nwant %+q", pattern, got, want)
		}
	}
	if _, err := newPreTokenizer(json.RawMessage(`{"type":"Split","pattern":{"Regex":"[[:space:]\\w]"},"behavior":"Isolated"}`)); err == nil || !strings.Contains(err.Error(), "[:space:]") {
		t.Errorf("%v, want [:space:] refused: the engine reads over it", err)
	}
	if got := cutBy(t, `{"type":"Whitespace"}`, "a\u200db c\u200cd"); !slices.Equal(got, []string{"a\u200db", "c\u200cd"}) {
		t.Errorf("Whitespace: %+q", got)
	}
}

// The pieces are those of tokenizers 0.23, whose table of punctuation is Unicode 8's: U+061D is none, U+166D is.
func TestEveryBehaviourCutsAsTheReference(t *testing.T) {
	const text = "a!?b c, «…x\u061d\u166d"
	for behavior, want := range map[string][3][]string{
		"Removed":            {{"a", "b c", " ", "x\u061d"}, {"a", "?b c, «…x\u061d\u166d"}, {"a", "b", "c", "x"}},
		"Isolated":           {{"a", "!", "?", "b c", ",", " ", "«", "…", "x\u061d", "\u166d"}, {"a", "!", "?b c, «…x\u061d\u166d"}, {"a", "!?", "b", " ", "c", ", «…", "x", "\u061d\u166d"}},
		"MergedWithPrevious": {{"a!", "?", "b c,", " «", "…", "x\u061d\u166d"}, {"a!", "?b c, «…x\u061d\u166d"}, {"a!?", "b ", "c, «…", "x\u061d\u166d"}},
		"MergedWithNext":     {{"a", "!", "?b c", ", ", "«", "…x\u061d", "\u166d"}, {"a", "!?b c, «…x\u061d\u166d"}, {"a", "!?b", " c", ", «…x", "\u061d\u166d"}},
		"Contiguous":         {{"a", "!?", "b c", ",", " ", "«…", "x\u061d", "\u166d"}, {"a", "!", "?b c, «…x\u061d\u166d"}, {"a", "!?", "b", " ", "c", ", «…", "x", "\u061d\u166d"}},
	} {
		for i, spec := range []string{`{"type":"Punctuation",`, `{"type":"Split","pattern":{"String":"!"},`, `{"type":"Split","pattern":{"Regex":"[a-z]"},"invert":true,`} {
			if got := cutBy(t, spec+`"behavior":"`+behavior+`"}`, text); !slices.Equal(got, want[i]) {
				t.Errorf("%s%s\n got %+q\nwant %+q", spec, behavior, got, want[i])
			}
		}
	}
}
