package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// sample is a row before it is cut and packed.
type sample struct{ tokens, labels []int32 }

// encoder turns rows of any kind into samples. It is safe for concurrent use, as its tokenizer is.
type encoder struct {
	tok           Tokenizer // nil: pre-tokenised rows only
	vocab         int
	trainOnPrompt bool
	eos           int32
	endsItself    bool                  // tokenizer(text) ends in EOS already
	chat          func() (*chat, error) // parses the chat template, once
}

func newEncoder(c Config, tok Tokenizer) *encoder {
	e := &encoder{tok: tok, vocab: c.VocabSize, trainOnPrompt: c.TrainOnPrompt, eos: -1,
		chat: sync.OnceValues(func() (*chat, error) { return newChat(tok) })}
	if tok == nil {
		return e
	}
	if id, ok := tok.EOS(); ok {
		e.eos = id
		empty := tok.Encode("", true)
		e.endsItself = len(empty) > 0 && empty[len(empty)-1] == id
	}
	return e
}

// kinds are the kinds of rows by the keys that they must have, in the order in which they are tried.
var kinds = []struct {
	keys []string
	read func(*encoder, map[string]json.RawMessage) (sample, error)
}{
	{[]string{"input_ids"}, (*encoder).pretokenised},
	{[]string{"messages"}, (*encoder).messages},
	{[]string{"prompt", "completion"}, (*encoder).completion},
	{[]string{"instruction", "output"}, (*encoder).alpaca},
	{[]string{"text"}, (*encoder).text},
}

const knownKinds = `{"text"}, {"prompt","completion"}, {"instruction","input","output"}, {"messages"}, {"input_ids","labels"}`

// row reads one JSON row. Its errors do not name the place.
func (e *encoder) row(raw []byte) (sample, error) {
	fields, err := object(raw)
	if err != nil {
		return sample{}, err
	}
	for _, k := range kinds {
		if slices.ContainsFunc(k.keys, func(key string) bool { return fields[key] == nil }) {
			continue
		}
		s, err := k.read(e, fields)
		if err != nil {
			return sample{}, err
		}
		return s, e.check(s)
	}
	return sample{}, fmt.Errorf("unknown kind of row with the keys %s; known are %s", keysOf(fields), knownKinds)
}

// object decodes one JSON object and says at which byte it is malformed.
func object(raw []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8")
	}
	var fields map[string]json.RawMessage
	err := json.Unmarshal(raw, &fields)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("malformed JSON at byte %d: %w", syntax.Offset, err)
	case errors.As(err, &kind):
		return nil, fmt.Errorf("a row is a JSON object, this is a %s", kind.Value)
	case err != nil:
		return nil, fmt.Errorf("malformed JSON: %w", err)
	case fields == nil:
		return nil, errors.New("a row is a JSON object, this is null")
	}
	return fields, nil
}

func keysOf(fields map[string]json.RawMessage) string {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, fmt.Sprintf("%q", k))
	}
	slices.Sort(keys)
	if len(keys) > 12 {
		keys = append(keys[:12], "…")
	}
	return "{" + strings.Join(keys, ", ") + "}"
}

// get decodes a field; want says in words what it must be. An absent or null optional field is the zero value.
func get[T any](fields map[string]json.RawMessage, key, want string, optional bool) (T, error) {
	var v T
	raw := fields[key]
	if null := raw == nil || bytes.Equal(raw, []byte("null")); null && optional {
		return v, nil
	} else if null {
		return v, fmt.Errorf("%q is null, must be %s", key, want)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("%q must be %s: %s", key, want, strings.TrimPrefix(err.Error(), "json: "))
	}
	return v, nil
}

// numbers decodes a field that is an array of int32; a null in it, which encoding/json takes for 0, is an error.
func numbers(fields map[string]json.RawMessage, key, want string, optional bool) ([]int32, error) {
	list, err := get[[]int32](fields, key, want, optional)
	if at := bytes.Index(fields[key], []byte("null")); at >= 0 && list != nil && err == nil {
		return nil, fmt.Errorf("%q must be %s: element %d is null", key, want, bytes.Count(fields[key][:at], []byte(",")))
	}
	return list, err
}

func (e *encoder) pretokenised(f map[string]json.RawMessage) (sample, error) {
	ids, err := numbers(f, "input_ids", "an array of token ids", false)
	if err != nil {
		return sample{}, err
	}
	labels, err := numbers(f, "labels", "an array of token ids and −100", true)
	if err != nil {
		return sample{}, err
	}
	if labels == nil {
		labels = slices.Clone(ids)
	}
	return sample{ids, labels}, nil
}

