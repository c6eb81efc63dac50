package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// piece is a part of the text on its way to the model.
type piece struct {
	text  string
	first bool // begins where the whole text begins
}

// stage cuts or rewrites a piece, and appends what comes of it.
type stage func(dst []piece, p piece) []piece

// preTokenizer is a chain of stages; the last steps, which nearly every model ends with, are plain fields so that
// they run without lists: cutting into words and reading words as bytes.
type preTokenizer struct {
	stages    []stage
	words     words // nil: a piece is a word
	byteLevel bool  // words are bytes of the byte-level alphabet
}

// op is one step before the last ones are taken out of the chain.
type op struct {
	stage
	words words // set if the stage is this scanner
	bytes bool  // set if the stage is the byte-level mapping
}

func newPreTokenizer(raw json.RawMessage) (preTokenizer, error) {
	var p preTokenizer
	ops, err := preTokenizerOps(raw, "pre_tokenizer")
	if err != nil {
		return p, err
	}
	if n := len(ops); n > 0 && ops[n-1].bytes {
		p.byteLevel = true
		ops = ops[:n-1]
	}
	if n := len(ops); n > 0 && ops[n-1].words != nil {
		p.words = ops[n-1].words
		ops = ops[:n-1]
	}
	for _, o := range ops {
		p.stages = append(p.stages, o.stage)
	}
	return p, nil
}

// run puts s through the stages.
func (p *preTokenizer) run(s string, first bool, sc *scratch) []piece {
	in, out := append(sc.pieces[:0], piece{s, first}), sc.spare
	for _, st := range p.stages {
		out = out[:0]
		for _, q := range in {
			out = st(out, q)
		}
		in, out = out, in
	}
	sc.pieces, sc.spare = in, out
	return in
}

type preTokenizerSpec struct {
	Type             string
	PreTokenizers    []json.RawMessage `json:"pretokenizers"`
	AddPrefixSpace   *bool             `json:"add_prefix_space"`
	UseRegex         *bool             `json:"use_regex"`
	Pattern          *pattern
	Behavior         string
	Invert           bool
	IndividualDigits bool `json:"individual_digits"`
	Replacement      string
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool
	Delimiter        string
}

// pattern is {"String": …} or {"Regex": …}.
type pattern struct{ String, Regex *string }

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

const maxDepth = 20

func preTokenizerOps(raw json.RawMessage, field string) ([]op, error) {
	if isNull(raw) {
		return nil, nil
	}
	var s preTokenizerSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	one := func(st stage, err error) ([]op, error) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return []op{{stage: st}}, nil
	}
	switch s.Type {
	case "Sequence":
		return sequence(s.PreTokenizers, field+".pretokenizers", preTokenizerOps)
	case "ByteLevel":
		return s.byteLevel(), nil
	case "Split":
		if w := s.knownWords(); w != nil {
			return []op{{stage: splitWords(w), words: w}}, nil
		}
		return one(s.split())
	case "Metaspace":
		return one(s.metaspace())
	case "Digits":
		behavior := "Contiguous"
		if s.IndividualDigits {
			behavior = "Isolated"
		}
		return one(splitOn(matchRunes(unicode.IsNumber), behavior, false))
	case "Whitespace":
		return one(splitOn(matchWordRuns, "Removed", true))
	case "WhitespaceSplit":
		return one(splitOn(matchRunes(unicode.IsSpace), "Removed", false))
	case "Punctuation":
		if s.Behavior == "" {
			s.Behavior = "Isolated"
		}
		return one(splitOn(matchRunes(isPunctuation), s.Behavior, false))
	case "CharDelimiterSplit":
		if utf8.RuneCountInString(s.Delimiter) != 1 {
			return nil, fmt.Errorf("%s.delimiter %q is not one character", field, s.Delimiter)
		}
		return one(splitOn(matchString(s.Delimiter), "Removed", false))
	}
	return nil, fmt.Errorf("%s.type %q is not supported (known: Sequence, ByteLevel, Split, Metaspace, Digits, Whitespace, "+
		"WhitespaceSplit, Punctuation, CharDelimiterSplit)", field, s.Type)
}

