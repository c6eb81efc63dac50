package jinja

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind int

const (
	tData  kind = iota // text between tags
	tBlock             // {%
	tVar               // {{
	tEnd               // %} or }}
	tName
	tNumber
	tString
	tOp
	tEOF
)

type token struct {
	kind kind
	text string // of a string: its value
	line int
}

// lexer cuts a template into tokens as Jinja does with trim_blocks and lstrip_blocks set: a line end after a block tag
// or comment goes, and so do blanks before one that stands first on its line. {%- and -%} strip all white space, {%+ and
// +%} none.
type lexer struct {
	src       string
	pos       int
	line      int
	lineStart bool // what was read last ended in a line end
	out       []token
}

func lex(src string) []token {
	src = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(src)
	src = strings.TrimSuffix(src, "\n")
	l := &lexer{src: src, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		l.text()
	}
	l.add(tEOF, "")
	return l.out
}

func (l *lexer) add(k kind, text string) { l.out = append(l.out, token{k, text, l.line}) }

func (l *lexer) skip(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

func (l *lexer) fail(format string, args ...any) {
	panic(failure(format, args...).at(l.line))
}

// text reads up to the next tag, and the tag.
func (l *lexer) text() {
	rest := l.src[l.pos:]
	n := next(rest)
	if n < 0 {
		l.data(rest)
		l.skip(len(rest))
		return
	}
	open, text := rest[n:n+2], rest[:n]
	sign := byte(0)
	if n+2 < len(rest) && (rest[n+2] == '-' || rest[n+2] == '+') {
		sign = rest[n+2]
	}
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, space)
	case sign == 0 && open != "{{":
		at := strings.LastIndexByte(text, '\n') + 1
		if (at > 0 || l.lineStart) && strings.TrimFunc(text[at:], space) == "" {
			text = text[:at]
		}
	}
	l.data(text)
	l.skip(n + 2)
	if sign != 0 {
		l.skip(1)
	}
	switch open {
	case "{#":
		l.comment()
	case "{%":
		if !l.raw() {
			l.add(tBlock, open)
			l.tag("%}")
		}
	default:
		l.add(tVar, open)
		l.tag("}}")
	}
}

// next returns where the next tag begins.
func next(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '{' && (s[i+1] == '{' || s[i+1] == '%' || s[i+1] == '#') {
			return i
		}
	}
	return -1
}

func (l *lexer) data(text string) {
	if text != "" {
		l.add(tData, text)
	}
}

func (l *lexer) comment() {
	n := strings.Index(l.src[l.pos:], "#}")
	if n < 0 {
		l.fail("a comment does not end")
	}
	sign := byte(0)
	if n > 0 {
		sign = l.src[l.pos+n-1]
	}
	l.skip(n + 2)
	l.after("#}", sign)
}

// after strips what follows a tag that ended in closing with a sign before it.
func (l *lexer) after(closing string, sign byte) {
	rest, n := l.src[l.pos:], 0
	switch {
	case sign == '-':
		n = len(rest) - len(strings.TrimLeftFunc(rest, space))
	case sign != '+' && closing != "}}" && strings.HasPrefix(rest, "\n"):
		n = 1
	}
	l.lineStart = n > 0 && rest[n-1] == '\n'
	l.skip(n)
}

// raw reads {% raw %} … {% endraw %}, of which the first {% has been read.
func (l *lexer) raw() bool {
	begin, sign, ok := word(l.src[l.pos:], "raw")
	if !ok {
		return false
	}
	l.skip(begin)
	l.after("%}", sign)
	for from := l.pos; ; {
		i := strings.Index(l.src[from:], "{%")
		if i < 0 {
			l.fail("{%% raw %%} does not end")
		}
		i += from
		from = i + 2
		left := byte(0)
		if from < len(l.src) && (l.src[from] == '-' || l.src[from] == '+') {
			left = l.src[from]
			from++
		}
		end, sign, ok := word(l.src[from:], "endraw")
		if !ok {
			continue
		}
		text := l.src[l.pos:i]
		if left == '-' {
			text = strings.TrimRightFunc(text, space)
		} else if at := strings.LastIndexByte(text, '\n') + 1; left == 0 && at > 0 && strings.TrimFunc(text[at:], space) == "" {
			text = text[:at]
		}
		l.data(text)
		l.skip(from + end - l.pos)
		l.after("%}", sign)
		return true
	}
}

