// Package data turns files into training rows: a row is a sequence of token ids x₀…x₍ₙ₋₁₎ with a label for each,
// and the loss of a row is Σ −log p(yᵢ | x₀…xᵢ) over the targets yᵢ = labelᵢ₊₁ of the same document that are ≥ 0.
//
//	files ─ rows ─ tokens and labels ─ cut (--too-long) ─ packed (--packing) ─ cache file ─ mapped by every rank of the host
//	k-th global batch = rows k·b … (k+1)·b of the concatenated epochs;  rank i of W takes ⌊i·b/W⌋ … ⌊(i+1)·b/W⌋ of it
//
// Which row is trained when depends on (seed, k, b) alone, never on the number of ranks or on where a run was resumed.
//
// Kinds of rows, told apart by their keys, in this order; kinds may be mixed in a file, and further keys are ignored:
//
//	{"input_ids", "labels"}               taken as they are; without labels all trained
//	{"messages", "tools"}                 the model's chat template; the assistant's turns trained
//	{"prompt", "completion"}              completion + EOS trained
//	{"instruction", "input", "output"}    Alpaca's template; output + EOS trained
//	{"text"}                              tokenizer(text) + EOS, all trained
//
// A file that is neither .jsonl, .ndjson nor .json is one document of plain text; any file may be gzipped (.gz).
package data

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Ignore is the label of a token that is not trained.
const Ignore = -100

// Tokenizer is what this package asks of a tokenizer, from many goroutines at once; data/tokenizer.Tokenizer is one.
type Tokenizer interface {
	// Encode returns the ids of text; special adds what tokenizer(text) adds by itself (BOS, as a rule).
	// Special tokens spelled out in text are recognised either way.
	Encode(text string, special bool) []int32
	Token(id int32) string
	VocabSize() int
	EOS() (int32, bool)
	// SpecialTokens are the special tokens that chat templates may name: bos_token, ….
	SpecialTokens() map[string]string
	// ChatTemplate is the Jinja source of the chat template, "" if there is none.
	ChatTemplate() string
}

// TooLong says what becomes of a row of more than Config.Seq tokens. A row, or a piece of one, that keeps no trained token
// is dropped, counted in Stats and named there; a plain text file is a stream rather than a row, so that Truncate splits it.
type TooLong string

const (
	Truncate TooLong = "truncate" // keep the first Seq tokens
	Split    TooLong = "split"    // cut it in rows of Seq tokens, each a document of its own (without a BOS of its own)
	Error    TooLong = "error"    // stop
)

// Config of a data set. Everything but CacheDir and Progress changes the rows, and so is part of the cache's key.
type Config struct {
	Files         []string // required
	Seq           int      // longest row in tokens; required, ≥ 2
	TooLong       TooLong  // default Truncate
	Packing       bool     // several documents to a row
	TrainOnPrompt bool     // prompts are trained, too
	VocabSize     int      // ids must be below it; default the tokenizer's
	TokenizerHash string   // hash of the tokenizer's files, for the cache's key; with CacheDir required

	CacheDir string         // where cache files are; "": a private one that goes with the process
	Progress func(rows int) // called now and then while rows are tokenised; may be nil
}

func (c *Config) validate() error {
	if c.TooLong == "" {
		c.TooLong = Truncate
	}
	switch {
	case len(c.Files) == 0:
		return errors.New("data: no files given")
	case slices.Contains(c.Files, ""):
		return errors.New("data: a file without a name is given")
	case c.Seq < 2:
		return fmt.Errorf("data: sequence length %d, must be at least 2", c.Seq)
	case c.TooLong != Truncate && c.TooLong != Split && c.TooLong != Error:
		return fmt.Errorf("data: --too-long %q is none of truncate, split, error", string(c.TooLong))
	case c.VocabSize < 0:
		return fmt.Errorf("data: vocabulary of %d tokens", c.VocabSize)
	case c.CacheDir != "" && c.TokenizerHash == "":
		panic("data: a cache directory without a tokenizer hash")
	}
	return nil
}

// Stats counts what became of the rows of the files.
type Stats struct {
	Rows         int64  `json:"rows"`          // rows read from the files
	Truncated    int64  `json:"truncated"`     // of these, cut at Seq tokens
	Split        int64  `json:"split"`         // of these, cut in several
	Dropped      int64  `json:"dropped"`       // rows, or pieces of split ones, that the cut left without a trained token
	FirstDropped string `json:"first_dropped"` // where the first of them stands, FILE:LINE
	Documents    int64  `json:"documents"`     // documents in the set, after cutting
	Sequences    int64  `json:"sequences"`     // rows of the set: documents, or packed sequences
	Tokens       int64  `json:"tokens"`        // tokens in the set
	Trained      int64  `json:"trained"`       // targets: tokens that are predicted and trained
}

// Open tokenises and packs the files, or maps the cache file in which another process or an earlier run did.
// Errors in the files begin with FILE:LINE.
func Open(ctx context.Context, c Config, tok Tokenizer) (*Set, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	for _, path := range c.Files {
		if err := regular(path); err != nil {
			return nil, err
		}
	}
	if c.VocabSize == 0 && tok != nil {
		c.VocabSize = tok.VocabSize()
	}
	return openCache(ctx, c, tok)
}
