package tokenizer

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const tiny = `{"version":"1.0","added_tokens":[{"id":4,"content":"<s>","special":true,"normalized":false}],"normalizer":null,
 "pre_tokenizer":null,"post_processor":null,"decoder":null,
 "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"</s>":3},"merges":["a b"]}}`

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSpecialTokensComeFromTheFirstFileThatNamesThem(t *testing.T) {
	for name, c := range map[string]struct {
		files         map[string]string
		bos, eos, pad int32 // −1: none
	}{
		"strings": {map[string]string{"tokenizer_config.json": `{"bos_token":"<s>","eos_token":"</s>","pad_token":null}`}, 4, 3, -1},
		"objects": {map[string]string{"tokenizer_config.json": `{"eos_token":{"content":"</s>","lstrip":false}}`}, -1, 3, -1},
		"map":     {map[string]string{"tokenizer_config.json": `{"eos_token":"</s>"}`, "special_tokens_map.json": `{"eos_token":"<s>","pad_token":"a"}`}, -1, 3, 0},
		"ids":     {map[string]string{"generation_config.json": `{"eos_token_id":[3,4],"bos_token_id":4}`, "config.json": `{"eos_token_id":0,"pad_token_id":-1}`}, 4, 3, -1},
		"config":  {map[string]string{"config.json": `{"eos_token_id":2,"pad_token_id":99}`}, -1, 2, -1},
		"unknown": {map[string]string{"tokenizer_config.json": `{"eos_token":"<none>"}`}, -1, -1, -1},
		"nothing": {nil, -1, -1, -1},
	} {
		files := map[string]string{"tokenizer.json": tiny}
		for k, v := range c.files {
			files[k] = v
		}
		tok, err := Load(folder(t, files))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, get := range []func() (int32, bool){tok.BOS, tok.EOS, tok.Pad} {
			want := []int32{c.bos, c.eos, c.pad}[i]
			if id, ok := get(); ok != (want >= 0) || ok && id != want {
				t.Errorf("%s: special token %d is %d, %v; want %d", name, i, id, ok, want)
			}
		}
	}
}

