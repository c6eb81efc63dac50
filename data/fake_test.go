package data

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// bpe is a byte-level BPE tokenizer without a pre-tokeniser: ids 0 … 255 are bytes, then merges, then special tokens.
type bpe struct {
	merges   [][2]string
	special  []string
	eos      string
	template string
	noBOS    bool
}

func (b *bpe) VocabSize() int       { return 256 + len(b.merges) + len(b.special) }
func (b *bpe) ChatTemplate() string { return b.template }
func (b *bpe) BOS() (int32, bool)   { return b.id("<s>") }
func (b *bpe) EOS() (int32, bool)   { return b.id(b.eos) }

func (b *bpe) SpecialTokens() map[string]string {
	return map[string]string{"bos_token": "<s>", "eos_token": b.eos}
}

func (b *bpe) id(special string) (int32, bool) {
	for i, s := range b.special {
		if s == special {
			return int32(256 + len(b.merges) + i), true
		}
	}
	return -1, false
}

func (b *bpe) Token(id int32) string {
	switch i := int(id); {
	case i < 256:
		return string([]byte{byte(i)})
	case i < 256+len(b.merges):
		return strings.Join(b.merges[i-256][:], "")
	default:
		return b.special[i-256-len(b.merges)]
	}
}

func (b *bpe) Encode(text string, special bool) (ids []int32) {
	if bos, ok := b.BOS(); ok && special && !b.noBOS {
		ids = append(ids, bos)
	}
	for text != "" {
		at, first := len(text), ""
		for _, s := range b.special {
			if i := strings.Index(text, s); i >= 0 && i < at {
				at, first = i, s
			}
		}
		ids = append(ids, b.word(text[:at])...)
		if first != "" {
			id, _ := b.id(first)
			ids = append(ids, id)
		}
		text = text[at+len(first):]
	}
	return ids
}

// word merges by rank, lowest first.
func (b *bpe) word(text string) (ids []int32) {
	parts := make([]string, len(text))
	for i := range parts {
		parts[i] = text[i : i+1]
	}
	for range len(text) {
		best, at := len(b.merges), 0
		for i := 0; i+1 < len(parts); i++ {
			for r, m := range b.merges[:best] {
				if m[0] == parts[i] && m[1] == parts[i+1] {
					best, at = r, i
					break
				}
			}
		}
		if best == len(b.merges) {
			break
		}
		parts = append(parts[:at:at], append([]string{parts[at] + parts[at+1]}, parts[at+2:]...)...)
	}
	for _, p := range parts {
		ids = append(ids, b.piece(p))
	}
	return ids
}

func (b *bpe) piece(p string) int32 {
	if len(p) == 1 {
		return int32(p[0])
	}
	for r, m := range b.merges {
		if m[0]+m[1] == p {
			return int32(256 + r)
		}
	}
	panic("no piece " + p)
}

type goldens struct {
	Merges  [][2][]int `json:"merges"`
	Special []string   `json:"special"`
	Chat    []struct {
		Name, Template, Marked, Eos, Text, Prompted string
		Messages, Tools                             json.RawMessage
		IDs, Labels                                 []int32
	} `json:"chat"`
	Rows []struct {
		Row         json.RawMessage `json:"row"`
		IDs, Labels []int32
	} `json:"rows"`
	SentencePiece []struct {
		Template    string
		Row         json.RawMessage `json:"row"`
		IDs, Labels []int32
	} `json:"sentencepiece"`
}

func golden(t testing.TB) (goldens, *bpe) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldens
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	b := &bpe{special: g.Special, eos: "</s>"}
	for _, m := range g.Merges {
		var pair [2]string
		for i, bytes := range m {
			for _, x := range bytes {
				pair[i] += string([]byte{byte(x)})
			}
		}
		b.merges = append(b.merges, pair)
	}
	return g, b
}