// sequence concatenates what the members of a list come to.
func sequence[T any](members []json.RawMessage, field string, build func(json.RawMessage, string) ([]T, error)) ([]T, error) {
	if strings.Count(field, ".") > maxDepth {
		return nil, fmt.Errorf("%.60s… is nested too deeply", field)
	}
	var all []T
	for i, raw := range members {
		part, err := build(raw, fmt.Sprintf("%s[%d]", field, i))
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// isPunctuation is Unicode 8's, which the reference's table is of, and the symbols of ASCII.
func isPunctuation(r rune) bool {
	return unicode.IsPunct(r) && !inPairs(newerPunctuation, r) || r == 0x166D || r == 0x111C9 || r < utf8.RuneSelf && (r > ' ' && r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' || r > 'z' && r < 0x7F)
}

func (s *preTokenizerSpec) byteLevel() []op {
	var ops []op
	if s.AddPrefixSpace == nil || *s.AddPrefixSpace {
		ops = append(ops, op{stage: prefixSpace})
	}
	if s.UseRegex == nil || *s.UseRegex {
		w := gpt2Words()
		ops = append(ops, op{stage: splitWords(w), words: w})
	}
	bytes := func(dst []piece, p piece) []piece { return append(dst, piece{toByteLevel(p.text), p.first}) }
	return append(ops, op{stage: bytes, bytes: true})
}

func prefixSpace(dst []piece, p piece) []piece {
	if !strings.HasPrefix(p.text, " ") {
		p.text = " " + p.text
	}
	return append(dst, p)
}

func splitWords(w words) stage {
	return func(dst []piece, p piece) []piece {
		for i := 0; i < len(p.text); {
			end := w(p.text, i)
			dst = append(dst, piece{p.text[i:end], p.first && i == 0})
			i = end
		}
		return dst
	}
}

// knownWords is the scanner of a pattern that it knows. They match all of a text, so that isolating the matches and
// removing what is between them are the same.
func (s *preTokenizerSpec) knownWords() words {
	if s.Pattern == nil || s.Pattern.Regex == nil || !(s.Behavior == "Isolated" || s.Behavior == "Removed" && s.Invert) {
		return nil
	}
	return knownWords(*s.Pattern.Regex)
}

func (s *preTokenizerSpec) split() (stage, error) {
	match, err := s.Pattern.matcher()
	if err != nil {
		return nil, err
	}
	return splitOn(match, s.Behavior, s.Invert)
}

func (p *pattern) matcher() (matchFunc, error) {
	switch {
	case p != nil && p.Regex != nil:
		return matchRegex(*p.Regex)
	case p != nil && p.String != nil:
		return matchString(*p.String), nil
	}
	return nil, errors.New("pattern: neither String nor Regex is given")
}

func (s *preTokenizerSpec) metaspace() (stage, error) {
	if utf8.RuneCountInString(s.Replacement) != 1 {
		return nil, fmt.Errorf("replacement %q is not one character", s.Replacement)
	}
	scheme := s.PrependScheme
	if scheme == "" {
		scheme = "always"
		if s.AddPrefixSpace != nil && !*s.AddPrefixSpace {
			scheme = "never"
		}
	}
	if scheme != "always" && scheme != "first" && scheme != "never" {
		return nil, fmt.Errorf("prepend_scheme %q is not supported (known: always, first, never)", scheme)
	}
	cut, err := splitOn(matchString(s.Replacement), "MergedWithNext", false)
	if err != nil {
		return nil, err
	}
	return func(dst []piece, p piece) []piece {
		p.text = strings.ReplaceAll(p.text, " ", s.Replacement)
		if !strings.HasPrefix(p.text, s.Replacement) && (scheme == "always" || scheme == "first" && p.first) {
			p.text = s.Replacement + p.text
		}
		if s.Split != nil && !*s.Split {
			return append(dst, p)
		}
		return cut(dst, p)
	}, nil
}

// wordClass is what \w is among others in brackets. Alone it is ²³¹¼½¾, too, which Oniguruma's table for bytes has.
const wordClass = `\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}Ⓐ-ⓩ🄰-🅉🅐-🅩🅰-🆉`

// spellWords spells out \w and, outside of brackets, \W as Oniguruma takes them: regexp2's take joiners, and few marks.
func spellWords(expr string) string {
	var b strings.Builder
	class := 0 // where the brackets' content begins; 0: outside
	for i := 0; i < len(expr); i++ {
		c, n := expr[i], 1
		switch {
		case c == '\\' && i+1 < len(expr):
			n = 2
		case class == 0 && c == '[':
			if class = i + 1; strings.HasPrefix(expr[class:], "^") {
				class, n = class+1, 2
			}
		case c == ']' && i > class:
			class = 0
		}
		switch part := expr[i : i+n]; {
		case part == `\w` && class > 0:
			b.WriteString(wordClass)
		case part == `\w`:
			b.WriteString("[" + wordClass + "²³¹¼½¾]")
		case part == `\W` && class == 0:
			b.WriteString("[^" + wordClass + "²³¹¼½¾]")
		default:
			b.WriteString(part)
		}
		i += n - 1
	}
	return b.String()
}

var posixClass = regexp.MustCompile(`\[:\^?[a-z]+:\]`)

// compile makes a regular expression of the reference's dialect. Its white space and word classes are Unicode's.
func compile(expr string) (re *regexp2.Regexp, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("regular expression %q cannot be read", expr)
		}
	}()
	if c := posixClass.FindString(expr); c != "" { // regexp2 would read over it
		return nil, fmt.Errorf("regular expression %q: %s is not supported (known: \\s, \\d, \\w, \\p{…})", expr, c)
	}
	if re, err = regexp2.Compile(spellWords(expr), regexp2.None); err != nil {
		err = fmt.Errorf("regular expression %q: %w", expr, err)
	}
	return re, err
}
