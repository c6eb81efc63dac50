package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// The byte-level alphabet (GPT-2) gives each byte a visible character: the printable ones of Latin-1 stand for
// themselves, the other 68 follow from U+0100 on in the order of their bytes.

func byteVisible(b byte) bool { return b >= '!' && b <= '~' || b >= 0xA1 && b != 0xAD }

// byteRune is the character of b.
func byteRune(b byte) rune {
	switch {
	case byteVisible(b):
		return rune(b)
	case b <= ' ':
		return 0x100 + rune(b)
	case b == 0xAD:
		return 0x143
	}
	return 0x121 + rune(b-0x7F) // 0x7F … 0xA0
}

// runeByte is the byte of r.
func runeByte(r rune) (byte, bool) {
	switch {
	case r < 0x100:
		return byte(r), byteVisible(byte(r))
	case r <= 0x120:
		return byte(r - 0x100), true
	case r <= 0x142:
		return byte(r - 0x121 + 0x7F), true
	}
	return 0xAD, r == 0x143
}

func appendByteLevel(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		dst = utf8.AppendRune(dst, byteRune(s[i]))
	}
	return dst
}

func toByteLevel(s string) string { return string(appendByteLevel(make([]byte, 0, 2*len(s)), s)) }

// appendFromByteLevel appends the bytes of a token; one with a character outside the alphabet stands for itself.
func appendFromByteLevel(dst []byte, token string) []byte {
	n := len(dst)
	for _, r := range token {
		b, ok := runeByte(r)
		if !ok {
			return append(dst[:n], token...)
		}
		dst = append(dst, b)
	}
	return dst
}

// validUTF8 replaces each maximal part of s that begins no character by U+FFFD: what Python's
// bytes.decode("utf-8", "replace") gives.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if r, n := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
			b.WriteString(s[i : i+n])
			i += n
			continue
		}
		b.WriteRune(utf8.RuneError)
		i += brokenLen(s[i:])
	}
	return b.String()
}

// brokenLen is the length of the longest beginning of s that could have begun a character, at least 1.
func brokenLen(s string) int {
	want, low, high := 0, byte(0x80), byte(0xBF)
	switch b := s[0]; {
	case b >= 0xC2 && b <= 0xDF:
		want = 1
	case b >= 0xE0 && b <= 0xEF:
		want = 2
		if b == 0xE0 {
			low = 0xA0
		} else if b == 0xED {
			high = 0x9F
		}
	case b >= 0xF0 && b <= 0xF4:
		want = 3
		if b == 0xF0 {
			low = 0x90
		} else if b == 0xF4 {
			high = 0x8F
		}
	}
	n := 1
	for n <= want && n < len(s) && s[n] >= low && s[n] <= high {
		low, high = 0x80, 0xBF
		n++
	}
	return n
}
