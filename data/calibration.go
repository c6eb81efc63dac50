package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Calibration returns n samples of at most seq token ids for a pruner. Pre-tokenised rows ({"input_ids"}) are samples
// themselves, in order, cut at seq. Of text (plain, or rows of text), samples are windows of seq tokens at places drawn by
// PCG(seed, 0) from the ids of the whole file. A file that holds less than that is an error.
func Calibration(path string, tok Tokenizer, vocab, n, seq int, seed uint64) ([][]int32, error) {
	ready, err := pretokenised(path)
	if err != nil {
		return nil, err
	}
	samples, err := Samples(path, tok, vocab)
	if err != nil {
		return nil, err
	}
	if ready {
		if len(samples) > n {
			samples = samples[:n]
		}
		for i, s := range samples {
			samples[i] = s[:min(seq, len(s))]
		}
		return samples, nil
	}
	ids := slices.Concat(samples...)
	if len(ids) < seq {
		return nil, fmt.Errorf("data: %s has %d tokens, fewer than one calibration sample of %d; give a longer file or a smaller --calibration-seq", path, len(ids), seq)
	}
	draw, out := rand.New(rand.NewPCG(seed, 0)), make([][]int32, n)
	for i := range out {
		at := draw.IntN(len(ids) - seq + 1)
		out[i] = ids[at : at+seq : at+seq]
	}
	return out, nil
}

// pretokenised reports whether the file's rows hold input_ids; the first row decides.
func pretokenised(path string) (ready bool, err error) {
	if kind, _ := form(path); kind == "text" {
		return false, nil
	}
	if err := regular(path); err != nil { // rows are looked at before they are read, text is not
		return false, err
	}
	enough := errors.New("the first row is read")
	err = eachRow(path, func(_ place, raw []byte) error {
		var r struct {
			IDs json.RawMessage `json:"input_ids"`
		}
		ready = json.Unmarshal(raw, &r) == nil && r.IDs != nil
		return enough
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return ready, err
}
