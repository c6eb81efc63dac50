package tokenizer

import (
	"sync"
	"unicode"
)

// Classes of characters, as the pre-tokenisers' patterns tell them apart.
const (
	other  = iota
	letter // \p{L}
	number // \p{N}
	space  // \s: White_Space
)

// classEnd is where the table ends; beyond are marks, tags and private use, and all of it is other.
const classEnd = 0x32400

// classes is the table of all characters; made once, from unicode's ranges and what Unicode 16 added to them, as the
// reference implementation knows it.
var classes = sync.OnceValue(func() *[classEnd]uint8 {
	t := new([classEnd]uint8)
	fill(t, unicode.L, letter)
	fill(t, unicode.N, number)
	fill(t, unicode.White_Space, space)
	fillPairs(t, newerLetters, letter)
	fillPairs(t, newerNumbers, number)
	return t
})

func fill(t *[classEnd]uint8, table *unicode.RangeTable, class uint8) {
	for _, r := range table.R16 {
		for c := int(r.Lo); c <= int(r.Hi); c += int(r.Stride) {
			t[c] = class
		}
	}
	for _, r := range table.R32 {
		for c := int(r.Lo); c <= int(r.Hi) && c < classEnd; c += int(r.Stride) {
			t[c] = class
		}
	}
}

func fillPairs(t *[classEnd]uint8, pairs [][2]rune, class uint8) {
	for _, p := range pairs {
		for c := p[0]; c <= p[1]; c++ {
			t[c] = class
		}
	}
}

// Letters and numbers of Unicode 16 that Unicode 15 did not have.
var newerLetters = [][2]rune{
	{0x1C89, 0x1C8A}, {0xA7CB, 0xA7CD}, {0xA7DA, 0xA7DC}, {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85},
	{0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5},
	{0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
	{0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0},
	{0x2EBF0, 0x2EE5D},
}

var newerNumbers = [][2]rune{
	{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
	{0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
}

// Punctuation that Unicode 8 did not have.
var newerPunctuation = [][2]rune{
	{0x61D, 0x61D}, {0x9FD, 0x9FD}, {0xA76, 0xA76}, {0xC77, 0xC77}, {0xC84, 0xC84}, {0x1B7D, 0x1B7E}, {0x2E43, 0x2E4F}, {0x2E52, 0x2E5D},
	{0x10EAD, 0x10EAD}, {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B}, {0x1145D, 0x1145D},
	{0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46},
	{0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8},
	{0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F},
}

// isWord is \w of Rust's regular expressions, which Whitespace has; those of Split are Oniguruma's.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control) ||
		r >= newerLetters[0][0] && r < classEnd && (classes()[r] == letter || classes()[r] == number && !unicode.Is(unicode.N, r))
}