func (e *encoder) text(f map[string]json.RawMessage) (sample, error) {
	text, err := get[string](f, "text", "a string", false)
	if err != nil {
		return sample{}, err
	}
	return e.document(text)
}

// document is tokenizer(text) + EOS, all trained.
func (e *encoder) document(text string) (sample, error) {
	if err := e.ready(); err != nil {
		return sample{}, err
	}
	if text == "" {
		return sample{}, errors.New("empty sample: the text is empty")
	}
	ids := append(e.open(text), e.eos)
	return sample{ids, slices.Clone(ids)}, nil
}

func (e *encoder) completion(f map[string]json.RawMessage) (sample, error) {
	prompt, err := get[string](f, "prompt", "a string", true)
	if err != nil {
		return sample{}, err
	}
	response, err := get[string](f, "completion", "a string", false)
	if err != nil {
		return sample{}, err
	}
	return e.answer(prompt, response, "completion")
}

// Alpaca's two templates (Taori et al., 2023).
const (
	alpacaInput = "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:"
	alpacaPlain = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n%s\n\n### Response:"
)

func (e *encoder) alpaca(f map[string]json.RawMessage) (sample, error) {
	instruction, err := get[string](f, "instruction", "a string", false)
	if err != nil {
		return sample{}, err
	}
	input, err := get[string](f, "input", "a string", true)
	if err != nil {
		return sample{}, err
	}
	output, err := get[string](f, "output", "a string", false)
	if err != nil {
		return sample{}, err
	}
	prompt := fmt.Sprintf(alpacaPlain, instruction)
	if input != "" {
		prompt = fmt.Sprintf(alpacaInput, instruction, input)
	}
	return e.answer(prompt, output, "output")
}

// answer is tokenizer(prompt + response) + EOS, of which response + EOS is trained: the tokens after the longest common
// prefix with tokenizer(prompt). So a token that grew over the border is trained, and the response is never cut.
func (e *encoder) answer(prompt, response, name string) (sample, error) {
	if err := e.ready(); err != nil {
		return sample{}, err
	}
	if response == "" {
		return sample{}, fmt.Errorf("empty sample: %q is empty, nothing to train", name)
	}
	ids := append(e.open(prompt+response), e.eos)
	labels := slices.Clone(ids)
	if !e.trainOnPrompt {
		ignore(labels[:common(ids[:len(ids)-1], e.open(prompt))])
	}
	return sample{ids, labels}, nil
}

// ready fails where a row needs a tokenizer with an EOS.
func (e *encoder) ready() error {
	if e.tok == nil {
		return errors.New("the model folder has no tokenizer, so only rows with input_ids can be read: copy tokenizer.json from the model")
	}
	if e.eos < 0 {
		return errors.New("the tokenizer has no EOS token to end a response with (eos_token in tokenizer_config.json)")
	}
	return nil
}

// open is tokenizer(text) without the EOS that some tokenizers end it with.
func (e *encoder) open(text string) []int32 {
	ids := e.tok.Encode(text, true)
	if e.endsItself && len(ids) > 0 && ids[len(ids)-1] == e.eos {
		ids = ids[:len(ids)-1]
	}
	return ids
}

// check refuses a sample that would falsify the run.
func (e *encoder) check(s sample) error {
	if len(s.tokens) == 0 {
		return errors.New("empty sample: no tokens")
	}
	if len(s.tokens) != len(s.labels) {
		return fmt.Errorf("%d input_ids, but %d labels", len(s.tokens), len(s.labels))
	}
	for i, id := range s.tokens {
		if id < 0 || int(id) >= e.vocab && e.vocab > 0 {
			return fmt.Errorf("token %d has id %d, outside the vocabulary of %d", i, id, e.vocab)
		}
		if y := s.labels[i]; y != Ignore && (y < 0 || int(y) >= e.vocab && e.vocab > 0) {
			return fmt.Errorf("label %d is %d, neither −100 nor in the vocabulary of %d", i, y, e.vocab)
		}
	}
	if !trained(s) {
		return errors.New("no trained token: every label after the first token is −100 (nothing predicts the first)")
	}
	return nil
}

// trained reports whether s has a target.
func trained(s sample) bool {
	return len(s.labels) > 1 && slices.ContainsFunc(s.labels[1:], func(y int32) bool { return y >= 0 })
}

func ignore(labels []int32) {
	for i := range labels {
		labels[i] = Ignore
	}
}

// common is the length of the longest common prefix.
func common(a, b []int32) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
