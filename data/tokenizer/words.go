package tokenizer

import "unicode/utf8"

// words finds the end of the word that begins at byte i: a pre-tokeniser's pattern as a hand-written scanner, since
// such patterns end with \s+(?!\S)|\s+, which Go's regexp cannot say, and since it is a hundred times faster.
type words func(s string, i int) int

// knownWords are the patterns with a scanner of their own.
func knownWords(pattern string) words {
	switch pattern {
	case gpt2Pattern:
		return gpt2Words()
	case llama3Pattern:
		return llama3Words(3)
	case qwen2Pattern:
		return llama3Words(1)
	}
	return nil
}

const (
	gpt2Pattern   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// classTable looks classes up.
type classTable [classEnd]uint8

// at gives the class and the length of the character at byte i; an empty rest is (space, 0).
func (t *classTable) at(s string, i int) (class uint8, n int) {
	if i >= len(s) {
		return space, 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		return t[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if r >= classEnd {
		return other, n
	}
	return t[r], n
}

// run is the end of the run of class that begins at i.
func (t *classTable) run(s string, i int, class uint8) int {
	for {
		c, n := t.at(s, i)
		if c != class || n == 0 {
			return i
		}
		i += n
	}
}

// spaces matches \s+(?!\S)|\s+ at i: all of the run, or without its last character if a word follows.
func (t *classTable) spaces(s string, i int) int {
	end, last := i, i
	for {
		c, n := t.at(s, end)
		if n == 0 {
			return end
		}
		if c != space {
			break
		}
		last = end
		end += n
	}
	if last == i {
		return end
	}
	return last
}

func gpt2Words() words {
	t := (*classTable)(classes())
	return func(s string, i int) int {
		if s[i] == '\'' {
			if n := contraction(s[i+1:], false); n > 0 {
				return i + 1 + n
			}
		}
		class, n := t.at(s, i)
		if s[i] == ' ' {
			if next, m := t.at(s, i+1); next != space {
				class, n = next, 1+m
			}
		}
		if class == space {
			return t.spaces(s, i)
		}
		return t.run(s, i+n, class)
	}
}

// llama3Words is LLaMA-3's pattern (digits = 3 at a time) and Qwen2's (1).
func llama3Words(digits int) words {
	t := (*classTable)(classes())
	return func(s string, i int) int {
		if s[i] == '\'' {
			if n := contraction(s[i+1:], true); n > 0 {
				return i + 1 + n
			}
		}
		class, n := t.at(s, i)
		switch class {
		case letter:
			return t.run(s, i+n, letter)
		case number:
			for d := 1; d < digits; d++ {
				c, m := t.at(s, i+n)
				if c != number || m == 0 {
					break
				}
				n += m
			}
			return i + n
		}
		next, m := t.at(s, i+n)
		if next == letter && s[i] != '\r' && s[i] != '\n' {
			return t.run(s, i+n+m, letter)
		}
		if class == other {
			return lines(s, t.run(s, i+n, other))
		}
		if s[i] == ' ' && next == other {
			return lines(s, t.run(s, i+n+m, other))
		}
		if end := t.breaks(s, i); end > i {
			return end
		}
		return t.spaces(s, i)
	}
}

// lines is the end of [\r\n]* at i.
func lines(s string, i int) int {
	for i < len(s) && (s[i] == '\r' || s[i] == '\n') {
		i++
	}
	return i
}

// breaks matches \s*[\r\n]+ at i: up to the last line break of the run of white space, or i if it has none.
func (t *classTable) breaks(s string, i int) int {
	end := i
	for {
		c, n := t.at(s, i)
		if c != space || n == 0 {
			return end
		}
		if s[i] == '\r' || s[i] == '\n' {
			end = i + 1
		}
		i += n
	}
}

// contraction is the length of s, t, re, ve, m, ll or d at the beginning of s. With fold upper case counts, too, and
// the long s (U+017F), which folds to s.
func contraction(s string, fold bool) int {
	if len(s) == 0 {
		return 0
	}
	a, b := s[0], byte(0)
	if len(s) > 1 {
		b = s[1]
	}
	if fold {
		if a == 0xC5 && b == 0xBF {
			return 2
		}
		a, b = lower(a), lower(b)
	}
	switch {
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 1
	case (a == 'r' || a == 'v') && b == 'e', a == 'l' && b == 'l':
		return 2
	}
	return 0
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	return b
}
