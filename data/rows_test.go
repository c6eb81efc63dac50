package data

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/data/tokenizer"
)

func TestRowsTokeniseAndMaskAsTransformersDoes(t *testing.T) {
	g, tok := golden(t)
	e := newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
	for _, r := range g.Rows {
		s, err := e.row(r.Row)
		if err != nil || !slices.Equal(s.tokens, r.IDs) || !slices.Equal(s.labels, r.Labels) {
			t.Errorf("%s: %v\n got %v\n     %v\nwant %v\n     %v", r.Row, err, s.tokens, s.labels, r.IDs, r.Labels)
		}
		if eos, _ := tok.EOS(); err == nil && s.labels[len(s.labels)-1] != eos {
			t.Errorf("%s: the last label is %d, not the EOS", r.Row, s.labels[len(s.labels)-1])
		}
	}
}

func TestChatRowsTrainWhatTransformersMarksAsTheAssistants(t *testing.T) {
	g, tok := golden(t)
	for i, c := range g.Chat {
		for _, template := range []string{c.Template, c.Marked} {
			tok.eos, tok.template = c.Eos, template
			row := map[string]json.RawMessage{"messages": c.Messages}
			if c.Tools != nil {
				row["tools"] = c.Tools
			}
			raw, _ := json.Marshal(row)
			e := newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
			s, err := e.row(raw)
			if err != nil {
				t.Errorf("%s, conversation %d: %v", c.Name, i, err)
				continue
			}
			if !slices.Equal(s.tokens, c.IDs) || !slices.Equal(s.labels, c.Labels) {
				t.Errorf("%s, conversation %d, marked %v:\n got %s\nwant %s", c.Name, i, template == c.Marked, show(tok, s), show(tok, sample{c.IDs, c.Labels}))
			}
		}
	}
}

// templated is a tokenizer with another chat template and, as its file does not name them, BOS and EOS.
type templated struct {
	*tokenizer.Tokenizer
	template string
}

func (t templated) ChatTemplate() string { return t.template }
func (t templated) EOS() (int32, bool)   { return t.ID("</s>") }
func (t templated) SpecialTokens() map[string]string {
	return map[string]string{"bos_token": "<s>", "eos_token": "</s>"}
}

