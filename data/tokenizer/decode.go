package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns a list of tokens into a list of texts, step by step.
type decoder func(tokens []string) []string

type decoderSpec struct {
	Type           string
	Decoders       []json.RawMessage
	Pattern        *pattern
	Content        string
	Start, Stop    int
	Replacement    string
	PrependScheme  string `json:"prepend_scheme"`
	AddPrefixSpace *bool  `json:"add_prefix_space"`
	Suffix         string
}

func newDecoders(raw json.RawMessage, field string) ([]decoder, error) {
	if isNull(raw) {
		return nil, nil
	}
	var s decoderSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	switch s.Type {
	case "Sequence":
		return sequence(s.Decoders, field+".decoders", newDecoders)
	case "ByteLevel":
		return []decoder{decodeByteLevel}, nil
	case "ByteFallback":
		return []decoder{decodeFallback}, nil
	case "Fuse":
		return []decoder{func(t []string) []string { return []string{strings.Join(t, "")} }}, nil
	case "Strip":
		return []decoder{each(s.strip)}, nil
	case "Metaspace":
		return []decoder{s.metaspace}, nil
	case "BPEDecoder":
		return []decoder{s.suffixes}, nil
	case "Replace":
		r, err := s.Pattern.replacer(s.Content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return []decoder{each(r)}, nil
	}
	return nil, fmt.Errorf("%s.type %q is not supported (known: Sequence, ByteLevel, ByteFallback, Fuse, Strip, Metaspace, Replace, BPEDecoder)",
		field, s.Type)
}

func each(f func(string) string) decoder {
	return func(tokens []string) []string {
		for i, t := range tokens {
			tokens[i] = f(t)
		}
		return tokens
	}
}

func decodeByteLevel(tokens []string) []string {
	var b []byte
	for _, t := range tokens {
		b = appendFromByteLevel(b, t)
	}
	return []string{validUTF8(string(b))}
}

// decodeFallback joins runs of <0xNN> into text; a run that is none becomes one U+FFFD per byte.
func decodeFallback(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			out = append(out, string(run))
		} else {
			out = append(out, strings.Repeat("\uFFFD", len(run)))
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if b, ok := fallbackByte(t); ok {
			run = append(run, b)
			continue
		}
		if len(run) > 0 {
			flush()
		}
		out = append(out, t)
	}
	if len(run) > 0 {
		flush()
	}
	return out
}

func fallbackByte(t string) (byte, bool) {
	if len(t) != 6 || !strings.HasPrefix(t, "<0x") || t[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(t[3:5], 16, 8)
	return byte(b), err == nil
}

// strip takes up to start characters content from the front, up to stop from the end.
func (s *decoderSpec) strip(t string) string {
	if s.Content == "" {
		return t
	}
	for i := 0; i < s.Start && strings.HasPrefix(t, s.Content); i++ {
		t = t[len(s.Content):]
	}
	for i := 0; i < s.Stop && strings.HasSuffix(t, s.Content); i++ {
		t = t[:len(t)-len(s.Content)]
	}
	return t
}

func (s *decoderSpec) metaspace(tokens []string) []string {
	never := s.PrependScheme == "never" || s.PrependScheme == "" && s.AddPrefixSpace != nil && !*s.AddPrefixSpace
	for i, t := range tokens {
		space := " "
		if i == 0 && !never {
			space = ""
		}
		if s.Replacement != "" {
			tokens[i] = strings.ReplaceAll(t, s.Replacement, space)
		}
	}
	return tokens
}

func (s *decoderSpec) suffixes(tokens []string) []string {
	for i, t := range tokens {
		space := " "
		if i == len(tokens)-1 {
			space = ""
		}
		if s.Suffix != "" {
			tokens[i] = strings.ReplaceAll(t, s.Suffix, space)
		}
	}
	return tokens
}
