package tokenizer

import (
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

// FuzzParse: no file makes the package panic, and what can be parsed can be used.
func FuzzParse(f *testing.F) {
	f.Add([]byte(tiny), []byte(`{"eos_token":"</s>"}`))
	for _, part := range []string{
		`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}`,
		`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel"}]}`,
		`{"type":"Split","pattern":{"Regex":"\\s+|(a)"},"behavior":"MergedWithNext","invert":true}`,
	} {
		f.Add([]byte(`{"pre_tokenizer":`+part+`,"model":{"type":"BPE","unk_token":"a","byte_fallback":true,"vocab":{"a":0,"\u2581":1},"merges":[["a","\u2581"]]}}`), []byte(nil))
	}
	f.Add([]byte(`{"normalizer":{"type":"Replace","pattern":{"Regex":"a*"},"content":"b"},"decoder":{"type":"Strip","content":"b","start":2,"stop":2},"model":{"merges":[],"vocab":{"":0}}}`),
		[]byte(`{"added_tokens_decoder":{"1":{"content":"x","rstrip":true,"lstrip":true,"single_word":true}},"chat_template":[]}`))
	f.Fuzz(func(t *testing.T, file, config []byte) {
		tok, err := Parse(file, config)
		if err != nil {
			return
		}
		ids := tok.Encode("ab <s> a\xff\n▁x9", true)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Errorf("id %d of %d", id, tok.VocabSize())
			}
		}
		tok.Decode(append(ids, -1, 1<<30), true)
	})
}

// FuzzSentencePiece: no tokenizer.model makes the package panic.
func FuzzSentencePiece(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "sentencepiece", "tokenizer.model"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x0a\x05\x0a\x01a\x18\x02\x12\x02\x18\x02\x1a\x02\x20\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSentencePiece(data)
		if err != nil {
			return
		}
		if tok, err := build(s, new(config)); err == nil {
			tok.Decode(tok.Encode("ab <s> a\xff\n▁x9", true), false)
		}
	})
}

// FuzzEncodeDecode: byte-level models lose nothing.
func FuzzEncodeDecode(f *testing.F) {
	for _, s := range texts(f) {
		f.Add(s)
	}
	f.Add("a\xff\xe2\x82")
	toks := []*Tokenizer{load(f, "gpt2"), load(f, "llama3"), load(f, "otherregex")}
	others := []*Tokenizer{load(f, "qwen2"), load(f, "llama2"), load(f, "added"), load(f, "unk"), load(f, "sentencepiece")}
	f.Fuzz(func(t *testing.T, s string) {
		for _, tok := range toks {
			if got := tok.Decode(tok.Encode(s, false), false); utf8.ValidString(s) && got != s {
				t.Errorf("%+q became %+q", s, got)
			}
		}
		for _, tok := range others {
			tok.Decode(tok.Encode(s, true), true)
		}
	})
}
