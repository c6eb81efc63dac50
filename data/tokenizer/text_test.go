package tokenizer

import (
	"slices"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The wanted strings are Python's bytes.decode("utf-8", "replace").
func TestTextThatIsNotUTF8IsReadAsPythonReadsIt(t *testing.T) {
	for _, c := range [][2]string{
		{"abc", "abc"}, {"a\xffb", "a\ufffdb"}, {"\xe2\x82", "\ufffd"}, {"\xe2\x82x", "\ufffdx"}, {"\xe2\xe2\x82\xac", "\ufffd€"},
		{"\xed\xa0\x80", "\ufffd\ufffd\ufffd"}, {"\xf0\x9f\x98", "\ufffd"}, {"\xf0\x80\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
		{"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"}, {"\xc0\x80", "\ufffd\ufffd"}, {"\xe0\x80\x80", "\ufffd\ufffd\ufffd"},
		{"\xf5\x80", "\ufffd\ufffd"}, {"\x80\ufffd\x80", "\ufffd\ufffd\ufffd"}, {"\xf0\x9f\x98\xf0\x9f\x98\x80", "\ufffd😀"},
	} {
		if got := validUTF8(c[0]); got != c[1] {
			t.Errorf("%q: got %+q, want %+q", c[0], got, c[1])
		}
		for _, family := range families {
			tok := load(t, family)
			if got, want := tok.Encode(c[0], false), tok.Encode(c[1], false); !slices.Equal(got, want) {
				t.Errorf("%s: %q: got %v, want %v", family, c[0], got, want)
			}
		}
	}
}

func TestNormalFormsAreUnicodesWhereNothingIsNewerThanTheReference(t *testing.T) {
	forms := map[string][2]norm.Form{"NFC": {norm.NFC, norm.NFD}, "NFKC": {norm.NFKC, norm.NFKD}, "NFD": {norm.NFD, norm.NFD}, "NFKD": {norm.NFKD, norm.NFKD}}
	for name, f := range forms {
		normalize := unicodeForm(f[0], f[1])
		for r := rune(0); r < 0x30000; r++ {
			if r > 0x3400 && !(r > 0xF900 && r < 0x11100 || r > 0x1D100 && r < 0x1D200 || r > 0x1E000 && r < 0x1F200) {
				r += 40
			}
			if !utf8.ValidRune(r) || inPairs(newerMarks, r) || inPairs(newerCompatibles, r) {
				continue
			}
			for _, s := range []string{string(r), "a" + string(r) + "\u0323\u0301", "e\u0301" + string(r) + "\u0327"} {
				if got, want := normalize(s), f[0].String(s); got != want {
					t.Fatalf("%s(%+q) = %+q, want %+q", name, s, got, want)
				}
			}
		}
	}
}

func TestByteLevelAlphabetIsOneToOne(t *testing.T) {
	seen := map[rune]bool{}
	for b := range 256 {
		r := byteRune(byte(b))
		back, ok := runeByte(r)
		if !ok || int(back) != b || seen[r] {
			t.Errorf("byte %#x ↔ %+q ↔ %#x", b, r, back)
		}
		seen[r] = true
	}
	// Three of GPT-2's own: space, line feed, soft hyphen.
	if byteRune(' ') != 'Ġ' || byteRune('\n') != 'Ċ' || byteRune(0xAD) != 'Ń' {
		t.Error("the alphabet is not GPT-2's")
	}
	for r := rune(0x144); r < 0x3000; r++ {
		if _, ok := runeByte(r); ok {
			t.Errorf("%U is no byte", r)
		}
	}
}
