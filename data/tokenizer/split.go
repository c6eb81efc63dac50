package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// span is a part of a text, from lo up to hi; match tells whether a pattern matched it or it lies between matches.
type span struct {
	lo, hi int
	match  bool
}

// matchFunc appends spans that cover all of s.
type matchFunc func(dst []span, s string) []span

// splitOn cuts a piece at the matches, which are kept or not as behavior says; invert swaps matches and the rest.
func splitOn(match matchFunc, behavior string, invert bool) (stage, error) {
	arrange := map[string]func([]span) []span{
		"Isolated":           func(s []span) []span { return s },
		"Removed":            func(s []span) []span { return slices.DeleteFunc(s, func(x span) bool { return x.match }) },
		"Contiguous":         contiguous,
		"MergedWithPrevious": mergedWithPrevious,
		"MergedWithNext":     mergedWithNext,
	}[behavior]
	if arrange == nil {
		return nil, fmt.Errorf("behavior %q is not supported (known: Isolated, Removed, Contiguous, MergedWithPrevious, MergedWithNext)", behavior)
	}
	return func(dst []piece, p piece) []piece {
		spans := match(nil, p.text)
		if invert {
			for i := range spans {
				spans[i].match = !spans[i].match
			}
		}
		for _, x := range arrange(spans) {
			if x.lo < x.hi {
				dst = append(dst, piece{p.text[x.lo:x.hi], p.first && x.lo == 0})
			}
		}
		return dst
	}, nil
}

// contiguous joins neighbours of the same kind.
func contiguous(spans []span) []span {
	var out []span
	for i, x := range spans {
		if i > 0 && x.match == spans[i-1].match {
			out[len(out)-1].hi = x.hi
		} else {
			out = append(out, x)
		}
	}
	return out
}

// mergedWithPrevious joins a match to what precedes it; the second of two matches stays alone.
func mergedWithPrevious(spans []span) []span {
	var out []span
	for i, x := range spans {
		if i > 0 && x.match && !spans[i-1].match {
			out[len(out)-1].hi = x.hi
		} else {
			out = append(out, x)
		}
	}
	return out
}

// mergedWithNext joins a match to what follows it; the first of two matches stays alone.
func mergedWithNext(spans []span) []span {
	var out []span
	for i, x := range spans {
		if i > 0 && !x.match && spans[i-1].match {
			out[len(out)-1].hi = x.hi
		} else {
			out = append(out, x)
		}
	}
	return out
}

// cover appends the match lo:hi and, before it, what was left over since prev.
func cover(dst []span, prev, lo, hi int) []span {
	if prev < lo {
		dst = append(dst, span{prev, lo, false})
	}
	return append(dst, span{lo, hi, true})
}

func rest(dst []span, prev int, s string) []span {
	if prev < len(s) {
		dst = append(dst, span{prev, len(s), false})
	}
	return dst
}

func matchString(pattern string) matchFunc {
	return func(dst []span, s string) []span {
		prev := 0
		for pattern != "" {
			i := strings.Index(s[prev:], pattern)
			if i < 0 {
				break
			}
			dst = cover(dst, prev, prev+i, prev+i+len(pattern))
			prev += i + len(pattern)
		}
		return rest(dst, prev, s)
	}
}

// matchRunes matches each single character that is one.
func matchRunes(is func(rune) bool) matchFunc {
	return func(dst []span, s string) []span {
		prev := 0
		for i, r := range s {
			if is(r) {
				end := i + utf8.RuneLen(r)
				dst = cover(dst, prev, i, end)
				prev = end
			}
		}
		return rest(dst, prev, s)
	}
}

// matchWordRuns matches \w+|[^\w\s]+.
func matchWordRuns(dst []span, s string) []span {
	kind := func(r rune) int {
		switch {
		case isWord(r):
			return 1
		case unicode.IsSpace(r):
			return 0
		}
		return 2
	}
	start, last := 0, 0
	for i, r := range s {
		if k := kind(r); i == 0 || k != last {
			if i > 0 {
				dst = append(dst, span{start, i, last != 0})
			}
			start, last = i, k
		}
	}
	if s != "" {
		dst = append(dst, span{start, len(s), last != 0})
	}
	return dst
}

// matchRegex matches a regular expression by backtracking: right, but slow.
func matchRegex(expr string) (matchFunc, error) {
	re, err := compile(expr)
	if err != nil {
		return nil, err
	}
	return func(dst []span, s string) []span {
		offsets := make([]int, 0, len(s)+1)
		runes := make([]rune, 0, len(s))
		for i, r := range s {
			offsets, runes = append(offsets, i), append(runes, r)
		}
		offsets = append(offsets, len(s))
		prev := 0
		m, err := re.FindRunesMatch(runes)
		for ; m != nil && err == nil; m, err = re.FindNextMatch(m) {
			lo, hi := offsets[m.Index], offsets[m.Index+m.Length]
			dst = cover(dst, prev, lo, hi)
			prev = hi
		}
		return rest(dst, prev, s)
	}, nil
}