func TestTokensOfTheConfigurationAloneAreAdded(t *testing.T) {
	tok, err := Parse([]byte(tiny), []byte(`{"eos_token":"</s>","added_tokens_decoder":{"4":{"content":"<s>"},"6":{"content":"y","special":true},"5":{"content":"x"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := tok.Encode("abx</s>y", false)
	if want := []int32{2, 5, 3, 6}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("got %v, want %v", got, want)
	}
	if tok.VocabSize() != 7 || tok.Token(6) != "y" || tok.Token(7) != "" || tok.Token(-1) != "" {
		t.Errorf("%d tokens, the last %q", tok.VocabSize(), tok.Token(6))
	}
	if text := tok.Decode(got, true); text != "ab x" {
		t.Errorf("without special tokens %q", text)
	}
}

// Tokens of old LLaMA files are looked for in the normalised text: with the prefix ▁, and at the beginning only. The
// reference (0.23) then no longer knows that they are special, and decodes them always; here they can be left out.
func TestSpecialTokensThatAreNormalisedAreStillLeftOut(t *testing.T) {
	tok := parseChanged(t, "llama2", map[string]json.RawMessage{
		"added_tokens": json.RawMessage(`[{"id":1,"content":"<s>","special":true,"normalized":true}]`)})
	ids := tok.Encode("<s>the", true)
	if len(ids) < 3 || ids[0] != 1 || ids[1] != 1 {
		t.Fatalf("got %v", ids)
	}
	if got := tok.Decode(ids, true); got != "the" {
		t.Errorf("got %q", got)
	}
}

// What each configuration names is what transformers 5.24 gives to a chat template.
func TestChatTemplatesSeeTheSpecialTokensThatAreNamed(t *testing.T) {
	for _, c := range []struct {
		files map[string]string
		want  map[string]string
	}{
		{map[string]string{"config.json": `{"bos_token_id":4,"eos_token_id":3}`}, nil},
		{map[string]string{"tokenizer_config.json": `{"bos_token":"<s>","eos_token":{"content":"</s>","__type":"AddedToken"},"pad_token":null,"mask_token":"<none>","add_bos_token":true}`},
			map[string]string{"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<none>"}},
		{map[string]string{"tokenizer_config.json": `{"image_token":"<unk>","additional_special_tokens":["</s>"],"extra_special_tokens":["<s>"],"sep_token":"</s>"}`},
			map[string]string{"image_token": "<unk>", "sep_token": "</s>"}},
		{map[string]string{"tokenizer_config.json": `{"extra_special_tokens":{"boi":"<s>"},"model_specific_special_tokens":{"eoi":"</s>"}}`}, map[string]string{"boi": "<s>", "eoi": "</s>"}},
		{map[string]string{"tokenizer_config.json": `{"bos_token":null}`, "special_tokens_map.json": `{"bos_token":"</s>","cls_token":{"content":"<s>"}}`},
			map[string]string{"bos_token": "</s>", "cls_token": "<s>"}},
		{map[string]string{"tokenizer_config.json": `{"bos_token":"<s>","added_tokens_decoder":{"4":{"content":"<s>"}}}`, "special_tokens_map.json": `{"bos_token":"</s>","cls_token":"<s>"}`},
			map[string]string{"bos_token": "<s>"}},
		{map[string]string{"tokenizer_config.json": `{"tokenizer_class":"LlamaTokenizerFast","bos_token":null}`}, map[string]string{"eos_token": "</s>", "unk_token": "<unk>"}},
		{map[string]string{"tokenizer_config.json": `{"tokenizer_class":"PreTrainedTokenizerFast"}`}, nil},
	} {
		files := maps.Clone(c.files)
		files["tokenizer.json"] = tiny
		tok, err := Load(folder(t, files))
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.SpecialTokens(); !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.files, got, c.want)
		}
	}
}

func TestASentencePieceModelAddsWhatTheConfigurationSays(t *testing.T) {
	model, err := os.ReadFile("testdata/sentencepiece/tokenizer.model")
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string][]string{
		``:                        {"<s>", "▁the"},
		`{"add_bos_token":true}`:  {"<s>", "▁the"},
		`{"add_bos_token":null}`:  {"▁the"},
		`{"add_bos_token":false}`: {"▁the"},
		`{"add_eos_token":true}`:  {"<s>", "▁the", "</s>"},
		`{"bos_token":"</s>"}`:    {"</s>", "▁the"},
		`{"add_bos_token":false,"add_eos_token":true,"eos_token":{"content":"<s>"}}`: {"▁the", "<s>"},
	} {
		files := map[string]string{"tokenizer.model": string(model)}
		if config != "" {
			files["tokenizer_config.json"] = config
		}
		tok, err := Load(folder(t, files))
		if err != nil {
			t.Fatal(err)
		}
		if got := names(tok, tok.Encode("the", true)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func TestTheChatTemplateIsFoundInAllItsForms(t *testing.T) {
	config := func(s string) map[string]string {
		return map[string]string{"tokenizer.json": tiny, "tokenizer_config.json": s}
	}
	both := config(`{"chat_template":"old"}`)
	both["chat_template.jinja"] = "new"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"string": {config(`{"chat_template":"{{ x }}"}`), "{{ x }}"},
		"list":   {config(`{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}`), "d"},
		"single": {config(`{"chat_template":[{"name":"rag","template":"r"}]}`), "r"},
		"null":   {config(`{"chat_template":null}`), ""},
		"file":   {both, "new"},
	} {
		tok, err := Load(folder(t, c.files))
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.ChatTemplate(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestErrorsNameTheFileTheFieldAndWhatIsKnown(t *testing.T) {
	with := func(old, new string) map[string]string {
		if !strings.Contains(tiny, old) {
			t.Fatalf("%s is not in the file", old)
		}
		return map[string]string{"tokenizer.json": strings.Replace(tiny, old, new, 1)}
	}
	for _, c := range []struct {
		files map[string]string
		want  []string
	}{
		{nil, []string{"neither tokenizer.json nor tokenizer.model"}},
		{with(`"BPE"`, `"Unigram"`), []string{"tokenizer.json", `model.type "Unigram"`, "known: BPE"}},
		{with(`"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Bert"}]}`), []string{"tokenizer.json", `pre_tokenizer.pretokenizers[0].type "Bert"`, "ByteLevel"}},
		{with(`"normalizer":null`, `"normalizer":{"type":"Precompiled"}`), []string{`normalizer.type "Precompiled"`, "NFKC"}},
		{with(`"decoder":null`, `"decoder":{"type":"CTC"}`), []string{`decoder.type "CTC"`, "ByteFallback"}},
		{with(`"post_processor":null`, `"post_processor":{"type":"X"}`), []string{`post_processor.type "X"`, "TemplateProcessing"}},
		{with(`"post_processor":null`, `"post_processor":{"type":"BertProcessing","cls":["a",0],"sep":["b",77]}`), []string{"post_processor", "77"}},
		{with(`"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"}`), []string{"pre_tokenizer", `"(a"`}},
		{with(`"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Twice"}`), []string{"pre_tokenizer", `"Twice"`, "Isolated"}},
		{with(`"a b"`, `"a c"`), []string{"model.merges", `"c" is not in the vocabulary`}},
		{with(`"a b"`, `"b a"`), []string{"model.merges", `the result "ba"`}},
		{with(`"a b"`, `"ab"`), []string{"model.merges[0]", `"ab"`}},
		{with(`"ab":2`, `"ab":-2`), []string{"model.vocab", `"ab"`, "-2"}},
		{with(`"ab":2`, `"ab":2000000000`), []string{"model.vocab", "2000000000"}},
		{with(`"merges":["a b"]`, `"x":0`), []string{"model", "merges is missing"}},
		{with(`]}}`, ``), []string{"tokenizer.json", "unexpected end"}},
		{with(`"BPE"`, "\"B\xff\""), []string{"tokenizer.json", "not UTF-8"}},
		{map[string]string{"tokenizer.json": tiny, "tokenizer_config.json": "{"}, []string{"tokenizer_config.json"}},
		{map[string]string{"tokenizer.model": "hello"}, []string{"tokenizer.model", "SentencePiece"}},
		{map[string]string{"tokenizer.model": "\x12\x02\x18\x01"}, []string{"tokenizer.model", "model_type 1"}},
	} {
		_, err := Load(folder(t, c.files))
		if err == nil {
			t.Errorf("no error; want one with %q", c.want)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(strings.ReplaceAll(err.Error(), "model.merges: [", "model.merges["), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
}
