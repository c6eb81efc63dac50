package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The reference normalises by Unicode 9: marks that came later have no combining class there, and characters that
// came later no decomposition. These are the ones that x/text (Unicode 15) treats otherwise. It also does not break
// runs of more than 30 marks, as x/text does (the stream-safe format).
var newerMarks = [][2]rune{
	{0x07FD, 0x07FD}, {0x0898, 0x089F}, {0x08CA, 0x08D3}, {0x09FE, 0x09FE}, {0x0C3C, 0x0C3C}, {0x0D3B, 0x0D3C},
	{0x0EBA, 0x0EBA}, {0x1715, 0x1715}, {0x1ABF, 0x1ACE}, {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C}, {0x10D24, 0x10D27},
	{0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
	{0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
	{0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
	{0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
	{0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
}

var newerCompatibles = [][2]rune{
	{0x32FF, 0x32FF}, {0xA7F2, 0xA7F4}, {0xAB69, 0xAB69}, {0x10781, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
	{0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
}

func inPairs(pairs [][2]rune, r rune) bool {
	for _, p := range pairs {
		if r <= p[1] {
			return r >= p[0]
		}
	}
	return false
}

// unicodeForm is normal form f; d is the form that decomposes the same way. What is in form already is not touched;
// the rest goes character by character, from one character that begins a segment to the next.
func unicodeForm(f, d norm.Form) normalizer {
	return func(s string) string {
		n := f.QuickSpanString(s)
		if n == len(s) {
			return s
		}
		var b strings.Builder
		for {
			for n > 0 && !startsSegment(f, s[n:]) {
				_, back := utf8.DecodeLastRuneInString(s[:n])
				n -= back
			}
			b.WriteString(s[:n])
			end := segmentEnd(f, s, n)
			b.WriteString(formSegment(f, d, s[n:end]))
			if s = s[end:]; s == "" {
				return b.String()
			}
			n = f.QuickSpanString(s)
			if n == len(s) {
				b.WriteString(s)
				return b.String()
			}
		}
	}
}

func startsSegment(f norm.Form, s string) bool { return f.PropertiesString(s).BoundaryBefore() }

func segmentEnd(f norm.Form, s string, i int) int {
	for {
		_, n := utf8.DecodeRuneInString(s[i:])
		if i += n; i >= len(s) || startsSegment(f, s[i:]) {
			return i
		}
	}
}

// formSegment normalises one segment: decompose, order the marks, compose.
func formSegment(f, d norm.Form, s string) string {
	var runes []rune
	var ccc []uint8
	for _, r := range s {
		if d == norm.NFKD && inPairs(newerCompatibles, r) {
			runes, ccc = append(runes, r), append(ccc, 0)
			continue
		}
		for _, c := range d.String(string(r)) {
			runes, ccc = append(runes, c), append(ccc, combiningClass(c))
		}
	}
	orderMarks(runes, ccc)
	if f != d {
		runes = compose(runes, ccc)
	}
	return string(runes)
}

func combiningClass(r rune) uint8 {
	if r < 0x300 || inPairs(newerMarks, r) {
		return 0
	}
	var room [utf8.UTFMax]byte
	return norm.NFD.Properties(utf8.AppendRune(room[:0], r)).CCC()
}

// orderMarks sorts every run of marks by combining class, stably.
func orderMarks(runes []rune, ccc []uint8) {
	for lo := 0; lo < len(runes); lo++ {
		hi := lo
		for hi < len(runes) && ccc[hi] != 0 {
			hi++
		}
		if hi-lo > 1 {
			sortRun(runes[lo:hi], ccc[lo:hi])
		}
		lo = max(lo, hi-1)
	}
}

func sortRun(runes []rune, ccc []uint8) {
	order := make([]int, len(runes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(ccc[a]) - int(ccc[b]) })
	r, c := slices.Clone(runes), slices.Clone(ccc)
	for i, o := range order {
		runes[i], ccc[i] = r[o], c[o]
	}
}

// compose joins each character with the last starter unless one of the same or a higher class stands between.
func compose(runes []rune, ccc []uint8) []rune {
	out, classes := runes[:0], ccc[:0]
	starter := -1
	for i, r := range runes {
		c := ccc[i]
		if starter >= 0 {
			last := len(out) - 1
			if last == starter || classes[last] != 0 && classes[last] < c {
				if joined, ok := composePair(out[starter], r); ok {
					out[starter] = joined
					continue
				}
			}
		}
		out, classes = append(out, r), append(classes, c)
		if c == 0 {
			starter = len(out) - 1
		}
	}
	return out
}

func composePair(a, b rune) (rune, bool) {
	if inPairs(newerMarks, a) || inPairs(newerMarks, b) {
		return 0, false
	}
	s := norm.NFC.String(string(a) + string(b))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s)
}
