package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The goldens are those of Hugging Face tokenizers: testdata/generate.py.

var families = []string{"gpt2", "roberta", "llama3", "qwen2", "otherregex", "added", "llama2", "metaspace", "unk", "fewbytes", "affixes", "sentencepiece"}

type golden struct {
	IDs, Before, After []int32
	Text, Bare         *string
}

func readJSON(t testing.TB, path string, dst any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, dst); err != nil {
		t.Fatal(path, err)
	}
}

func load(t testing.TB, family string) *Tokenizer {
	t.Helper()
	tok, err := Load(filepath.Join("testdata", family))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func texts(t testing.TB) (docs []string) {
	readJSON(t, "texts.json", &docs)
	return docs
}

func TestEncodeGivesTheReferenceIDsForEveryFamily(t *testing.T) {
	docs := texts(t)
	for _, family := range families {
		tok := load(t, family)
		var want []golden
		readJSON(t, family+"/golden.json", &want)
		for i, g := range want {
			if got := tok.Encode(docs[i], false); !slices.Equal(got, g.IDs) {
				t.Errorf("%s: %+q\n got %q\nwant %q", family, docs[i], names(tok, got), names(tok, g.IDs))
			}
			special := slices.Concat(g.Before, g.IDs, g.After)
			if got := tok.Encode(docs[i], true); !slices.Equal(got, special) {
				t.Errorf("%s: with special tokens: %+q\n got %q\nwant %q", family, docs[i], names(tok, got), names(tok, special))
			}
		}
	}
}

func TestDecodeGivesTheReferenceTextForEveryFamily(t *testing.T) {
	docs := texts(t)
	for _, family := range families {
		tok := load(t, family)
		var want []golden
		readJSON(t, family+"/golden.json", &want)
		for i, g := range want {
			text := docs[i]
			if g.Text != nil {
				text = *g.Text
			}
			if got := tok.Decode(g.IDs, false); got != text {
				t.Errorf("%s: Decode(%v) = %+q, want %+q", family, g.IDs, got, text)
			}
			if g.Bare != nil {
				text = *g.Bare
			}
			ids := slices.Concat(g.Before, g.IDs, g.After)
			if got := tok.Decode(ids, true); got != text {
				t.Errorf("%s: without special tokens Decode(%v) = %+q, want %+q", family, ids, got, text)
			}
		}
	}
}

func TestEveryPreTokenizerAndNormalizerCutsAsTheReference(t *testing.T) {
	var all struct {
		Texts []int
		Cases []struct {
			Change map[string]json.RawMessage
			IDs    [][]int32
		}
	}
	readJSON(t, "pieces.json", &all)
	docs := texts(t)
	for _, c := range all.Cases {
		tok := parseChanged(t, "gpt2", c.Change)
		for i, want := range c.IDs {
			text := docs[all.Texts[i]]
			if got := tok.Encode(text, false); !slices.Equal(got, want) {
				t.Errorf("%s: %+q\n got %q\nwant %q", c.Change, text, names(tok, got), names(tok, want))
			}
		}
	}
}

// parseChanged parses a family's file with some of its fields replaced.
func parseChanged(t testing.TB, family string, change map[string]json.RawMessage) *Tokenizer {
	t.Helper()
	var file map[string]json.RawMessage
	readJSON(t, family+"/tokenizer.json", &file)
	for k, v := range change {
		file[k] = v
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data, nil)
	if err != nil {
		t.Fatalf("%s: %v", change, err)
	}
	return tok
}

func names(tok *Tokenizer, ids []int32) (out []string) {
	for _, id := range ids {
		out = append(out, tok.Token(id))
	}
	return out
}

func TestOneTokenizerServesManyGoroutines(t *testing.T) {
	docs := texts(t)
	for _, family := range []string{"llama3", "llama2", "added"} {
		tok := load(t, family)
		var want []golden
		readJSON(t, family+"/golden.json", &want)
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range want {
					i = (i + 7*w) % len(want)
					if got := tok.Encode(docs[i], false); !slices.Equal(got, want[i].IDs) {
						t.Errorf("%s: goroutine %d: %+q differs", family, w, docs[i])
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestEveryDecoderJoinsAsTheReference(t *testing.T) {
	var cases []struct {
		Decoder json.RawMessage
		Tokens  [][]string
		Texts   []string
	}
	readJSON(t, "decoders.json", &cases)
	for _, c := range cases {
		chain, err := newDecoders(c.Decoder, "decoder")
		if err != nil {
			t.Fatal(err)
		}
		for i, tokens := range c.Tokens {
			got := slices.Clone(tokens)
			for _, d := range chain {
				got = d(got)
			}
			if got := strings.Join(got, ""); got != c.Texts[i] {
				t.Errorf("%s: %q became %+q, want %+q", c.Decoder, tokens, got, c.Texts[i])
			}
		}
	}
}