func TestAChatTemplateSeesTheNamedSpecialTokensOnly(t *testing.T) {
	raw, err := os.ReadFile("tokenizer/testdata/llama2/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Parse(raw, []byte(`{"bos_token_id":1,"sep_token":"</s>","extra_special_tokens":{"messages":"<s>"},
		"chat_template":"{{ bos_token is defined }} {{ bos_token }}{{ sep_token }}{{ messages[0].role }}"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := RenderChat(tok, []Message{{"user", "x"}}, false); err != nil || got != "False </s>user" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRowsOfASentencePieceModelTrainWhatTransformersTrains(t *testing.T) {
	g, _ := golden(t)
	raw, err := os.ReadFile("tokenizer/testdata/llama2/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Parse(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.SentencePiece) < 16 {
		t.Fatalf("%d rows", len(g.SentencePiece))
	}
	for _, r := range g.SentencePiece {
		s, err := newEncoder(Config{VocabSize: tok.VocabSize()}, templated{tok, r.Template}).row(r.Row)
		if err != nil || !slices.Equal(s.tokens, r.IDs) || !slices.Equal(s.labels, r.Labels) {
			t.Errorf("%s: %v\n got %s\nwant %s", r.Row, err, show(tok, s), show(tok, sample{r.IDs, r.Labels}))
		}
	}
}

// show writes the tokens, trained ones in brackets.
func show(tok Tokenizer, s sample) string {
	var b strings.Builder
	on := false
	for i, id := range s.tokens {
		if trained := s.labels[i] >= 0; trained != on {
			b.WriteString(map[bool]string{true: "⟦", false: "⟧"}[trained])
			on = trained
		}
		b.WriteString(tok.Token(id))
	}
	return strings.ReplaceAll(b.String(), "\n", "⏎")
}

func TestConversationsRenderAsTransformersRendersThem(t *testing.T) {
	g, tok := golden(t)
	for i, c := range g.Chat {
		if c.Tools != nil {
			continue
		}
		tok.eos, tok.template = c.Eos, c.Template
		var messages []Message
		if err := json.Unmarshal(c.Messages, &messages); err != nil {
			t.Fatal(err)
		}
		for prompt, want := range map[bool]string{false: c.Text, true: c.Prompted} {
			got, err := RenderChat(tok, messages, prompt)
			if err != nil || got != want {
				t.Errorf("%s, conversation %d, prompt %v: %v\n got %q\nwant %q", c.Name, i, prompt, err, got, want)
			}
		}
	}
}

func TestAChatTemplateWithoutAnEndOfTurnGetsAnEOS(t *testing.T) {
	_, tok := golden(t)
	tok.template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
	e := newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
	s, err := e.row([]byte(`{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"uno"},{"role":"user","content":"r"},{"role":"assistant","content":"dos"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(tok, s), "user: q⏎assistant: ⟦uno⏎⟧user: r⏎assistant: ⟦dos</s>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnswersAreFoundInATemplateThatCountsItsTurnsFirst(t *testing.T) {
	_, tok := golden(t)
	e := func(template string) *encoder {
		tok.template = template
		return newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
	}
	talk := []byte(`{"messages":[{"role":"user","content":"Xa"},{"role":"assistant","content":"Xa"},{"role":"user","content":"Xb"},{"role":"assistant","content":"Xa "}]}`)
	s, err := e("{{ messages|length }}{% for m in messages %}<{{ m.role }}> {{ m.content }}</s>{% endfor %}").row(talk)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(tok, s), "4<user> Xa</s><assistant> ⟦Xa</s>⟧<user> Xb</s><assistant> ⟦Xa </s>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := e("{{ messages|length }}{% for m in messages %}{{ m.content|upper }}{% endfor %}").row(talk); err == nil || !strings.Contains(err.Error(), "cannot tell where message 1 lies") {
		t.Errorf("got %v", err)
	}
}

func TestPretokenisedRowsAreTakenAsTheyAre(t *testing.T) {
	e := newEncoder(Config{VocabSize: 10}, nil)
	for row, want := range map[string]sample{
		`{"input_ids":[1,2,3],"labels":[-100,9,-100]}`: {[]int32{1, 2, 3}, []int32{-100, 9, -100}},
		`{"input_ids":[4,5]}`:                          {[]int32{4, 5}, []int32{4, 5}},
		`{"input_ids":[4,5],"labels":null,"text":"x"}`: {[]int32{4, 5}, []int32{4, 5}},
	} {
		s, err := e.row([]byte(row))
		if err != nil || !slices.Equal(s.tokens, want.tokens) || !slices.Equal(s.labels, want.labels) {
			t.Errorf("%s: %v %v", row, s, err)
		}
	}
}

var _ Tokenizer = (*tokenizer.Tokenizer)(nil)

// closing is a tokenizer whose tokenizer(text) ends in EOS already, as T5's does.
type closing struct{ *bpe }

func (c closing) Encode(text string, special bool) []int32 {
	ids := c.bpe.Encode(text, special)
	if eos, _ := c.EOS(); special {
		ids = append(ids, eos)
	}
	return ids
}

func TestATokenizerThatWritesItsOwnEOSGetsNoSecondOne(t *testing.T) {
	_, tok := golden(t)
	once, twice := newEncoder(Config{}, tok), newEncoder(Config{}, closing{tok})
	for _, row := range []string{`{"text":"ab"}`, `{"prompt":"a","completion":"b"}`} {
		want, err := once.row([]byte(row))
		if err != nil {
			t.Fatal(err)
		}
		got, err := twice.row([]byte(row))
		if err != nil || !slices.Equal(got.tokens, want.tokens) || !slices.Equal(got.labels, want.labels) {
			t.Errorf("%s: %v %v, want %v", row, err, got, want)
		}
	}
}

func TestTrainOnPromptTrainsEveryToken(t *testing.T) {
	g, tok := golden(t)
	tok.template = g.Chat[0].Template
	e := newEncoder(Config{VocabSize: tok.VocabSize(), TrainOnPrompt: true}, tok)
	for _, row := range []string{`{"prompt":"a","completion":"b"}`, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}`} {
		if s, err := e.row([]byte(row)); err != nil || !slices.Equal(s.tokens, s.labels) {
			t.Errorf("%s: %v %v", row, s, err)
		}
	}
}

func TestABadRowIsAnErrorThatSaysWhatIsWrong(t *testing.T) {
	g, tok := golden(t)
	tok.template = g.Chat[len(g.Chat)-1].Template
	e := newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
	for row, want := range map[string]string{
		`{"text": "a"`:                                 "malformed JSON at byte 12",
		`{"text": "a"} x`:                              "malformed JSON",
		`[1]`:                                          "a row is a JSON object",
		`null`:                                         "a row is a JSON object",
		`{"question":"q","answer":"a"}`:                `unknown kind of row with the keys {"answer", "question"}; known are {"text"}`,
		`{"prompt":"p"}`:                               "unknown kind",
		`{"text":7}`:                                   `"text" must be a string`,
		`{"text":null}`:                                `"text" is null`,
		`{"text":""}`:                                  "empty sample",
		`{"prompt":"p","completion":""}`:               "empty sample",
		`{"prompt":"p","completion":["x"]}`:            `"completion" must be a string`,
		`{"instruction":"i","output":""}`:              "empty sample",
		`{"input_ids":[]}`:                             "empty sample",
		`{"input_ids":"x"}`:                            `"input_ids" must be an array of token ids`,
		`{"input_ids":[1.5,2]}`:                        `"input_ids" must be an array of token ids`,
		`{"input_ids":[1,null,2]}`:                     `"input_ids" must be an array of token ids: element 1 is null`,
		`{"input_ids":[1,2],"labels":[-100,null]}`:     `"labels" must be an array of token ids and −100: element 1 is null`,
		`{"input_ids":[1,99999]}`:                      "token 1 has id 99999, outside the vocabulary of",
		`{"input_ids":[-1,2]}`:                         "token 0 has id -1",
		`{"input_ids":[1,2],"labels":[1]}`:             "2 input_ids, but 1 labels",
		`{"input_ids":[1,2],"labels":[1,-7]}`:          "label 1 is -7",
		`{"input_ids":[1,2],"labels":[1,-100]}`:        "no trained token",
		`{"input_ids":[1]}`:                            "no trained token",
		"{\"text\":\"\xff\"}":                          "not UTF-8",
		`{"messages":[]}`:                              "empty sample",
		`{"messages":"hi"}`:                            `"messages" must be an array`,
		`{"messages":[7]}`:                             "message 0 must be an object",
		`{"messages":[{"content":"x"}]}`:               `message 0 has no "role"`,
		`{"messages":[{"role":"user"}]}`:               `message 0 has no "content"`,
		`{"messages":[{"role":"user","content":"x"}]}`: "none of the messages is the assistant's",
		`{"messages":[{"role":"judge","content":"x"},{"role":"assistant","content":"y"}]}`: "refuses this conversation: Only user and assistant roles are supported!",
	} {
		if _, err := e.row([]byte(row)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", row, err, want)
		}
	}
	tok.template = ""
	if _, err := newEncoder(Config{}, tok).row([]byte(`{"messages":[{"role":"assistant","content":"y"}]}`)); err == nil || !strings.Contains(err.Error(), "no chat template") {
		t.Errorf("got %v", err)
	}
	tok.eos = ""
	if _, err := newEncoder(Config{}, tok).row([]byte(`{"text":"y"}`)); err == nil || !strings.Contains(err.Error(), "no EOS") {
		t.Errorf("got %v", err)
	}
	if _, err := newEncoder(Config{}, nil).row([]byte(`{"text":"y"}`)); err == nil || !strings.Contains(err.Error(), "no tokenizer") {
		t.Errorf("got %v", err)
	}
}

func FuzzRow(f *testing.F) {
	g, tok := golden(f)
	tok.template = g.Chat[0].Template
	for _, r := range g.Rows {
		f.Add([]byte(r.Row))
	}
	for _, c := range g.Chat[:6] {
		f.Add([]byte(`{"messages":` + string(c.Messages) + `}`))
	}
	f.Add([]byte(`{"input_ids":[1,2,3],"labels":[-100,2,3]}`))
	f.Fuzz(func(t *testing.T, row []byte) {
		if len(row) > 1<<12 || bytes.Count(row, []byte("role")) > 20 {
			t.Skip()
		}
		e := newEncoder(Config{VocabSize: tok.VocabSize()}, tok)
		s, err := e.row(row)
		if err != nil {
			return
		}
		if len(s.tokens) != len(s.labels) || !trained(s) {
			t.Fatalf("%q became %v", row, s)
		}
		for i, y := range s.labels {
			if y != Ignore && (y < 0 || int(y) >= tok.VocabSize()) || s.tokens[i] < 0 || int(s.tokens[i]) >= tok.VocabSize() {
				t.Fatalf("%q became %v", row, s)
			}
		}
	})
}
