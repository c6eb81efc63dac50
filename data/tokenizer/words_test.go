package tokenizer

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// checkWords compares a hand-written scanner with its pattern run by a backtracking engine.
func checkWords(t *testing.T, pattern, s string) {
	t.Helper()
	// The engine does not know that the long s folds to s; the reference's does.
	match, err := matchRegex(strings.Replace(pattern, "(?i:", "'ſ|(?i:", 1))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, x := range match(nil, s) {
		want = append(want, s[x.lo:x.hi])
	}
	for _, p := range splitWords(knownWords(pattern))(nil, piece{s, true}) {
		got = append(got, p.text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+q:\n got %+q\nwant %+q", s, got, want)
	}
}

var knownPatterns = []string{gpt2Pattern, llama3Pattern, qwen2Pattern}

func TestScannersCutAsTheirPatterns(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	alphabet := []rune("aZé中Σ09٣½² \t\n\r\u00a0\u3000'sSſtTmdDlrvEe.,_-(\u0301\u200d👍\u0085\u2028\x00")
	for _, pattern := range knownPatterns {
		for _, s := range texts(t) {
			checkWords(t, pattern, s)
		}
		for range 3000 {
			s := make([]rune, rng.IntN(12))
			for i := range s {
				s[i] = alphabet[rng.IntN(len(alphabet))]
			}
			checkWords(t, pattern, string(s))
		}
	}
}

func TestTheClassTableAgreesWithUnicodeAndKnowsWhatCameLater(t *testing.T) {
	table := (*classTable)(classes())
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xD800 && r < 0xE000 {
			continue
		}
		want := uint8(other)
		switch {
		case unicode.IsLetter(r) || inPairs(newerLetters, r):
			want = letter
		case unicode.IsNumber(r) || inPairs(newerNumbers, r):
			want = number
		case unicode.IsSpace(r):
			want = space
		}
		if got, _ := table.at(string(r), 0); got != want {
			t.Errorf("%U has class %d, want %d", r, got, want)
		}
	}
}

func FuzzScanners(f *testing.F) {
	for _, s := range texts(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, pattern := range knownPatterns {
			for _, r := range s {
				if inPairs(newerLetters, r) || inPairs(newerNumbers, r) {
					return
				}
			}
			checkWords(t, pattern, validUTF8(s))
		}
	})
}

// The ids are those of tokenizers 0.23.
func TestEdgesOfMergesAndOfAddedTokens(t *testing.T) {
	const stripping = `{"added_tokens": [{"id": 3, "content": "\n\n", "single_word": false, "lstrip": true, "rstrip": true, "normalized": false, "special": true}],
		"model": {"type": "BPE", "vocab": {"a": 0, "\n": 1, "b": 2, "\n\n": 3}, "merges": []}}`
	const halfFallback = `{"model": {"type": "BPE", "byte_fallback": true, "vocab": {" ": 0, "-": 1, "  ": 2, " -": 3, "a": 4}, "merges": [[" ", " "], [" ", "-"]]}}`
	for _, c := range []struct {
		tokenizer, text string
		want            []int32
	}{
		{stripping, "\n\n\n\n", []int32{3}}, // white space beside a token belongs to it, another such token too
		{stripping, "a\n\n\n\nb", []int32{0, 3, 2}},
		{halfFallback, " ц ", []int32{2}}, // what is unknown vanishes, and its neighbours meet
		{halfFallback, " л-", []int32{3}},
		{halfFallback, "a ц-", []int32{4, 3}},
	} {
		tok, err := Parse([]byte(c.tokenizer), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Encode(c.text, true); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
}

func TestNumbersThatAreNoDigitsAreNoWords(t *testing.T) {
	for r, want := range map[rune]bool{'⁵': false, '①': false, '⒈': false, '⅕': false, '٣': true, 'Ⅷ': true, 'é': true, 0x10D40: true} {
		if isWord(r) != want {
			t.Errorf("%U: %v", r, !want)
		}
	}
}
