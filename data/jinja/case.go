package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func upper(s string) string { return cases.Upper(language.Und).String(s) }
func lower(s string) string { return cases.Lower(language.Und).String(s) }
func fold(s string) string  { return cases.Fold().String(s) }

// capitalize is Python's: the first character as in a title, the rest lower.
func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	first := s[:n]
	return cases.Title(language.Und, cases.NoLower).String(first) + strings.TrimPrefix(lower(s), lower(first))
}

// title is Python's str.title: letters that no letter precedes begin a word.
func title(s string) string {
	var b strings.Builder
	for s != "" {
		n := strings.IndexFunc(s, func(r rune) bool { return !hasCase(r) })
		if n < 0 {
			n = len(s)
		}
		b.WriteString(capitalize(s[:n]))
		s = s[n:]
		if n = strings.IndexFunc(s, hasCase); n < 0 {
			n = len(s)
		}
		b.WriteString(s[:n])
		s = s[n:]
	}
	return b.String()
}

// titleFilter is Jinja's filter of that name: words begin after white space, - and an opening bracket.
func titleFilter(s string) string {
	var b strings.Builder
	border := func(r rune) bool { return space(r) || strings.ContainsRune("-({[<", r) }
	for s != "" {
		n := strings.IndexFunc(s, border)
		if n < 0 {
			n = len(s)
		}
		_, first := utf8.DecodeRuneInString(s[:n])
		b.WriteString(upper(s[:first]) + lower(s[first:n]))
		s = s[n:]
		if n = strings.IndexFunc(s, func(r rune) bool { return !border(r) }); n < 0 {
			n = len(s)
		}
		b.WriteString(s[:n])
		s = s[n:]
	}
	return b.String()
}

func isUpper(r rune) bool { return unicode.In(r, unicode.Lu, unicode.Other_Uppercase) }
func isLower(r rune) bool { return unicode.In(r, unicode.Ll, unicode.Other_Lowercase) }
func hasCase(r rune) bool { return isUpper(r) || isLower(r) || unicode.IsTitle(r) }

// cased reports whether a string has letters of a case, and none of another.
func cased(s string, is, never func(rune) bool) bool {
	return strings.IndexFunc(s, never) < 0 && !strings.ContainsFunc(s, unicode.IsTitle) && strings.ContainsFunc(s, is)
}

// Digits of Unicode that are no decimal ones: ², ①, ….
var otherDigits = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0xB2, Hi: 0xB3, Stride: 1}, {Lo: 0xB9, Hi: 0xB9, Stride: 1}, {Lo: 0x1369, Hi: 0x1371, Stride: 1}, {Lo: 0x19DA, Hi: 0x19DA, Stride: 1},
	{Lo: 0x2070, Hi: 0x2070, Stride: 1}, {Lo: 0x2074, Hi: 0x2079, Stride: 1}, {Lo: 0x2080, Hi: 0x2089, Stride: 1}, {Lo: 0x2460, Hi: 0x2468, Stride: 1},
	{Lo: 0x2474, Hi: 0x247C, Stride: 1}, {Lo: 0x2488, Hi: 0x2490, Stride: 1}, {Lo: 0x24EA, Hi: 0x24EA, Stride: 1}, {Lo: 0x24F5, Hi: 0x24FD, Stride: 1},
	{Lo: 0x24FF, Hi: 0x24FF, Stride: 1}, {Lo: 0x2776, Hi: 0x277E, Stride: 1}, {Lo: 0x2780, Hi: 0x2788, Stride: 1}, {Lo: 0x278A, Hi: 0x2792, Stride: 1},
}, R32: []unicode.Range32{
	{Lo: 0x10A40, Hi: 0x10A43, Stride: 1}, {Lo: 0x10E60, Hi: 0x10E68, Stride: 1}, {Lo: 0x11052, Hi: 0x1105A, Stride: 1}, {Lo: 0x1F100, Hi: 0x1F10A, Stride: 1},
}, LatinOffset: 2}

// numerals are the ideographs that are numbers.
const numerals = "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零\uf96b\uf973\uf978\uf9b2\uf9d1\uf9d3\uf9fd\U00020001\U00020064\U000200e2\U00020121\U0002092a\U00020983\U0002098c\U0002099c\U00020aea\U00020afd\U00020b19\U00022390\U00022998\U00023b1b\U0002626d\U0002f890"

func isDigit(r rune) bool   { return unicode.IsDigit(r) || unicode.Is(otherDigits, r) }
func isNumeric(r rune) bool { return unicode.IsNumber(r) || strings.ContainsRune(numerals, r) }
