package data

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// builder runs rows through cutting and packing into a writer.
type builder struct {
	c    Config
	enc  *encoder
	out  *writer
	pack *packer // nil without packing
}

// build reads all files and writes their rows to w as a cache file.
func build(ctx context.Context, w io.Writer, c Config, tok Tokenizer) error {
	b := &builder{c: c, enc: newEncoder(c, tok), out: newWriter(w, c.Packing)}
	if c.Packing {
		b.pack = &packer{seq: c.Seq, emit: b.out.row}
	}
	for _, path := range c.Files {
		if err := b.file(ctx, path); err != nil {
			return err
		}
	}
	if b.pack != nil {
		if err := b.pack.flush(); err != nil {
			return err
		}
	}
	if st := b.out.stats; st.Sequences == 0 && st.Dropped > 0 {
		return fmt.Errorf("data: none of %d rows has a trained token within %d tokens (the first: %s): a longer --seq or --too-long split keeps them",
			st.Rows, c.Seq, st.FirstDropped)
	} else if st.Sequences == 0 {
		return fmt.Errorf("data: %s: no rows", strings.Join(c.Files, ", "))
	}
	return b.out.finish()
}

func (b *builder) file(ctx context.Context, path string) error {
	if kind, _ := form(path); kind == "text" {
		return b.document(path)
	}
	return b.enc.eachSample(ctx, path, func(at place, s sample) error {
		b.count()
		return b.fit(at, s, b.c.TooLong)
	})
}

// document adds a plain text file: a stream of text rather than a row, and so cut in blocks of Seq tokens instead of
// being truncated.
func (b *builder) document(path string) error {
	at := place{file: path}
	text, err := ReadText(path)
	if err != nil {
		return err
	}
	s, err := b.enc.document(text)
	if err == nil {
		err = b.enc.check(s)
	}
	if err != nil {
		return fmt.Errorf("data: %v: %w", at, err)
	}
	b.count()
	policy := b.c.TooLong
	if policy == Truncate {
		policy = Split
	}
	return b.fit(at, s, policy)
}

func (b *builder) count() {
	b.out.stats.Rows++
	if rows := b.out.stats.Rows; b.c.Progress != nil && rows%1024 == 0 {
		b.c.Progress(int(rows))
	}
}

// fit cuts a sample that is longer than Seq. What the cut leaves without a trained token is dropped and counted: it
// would cost its forward and backward pass and add nothing.
func (b *builder) fit(at place, s sample, policy TooLong) error {
	st := &b.out.stats
	if len(s.tokens) <= b.c.Seq {
		return b.add(s)
	}
	switch policy {
	case Error:
		return fmt.Errorf("data: %v: %d tokens, --seq allows %d; --too-long truncate or split would cut it", at, len(s.tokens), b.c.Seq)
	case Truncate:
		st.Truncated++
		return b.piece(at, sample{s.tokens[:b.c.Seq], s.labels[:b.c.Seq]})
	case Split:
		st.Split++
		for lo := 0; lo < len(s.tokens); lo += b.c.Seq {
			hi := min(lo+b.c.Seq, len(s.tokens))
			if err := b.piece(at, sample{s.tokens[lo:hi], s.labels[lo:hi]}); err != nil {
				return err
			}
		}
		return nil
	}
	panic("data: policy " + string(policy))
}

// piece adds what a cut left, if anything in it is trained.
func (b *builder) piece(at place, s sample) error {
	if trained(s) {
		return b.add(s)
	}
	st := &b.out.stats
	if st.Dropped++; st.Dropped == 1 {
		st.FirstDropped = at.String()
	}
	return nil
}

func (b *builder) add(s sample) error {
	if b.pack != nil {
		return b.pack.add(s)
	}
	return b.out.row([]sample{s})
}

// Samples returns the token ids of a file for evaluation and calibration: of a plain text file one sample, the whole text
// as tokenizer(text) gives it; of rows one sample each, in order, as they would be trained, uncut. An id outside vocab
// (0: the tokenizer's) is an error.
func Samples(path string, tok Tokenizer, vocab int) ([][]int32, error) {
	if vocab == 0 && tok != nil {
		vocab = tok.VocabSize()
	}
	e := newEncoder(Config{VocabSize: vocab}, tok)
	if kind, _ := form(path); kind == "text" {
		return e.whole(path)
	}
	var out [][]int32
	err := e.eachSample(context.Background(), path, func(_ place, s sample) error {
		out = append(out, s.tokens)
		return nil
	})
	return out, err
}

// whole is tokenizer(text) of a file, without an EOS of ours.
func (e *encoder) whole(path string) ([][]int32, error) {
	if e.tok == nil {
		return nil, fmt.Errorf("data: %s is text, and the model folder has no tokenizer: copy tokenizer.json from the model, or give rows with input_ids", path)
	}
	text, err := ReadText(path)
	if err != nil {
		return nil, err
	}
	ids := e.tok.Encode(text, true)
	for i, id := range ids {
		if id < 0 || int(id) >= e.vocab && e.vocab > 0 {
			return nil, fmt.Errorf("data: %s: token %d has id %d, outside the vocabulary of %d", path, i, id, e.vocab)
		}
	}
	return [][]int32{ids}, nil
}
