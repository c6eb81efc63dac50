package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites a text before it is cut.
type normalizer func(string) string

type normalizerSpec struct {
	Type        string
	Normalizers []json.RawMessage
	Prepend     string
	Pattern     *pattern
	Content     string
	StripLeft   bool `json:"strip_left"`
	StripRight  bool `json:"strip_right"`
}

func newNormalizers(raw json.RawMessage, field string) ([]normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	var s normalizerSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	switch s.Type {
	case "Sequence":
		return sequence(s.Normalizers, field+".normalizers", newNormalizers)
	case "NFC":
		return []normalizer{unicodeForm(norm.NFC, norm.NFD)}, nil
	case "NFKC":
		return []normalizer{unicodeForm(norm.NFKC, norm.NFKD)}, nil
	case "NFD":
		return []normalizer{unicodeForm(norm.NFD, norm.NFD)}, nil
	case "NFKD":
		return []normalizer{unicodeForm(norm.NFKD, norm.NFKD)}, nil
	case "Prepend":
		return []normalizer{func(t string) string { return s.Prepend + t }}, nil
	case "Lowercase":
		return []normalizer{toLower}, nil
	case "Strip":
		return []normalizer{s.strip}, nil
	case "ByteLevel":
		return []normalizer{toByteLevel}, nil
	case "Replace":
		r, err := s.Pattern.replacer(s.Content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return []normalizer{r}, nil
	}
	return nil, fmt.Errorf("%s.type %q is not supported (known: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, ByteLevel)",
		field, s.Type)
}

// replacer replaces every match of p by content.
func (p *pattern) replacer(content string) (normalizer, error) {
	match, err := p.matcher()
	if err != nil {
		return nil, err
	}
	if p.Regex == nil && *p.String != "" {
		return func(t string) string { return strings.ReplaceAll(t, *p.String, content) }, nil
	}
	return func(t string) string {
		var b strings.Builder
		for _, x := range match(nil, t) {
			if x.match {
				b.WriteString(content)
			} else {
				b.WriteString(t[x.lo:x.hi])
			}
		}
		return b.String()
	}, nil
}

func (s *normalizerSpec) strip(t string) string {
	if s.StripLeft {
		t = strings.TrimLeftFunc(t, unicode.IsSpace)
	}
	if s.StripRight {
		t = strings.TrimRightFunc(t, unicode.IsSpace)
	}
	return t
}

// toLower maps character by character; only U+0130 becomes two.
func toLower(t string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r == 0x130 {
			return r
		}
		return unicode.ToLower(r)
	}, t), "\u0130", "i\u0307")
}