// word matches a tag of one word and its end at the beginning of s.
func word(s, name string) (n int, sign byte, ok bool) {
	t := strings.TrimLeftFunc(s, space)
	if t, ok = strings.CutPrefix(t, name); !ok {
		return
	}
	t = strings.TrimLeftFunc(t, space)
	if t != "" && (t[0] == '-' || t[0] == '+') {
		sign, t = t[0], t[1:]
	}
	t, ok = strings.CutPrefix(t, "%}")
	return len(s) - len(t), sign, ok
}

var operators = []string{"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]",
	"{", "}", ",", ".", ":", "|"}

// tag reads the tokens of a tag and its end.
func (l *lexer) tag(closing string) {
	for depth := 0; ; {
		rest := strings.TrimLeftFunc(l.src[l.pos:], space)
		l.skip(len(l.src) - l.pos - len(rest))
		if rest == "" {
			l.fail("a tag does not end with %s", closing)
		}
		if sign := rest[0]; depth == 0 && (sign == '-' || sign == '+') && strings.HasPrefix(rest[1:], closing) {
			l.skip(3)
			l.add(tEnd, closing)
			l.after(closing, sign)
			return
		}
		if depth == 0 && strings.HasPrefix(rest, closing) {
			l.skip(2)
			l.add(tEnd, closing)
			l.after(closing, 0)
			return
		}
		op := l.token(rest)
		switch op {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		}
	}
}

// token reads one token inside a tag and returns it if it is an operator.
func (l *lexer) token(rest string) string {
	c, _ := utf8.DecodeRuneInString(rest)
	switch {
	case c == '\'' || c == '"':
		l.quoted(rest)
		return ""
	case c == '_' || unicode.IsLetter(c):
		n := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if n < 0 {
			n = len(rest)
		}
		l.add(tName, rest[:n])
		l.skip(n)
		return ""
	case c >= '0' && c <= '9':
		l.number(rest)
		return ""
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			l.add(tOp, op)
			l.skip(len(op))
			return op
		}
	}
	l.fail("unexpected %q", c)
	return ""
}

func (l *lexer) number(rest string) {
	digit := func(i int) bool { return i < len(rest) && (rest[i] >= '0' && rest[i] <= '9' || rest[i] == '_') }
	n := 0
	for digit(n) {
		n++
	}
	if n < len(rest) && rest[n] == '.' && digit(n+1) {
		for n++; digit(n); n++ {
		}
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		m := n + 1
		if m < len(rest) && (rest[m] == '+' || rest[m] == '-') {
			m++
		}
		if digit(m) {
			for n = m; digit(n); n++ {
			}
		}
	}
	l.add(tNumber, strings.ReplaceAll(rest[:n], "_", ""))
	l.skip(n)
}

func (l *lexer) quoted(rest string) {
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case rest[0]:
			l.add(tString, l.unescape(rest[1:i]))
			l.skip(i + 1)
			return
		}
	}
	l.fail("a string does not end")
}

// unescape resolves the escapes of a Python string.
func (l *lexer) unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if at := strings.IndexByte(`abfnrtv\'"`, s[i]); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
		} else if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]; digits > 0 {
			end := min(i+1+digits, len(s))
			r, err := strconv.ParseUint(s[i+1:end], 16, 32)
			if err != nil || end-i-1 < digits {
				l.fail("malformed escape \\%s in a string", s[i:end])
			}
			b.WriteRune(rune(r))
			i = end - 1
		} else if s[i] != '\n' {
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// space is Python's str.isspace.
func space(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
