package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// spec is a tokenizer.json with its large parts decoded and its small ones still raw.
type spec struct {
	added                                            []addedToken
	normalizer, preTokenizer, postProcessor, decoder json.RawMessage
	model                                            modelSpec
	llama                                            bool // a tokenizer.model: BOS and EOS are added as the configuration says
}

// modelSpec is the "model" object: byte pair encoding and its switches.
type modelSpec struct {
	Type         string
	Unk          string
	Prefix       string // continuing_subword_prefix
	Suffix       string // end_of_word_suffix
	FuseUnk      bool
	ByteFallback bool
	IgnoreMerges bool
	vocab        map[string]int32
	merges       [][2]int32 // in order of rank
	results      []int32    // what each merge makes
}

// maxID bounds the ids that a file may use, so that a broken file cannot ask for all memory.
const maxID = 1<<22 - 1

func parseSpec(data []byte) (*spec, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	s := new(spec)
	var model, added []byte
	err := eachField(data, func(key, value []byte) error {
		switch string(key) {
		case "added_tokens":
			added = value
		case "normalizer":
			s.normalizer = value
		case "pre_tokenizer":
			s.preTokenizer = value
		case "post_processor":
			s.postProcessor = value
		case "decoder":
			s.decoder = value
		case "model":
			model = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if added != nil {
		if err := json.Unmarshal(added, &s.added); err != nil {
			return nil, fmt.Errorf("added_tokens: %w", err)
		}
	}
	if model == nil {
		return nil, errors.New("has no field model")
	}
	return s, s.model.parse(model)
}

// parse reads the model object; vocab and merges, which are megabytes, without encoding/json.
func (m *modelSpec) parse(data []byte) error {
	var vocab, merges []byte
	small := map[string]any{
		"type": &m.Type, "unk_token": &m.Unk, "continuing_subword_prefix": &m.Prefix, "end_of_word_suffix": &m.Suffix,
		"fuse_unk": &m.FuseUnk, "byte_fallback": &m.ByteFallback, "ignore_merges": &m.IgnoreMerges,
	}
	err := eachField(data, func(key, value []byte) error {
		switch k := string(key); k {
		case "vocab":
			vocab = value
		case "merges":
			merges = value
		default:
			if dst := small[k]; dst != nil {
				if err := json.Unmarshal(value, dst); err != nil {
					return fmt.Errorf("%s: %w", k, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if m.Type != "BPE" && !(m.Type == "" && merges != nil) {
		return fmt.Errorf("model.type %q is not supported (known: BPE)", m.Type)
	}
	if vocab == nil || merges == nil {
		return errors.New("model: vocab or merges is missing")
	}
	if err := m.parseVocab(vocab); err != nil {
		return fmt.Errorf("model.vocab: %w", err)
	}
	if err := m.parseMerges(merges); err != nil {
		return fmt.Errorf("model.merges: %w", err)
	}
	return nil
}

func (m *modelSpec) parseVocab(data []byte) error {
	m.vocab = make(map[string]int32, len(data)/20)
	return eachField(data, func(key, value []byte) error {
		id, err := parseID(value)
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
		m.vocab[string(key)] = id
		return nil
	})
}

func (m *modelSpec) parseMerges(data []byte) error {
	n := 0
	var left, right []byte
	return eachElement(data, func(value []byte) error {
		n++
		var err error
		if value[0] == '[' {
			left, right, err = mergePair(value, left, right)
		} else {
			left, right, err = mergeLine(value, left, right)
		}
		if err != nil {
			return fmt.Errorf("[%d]: %w", n-1, err)
		}
		if bytes.HasPrefix(left, []byte("#version")) && value[0] != '[' {
			return nil
		}
		if err := m.addMerge(left, right); err != nil {
			return fmt.Errorf("[%d]: %w", n-1, err)
		}
		return nil
	})
}

// mergeLine splits "a b"; the halves are written over left and right.
func mergeLine(value, left, right []byte) ([]byte, []byte, error) {
	line, err := unquote(value)
	if err != nil {
		return left, right, err
	}
	a, b, ok := bytes.Cut(line, []byte(" "))
	if !ok || bytes.IndexByte(b, ' ') >= 0 {
		return left, right, fmt.Errorf("%q is not two tokens with one space between", line)
	}
	return append(left[:0], a...), append(right[:0], b...), nil
}

// mergePair splits ["a","b"].
func mergePair(value, left, right []byte) ([]byte, []byte, error) {
	n := 0
	err := eachElement(value, func(v []byte) error {
		s, err := unquote(v)
		switch n++; n {
		case 1:
			left = append(left[:0], s...)
		case 2:
			right = append(right[:0], s...)
		}
		return err
	})
	if err == nil && n != 2 {
		err = fmt.Errorf("a merge has two tokens, this one %d", n)
	}
	return left, right, err
}

func (m *modelSpec) addMerge(left, right []byte) error {
	a, ok := m.vocab[string(left)]
	if !ok {
		return fmt.Errorf("%q is not in the vocabulary", left)
	}
	b, ok := m.vocab[string(right)]
	if !ok {
		return fmt.Errorf("%q is not in the vocabulary", right)
	}
	if len(right) < len(m.Prefix) {
		return fmt.Errorf("%q is shorter than continuing_subword_prefix", right)
	}
	var room [128]byte
	joined := append(append(room[:0], left...), right[len(m.Prefix):]...)
	c, ok := m.vocab[string(joined)]
	if !ok {
		return fmt.Errorf("the result %q is not in the vocabulary", joined)
	}
	m.merges = append(m.merges, [2]int32{a, b})
	m.results = append(m.results, c)
	return nil
}

func parseID(v []byte) (int32, error) {
	id := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("the id %s is not a whole number ≥ 0", v)
		}
		if id = id*10 + int(c-'0'); id > maxID {
			return 0, fmt.Errorf("the id %s is beyond %d", v, maxID)
		}
	}
	return int32(id), nil
}
