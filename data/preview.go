package data

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// previewTokens bounds how many tokens of a document Preview shows from each end.
const previewTokens = 400

// Preview writes a row as tokens with its loss mask: each run of trained tokens stands on lines that begin with +, each
// run of others on lines with −. Tokens are written as in the vocabulary, white space and what does not print escaped.
func Preview(w io.Writer, r Row, tok Tokenizer, colour bool) error {
	targets := make([]int32, len(r.Tokens))
	active := shift(targets, r)
	p := &preview{w: bufio.NewWriter(w), colour: colour}
	docs := 0
	for lo := 0; lo < len(r.Tokens); docs++ {
		hi := lo
		for hi < len(r.Tokens) && r.Docs[hi] == r.Docs[lo] {
			hi++
		}
		lo = hi
	}
	fmt.Fprintf(p.w, "%d tokens, %d trained, %d documents\n", len(r.Tokens), active, docs)
	for i, id := range r.Tokens {
		if i > 0 && r.Docs[i] != r.Docs[i-1] {
			p.end()
			fmt.Fprintf(p.w, "  document %d\n", r.Docs[i])
		}
		if i >= previewTokens && i < len(r.Tokens)-previewTokens {
			if p.end(); i == previewTokens {
				fmt.Fprintf(p.w, "  … %d tokens\n", len(r.Tokens)-2*previewTokens)
			}
			continue
		}
		p.token(name(tok, id), i > 0 && targets[i-1] >= 0)
	}
	p.end()
	return p.w.Flush()
}

// name is a token as Preview writes it.
func name(tok Tokenizer, id int32) string {
	if tok == nil {
		return strconv.Itoa(int(id))
	}
	s := tok.Token(id)
	if q := strconv.Quote(s); strings.ContainsAny(s, " \t\n") || q != `"`+s+`"` && !strings.ContainsAny(s, `"\`) {
		return q
	}
	return s
}

// preview breaks tokens into lines of one mark each.
type preview struct {
	w      *bufio.Writer
	colour bool
	mark   string // of the open line; "" none
	column int
}

func (p *preview) token(s string, trained bool) {
	mark := "−"
	if trained {
		mark = "+"
	}
	width := utf8.RuneCountInString(s) + 1
	if mark != p.mark || p.column+width > 110 {
		p.end()
		if p.mark = mark; p.colour && trained {
			p.w.WriteString("\x1b[32m")
		}
		p.w.WriteString("  " + mark)
		p.column = 3
	}
	p.w.WriteString(" " + s)
	p.column += width
}

func (p *preview) end() {
	if p.mark == "" {
		return
	}
	if p.colour && p.mark == "+" {
		p.w.WriteString("\x1b[0m")
	}
	p.w.WriteString("\n")
	p.mark = ""
}
