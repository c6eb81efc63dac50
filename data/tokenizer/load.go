package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// Load reads the tokenizer of a model folder: tokenizer.json or else tokenizer.model (SentencePiece), and what
// tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json say about BOS, EOS and Pad,
// the first of them that says it. chat_template.jinja goes before the template in tokenizer_config.json.
func Load(dir string) (*Tokenizer, error) {
	c, err := loadConfig(dir)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	path, read := filepath.Join(dir, "tokenizer.json"), parseSpec
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		path, read = filepath.Join(dir, "tokenizer.model"), parseSentencePiece
		c.Class = cmp.Or(c.Class, "LlamaTokenizer")
		data, err = os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("tokenizer: %s holds neither tokenizer.json nor tokenizer.model: copy them from the model", dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	s, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", path, err)
	}
	t, err := build(s, c)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", path, err)
	}
	return t, nil
}

func loadConfig(dir string) (*config, error) {
	c := new(config)
	for i, name := range []string{"tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"} {
		data, err := readOptional(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		o, err := parseConfig(data)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		case i == 0:
			c = o
		default:
			if i == 1 && c.Added == nil { // transformers' rule: with added_tokens_decoder it does not read the file
				maps.Copy(c.named, o.named)
			}
			c.fill(o)
		}
	}
	jinja, err := readOptional(filepath.Join(dir, "chat_template.jinja"))
	if len(jinja) > 0 {
		c.ChatTemplate = chatTemplate(jinja)
	}
	return c, err
}

// readOptional reads a file; one that is not there is empty.
func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
