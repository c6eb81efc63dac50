package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token beside the model's vocabulary, found in the text before the model sees it.
type addedToken struct {
	ID         int32
	Content    string
	SingleWord bool  `json:"single_word"` // only between characters that are no word characters
	LStrip     bool  `json:"lstrip"`      // takes the white space before it along
	RStrip     bool  `json:"rstrip"`      // and behind it
	Normalized *bool // looked for in the normalised text; default: unless special
	Special    bool  // left out by Decode on request
}

func (a *addedToken) normalized() bool {
	if a.Normalized == nil {
		return !a.Special
	}
	return *a.Normalized
}

// matcher finds added tokens in a text: a trie, the leftmost and there the longest.
type matcher struct {
	nodes  []trieNode
	first  [256]bool
	lone   string // the only first byte, if there is one only
	tokens []*addedToken
}

type trieNode struct {
	token int32 // index in tokens, or −1
	edges []trieEdge
}

type trieEdge struct {
	b    byte
	node int32
}

func (m *matcher) add(content string, a *addedToken) {
	if content == "" {
		return
	}
	if m.nodes == nil {
		m.nodes = []trieNode{{token: -1}}
	}
	at := int32(0)
	for i := 0; i < len(content); i++ {
		next := m.step(at, content[i])
		if next < 0 {
			next = int32(len(m.nodes))
			m.nodes[at].edges = append(m.nodes[at].edges, trieEdge{content[i], next})
			m.nodes = append(m.nodes, trieNode{token: -1})
		}
		at = next
	}
	m.nodes[at].token = int32(len(m.tokens))
	m.tokens = append(m.tokens, a)
	m.first[content[0]] = true
	if len(m.nodes[0].edges) == 1 {
		m.lone = content[:1]
	} else {
		m.lone = ""
	}
}

func (m *matcher) step(at int32, b byte) int32 {
	for _, e := range m.nodes[at].edges {
		if e.b == b {
			return e.node
		}
	}
	return -1
}

// find is the next match in s from byte i on; hi = 0 if there is none.
func (m *matcher) find(s string, i int) (lo, hi int, a *addedToken) {
	for ; i < len(s); i++ {
		if m.lone != "" {
			j := strings.Index(s[i:], m.lone)
			if j < 0 {
				return 0, 0, nil
			}
			i += j
		} else if !m.first[s[i]] {
			continue
		}
		at := int32(0)
		for j := i; j < len(s); j++ {
			if at = m.step(at, s[j]); at < 0 {
				break
			}
			if t := m.nodes[at].token; t >= 0 {
				hi, a = j+1, m.tokens[t]
			}
		}
		if a != nil {
			return i, hi, a
		}
	}
	return 0, 0, nil
}

// split calls text for the parts between added tokens (from byte lo of s on) and token for the tokens.
func (m *matcher) split(s string, text func(part string, lo int), token func(id int32)) {
	if m.nodes == nil {
		text(s, 0)
		return
	}
	done, from := 0, 0
	for {
		lo, hi, a := m.find(s, from)
		if a == nil {
			break
		}
		from = hi
		if a.SingleWord && (endsWithWord(s[:lo]) || startsWithWord(s[hi:])) {
			continue
		}
		if a.LStrip {
			lo = max(len(strings.TrimRightFunc(s[:lo], unicode.IsSpace)), done)
		}
		if a.RStrip {
			hi = len(s) - len(strings.TrimLeftFunc(s[hi:], unicode.IsSpace))
		}
		if done < lo {
			text(s[done:lo], done)
		}
		if lo < hi {
			token(a.ID)
		}
		done = hi
	}
	if done < len(s) {
		text(s[done:], done)
	}
}

func endsWithWord(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return s != "" && isWord(r)
}

func startsWithWord(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return s != "" && isWord(r)
}

// resolveAdded gives every added token the id that it has in the vocabulary, or else the next free one, in the
// order of the file. That is the file's own id in every sound file.
func resolveAdded(tokens []addedToken, vocab map[string]int32) []addedToken {
	known := make(map[string]int, len(tokens))
	next := int32(len(vocab))
	var out []addedToken
	for _, a := range tokens {
		if a.Content == "" {
			continue
		}
		id, ok := vocab[a.Content]
		at, again := known[a.Content]
		switch {
		case again:
			id = out[at].ID
		case !ok:
			id = next
			next++
		}
		a.ID = id
		if again {
			out[at] = a
		} else {
			known[a.Content] = len(out)
			out = append(out, a)
		}
	}
	return slices.Clip(out)
}
