package tokenizer

import (
	"encoding/json"
	"fmt"
	"maps"
	"sort"
	"strconv"
	"strings"
)

// config is what tokenizer_config.json, special_tokens_map.json and generation_config.json say about tokens.
type config struct {
	BOS          specialToken          `json:"bos_token"`
	EOS          specialToken          `json:"eos_token"`
	Pad          specialToken          `json:"pad_token"`
	Unk          specialToken          `json:"unk_token"`
	ChatTemplate chatTemplate          `json:"chat_template"`
	Added        map[string]addedToken `json:"added_tokens_decoder"`
	BOSID        firstID               `json:"bos_token_id"`
	EOSID        firstID               `json:"eos_token_id"`
	PadID        firstID               `json:"pad_token_id"`
	Class        string                `json:"tokenizer_class"`
	AddBOS       flag                  `json:"add_bos_token"`
	AddEOS       flag                  `json:"add_eos_token"`

	named map[string]string // special tokens as chat templates know them; "": null
}

func parseConfig(data []byte) (*config, error) {
	c := &config{named: map[string]string{}}
	if len(data) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, err
	}
	c.named = namedTokens(data)
	return c, nil
}

// namedTokens are the special tokens that a configuration names: its …_token entries, and those of its named extra ones.
func namedTokens(data []byte) map[string]string {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(data, &fields) // it has been read before
	named := map[string]string{}
	add := func(name string, raw json.RawMessage) {
		var token specialToken
		if token.UnmarshalJSON(raw) == nil {
			named[name] = string(token)
		}
	}
	for name, raw := range fields {
		if strings.HasSuffix(name, "_token") {
			add(name, raw)
		}
	}
	for _, list := range []string{"extra_special_tokens", "model_specific_special_tokens"} {
		var extra map[string]json.RawMessage
		_ = json.Unmarshal(fields[list], &extra) // a list of tokens without names
		for name, raw := range extra {
			add(name, raw)
		}
	}
	return named
}

// classTokens are the special tokens of transformers' classes, which a configuration need not name.
var classTokens = map[string]map[string]string{
	"LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
	"GPT2Tokenizer":  {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
	"Qwen2Tokenizer": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
}

// complete adds the special tokens of the tokenizer's class that no file names.
func (c *config) complete() {
	named := map[string]string{}
	maps.Copy(named, classTokens[strings.TrimSuffix(c.Class, "Fast")])
	maps.Copy(named, c.named)
	for name, to := range map[string]*specialToken{"bos_token": &c.BOS, "eos_token": &c.EOS, "pad_token": &c.Pad, "unk_token": &c.Unk} {
		if *to == "" {
			*to = specialToken(named[name])
		}
	}
	maps.DeleteFunc(named, func(_, token string) bool { return token == "" })
	c.named = named
}

// fill takes from o what c does not say.
func (c *config) fill(o *config) {
	for _, p := range [][2]*specialToken{{&c.BOS, &o.BOS}, {&c.EOS, &o.EOS}, {&c.Pad, &o.Pad}, {&c.Unk, &o.Unk}} {
		if *p[0] == "" {
			*p[0] = *p[1]
		}
	}
	for _, p := range [][2]*firstID{{&c.BOSID, &o.BOSID}, {&c.EOSID, &o.EOSID}, {&c.PadID, &o.PadID}} {
		if !p[0].ok {
			*p[0] = *p[1]
		}
	}
}

// addedTokens are the tokens of added_tokens_decoder in the order of their ids.
func (c *config) addedTokens() ([]addedToken, error) {
	var out []addedToken
	for key, a := range c.Added {
		id, err := strconv.ParseUint(key, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("added_tokens_decoder: the key %q is no id", key)
		}
		a.ID = int32(id)
		out = append(out, a)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

// specialToken is "<s>" or {"content": "<s>", …} or null.
type specialToken string

func (t *specialToken) UnmarshalJSON(data []byte) error {
	var o struct{ Content string }
	if data[0] == '{' {
		err := json.Unmarshal(data, &o)
		*t = specialToken(o.Content)
		return err
	}
	return json.Unmarshal(data, (*string)(t))
}

// flag is true, false or null, which is false, or not given.
type flag struct{ given, on bool }

func (f *flag) UnmarshalJSON(data []byte) error {
	f.given = true
	return json.Unmarshal(data, &f.on)
}

// chatTemplate is a string, or a list of named ones, of which "default" counts, or the only one.
type chatTemplate string

func (t *chatTemplate) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		return json.Unmarshal(data, (*string)(t))
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(data, &named); err != nil {
		return err
	}
	for _, n := range named {
		if n.Name == "default" || len(named) == 1 {
			*t = chatTemplate(n.Template)
		}
	}
	return nil
}

// firstID is an id or the first of a list of ids.
type firstID struct {
	id int32
	ok bool
}

func (f *firstID) UnmarshalJSON(data []byte) error {
	var ids []int32
	switch {
	case string(data) == "null":
		return nil
	case data[0] != '[':
		data = []byte("[" + string(data) + "]")
	}
	err := json.Unmarshal(data, &ids)
	if len(ids) > 0 {
		f.id, f.ok = ids[0], true
	}
	return err
}
