package tokenizer

import (
	"encoding/json"
	"fmt"
)

// template is what the post-processor puts around the ids of a text.
type template struct{ before, after []int32 }

type postSpec struct {
	Type          string
	Processors    []json.RawMessage
	Single        []templatePiece
	SpecialTokens map[string]struct{ IDs []int32 } `json:"special_tokens"`
	Sep, Cls      [2]any
}

type templatePiece struct {
	SpecialToken *struct{ ID string }
	Sequence     *struct{ ID string }
}

func newTemplates(raw json.RawMessage, field string) ([]template, error) {
	if isNull(raw) {
		return nil, nil
	}
	var s postSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	switch s.Type {
	case "Sequence":
		return sequence(s.Processors, field+".processors", newTemplates)
	case "ByteLevel": // moves offsets only
		return nil, nil
	case "TemplateProcessing":
		t, err := s.template()
		if err != nil {
			return nil, fmt.Errorf("%s.%w", field, err)
		}
		return []template{t}, nil
	case "RobertaProcessing", "BertProcessing":
		cls, ok1 := s.Cls[1].(float64)
		sep, ok2 := s.Sep[1].(float64)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("%s: cls and sep are not [token, id]", field)
		}
		return []template{{[]int32{int32(cls)}, []int32{int32(sep)}}}, nil
	}
	return nil, fmt.Errorf("%s.type %q is not supported (known: Sequence, TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing)",
		field, s.Type)
}

func (s *postSpec) template() (t template, err error) {
	texts := 0
	for i, p := range s.Single {
		switch {
		case p.Sequence != nil && p.Sequence.ID == "A":
			texts++
		case p.SpecialToken != nil:
			special, ok := s.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return t, fmt.Errorf("single[%d]: %q is not in special_tokens", i, p.SpecialToken.ID)
			}
			if texts == 0 {
				t.before = append(t.before, special.IDs...)
			} else {
				t.after = append(t.after, special.IDs...)
			}
		default:
			return t, fmt.Errorf("single[%d]: neither SpecialToken nor Sequence A", i)
		}
	}
	if texts != 1 {
		return t, fmt.Errorf("single: the sequence A stands in it %d times, not once", texts)
	}
	return t, nil
}

// nest puts each template around the ones before it.
func nest(templates []template) (t template) {
	for _, o := range templates {
		t.before = append(append([]int32(nil), o.before...), t.before...)
		t.after = append(t.after, o.after...)
	}
	return t
}

// llamaTemplate is what transformers' LlamaTokenizer adds: BOS unless add_bos_token is false, EOS if add_eos_token is true.
func (t *Tokenizer) llamaTemplate(c *config) (x template) {
	if id, ok := t.ID(string(c.BOS)); ok && (!c.AddBOS.given || c.AddBOS.on) {
		x.before = []int32{id}
	}
	if id, ok := t.ID(string(c.EOS)); ok && c.AddEOS.on {
		x.after = []int32{id}
	}
	return x
}
