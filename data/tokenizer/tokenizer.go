// Package tokenizer turns text into token ids and back, as the tokenizer.json of a Hugging Face folder says.
package tokenizer

import "errors"

// Tokenizer maps text to ids and ids to text. It is safe for concurrent use.
type Tokenizer struct{}

var errUnfinished = errors.New("tokenizer: loading is not written yet")

// Load reads the tokenizer of a model folder.
func Load(dir string) (*Tokenizer, error) { return nil, errUnfinished }

// Parse builds a tokenizer from the bytes of tokenizer.json and, unless nil, of tokenizer_config.json.
func Parse(tokenizerJSON, tokenizerConfigJSON []byte) (*Tokenizer, error) { return nil, errUnfinished }

// Encode gives the ids of text; special adds the special tokens of the post-processor (BOS, …).
func (t *Tokenizer) Encode(text string, special bool) []int32 { return nil }

// EncodeAppend appends the ids of text to dst.
func (t *Tokenizer) EncodeAppend(dst []int32, text string, special bool) []int32 { return dst }

// Decode gives the text of ids; skipSpecial leaves out special tokens.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string { return "" }

// Token is the vocabulary's string for id, "" if there is none.
func (t *Tokenizer) Token(id int32) string { return "" }

// ID is the id of a vocabulary string.
func (t *Tokenizer) ID(token string) (int32, bool) { return 0, false }

// VocabSize is the largest id + 1, added tokens included.
func (t *Tokenizer) VocabSize() int { return 0 }

// EOS is the end-of-sequence token.
func (t *Tokenizer) EOS() (int32, bool) { return 0, false }

// BOS is the begin-of-sequence token.
func (t *Tokenizer) BOS() (int32, bool) { return 0, false }

// Pad is the padding token.
func (t *Tokenizer) Pad() (int32, bool) { return 0, false }

// ChatTemplate is the Jinja source of the chat template, "" if there is none.
func (t *Tokenizer) ChatTemplate() string { return "" }
