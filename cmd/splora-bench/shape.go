package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/splora/splora/model/family"
)

// shape is a LLaMA of given width in the proportions of the 7B model, and the rows that it is trained on.
type shape struct {
	Hidden int `json:"hidden"`
	Seq    int `json:"seq"`
	Inter  int `json:"inter"` // 2.6875·hidden
	Heads  int `json:"heads"` // of 64, from 4096 on of 128
	Layers int `json:"layers"`
	Vocab  int `json:"vocab"`
	Batch  int `json:"batch"`
}

// parseShape reads "HIDDENxSEQ".
func parseShape(text string, layers, vocab, batch int) (s shape, err error) {
	var rest string
	n, _ := fmt.Sscanf(strings.ToLower(text), "%dx%d%s", &s.Hidden, &s.Seq, &rest)
	if n != 2 || s.Hidden < 64 || s.Hidden%64 != 0 || s.Seq < 2 {
		return s, usagef("%q is not HIDDENxSEQ, such as 512x2048, the hidden size a multiple of 64", text)
	}
	head := 64
	if s.Hidden >= 4096 {
		head = 128
	}
	s.Inter, s.Heads = s.Hidden*43/16, s.Hidden/head
	s.Layers, s.Vocab, s.Batch = layers, vocab, batch
	return s, nil
}

// config is the shape as a config.json.
func (s shape) config() []byte {
	b, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"hidden_size": s.Hidden, "intermediate_size": s.Inter, "num_hidden_layers": s.Layers,
		"num_attention_heads": s.Heads, "num_key_value_heads": s.Heads, "vocab_size": s.Vocab,
		"max_position_embeddings": max(4096, s.Seq), "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
	})
	if err != nil {
		panic("splora-bench: " + err.Error())
	}
	return b
}

// model writes the shape's random weights, pruned and packed, into a folder below dir, if they are not there yet.
func (s shape) model(ctx context.Context, dir, pattern, storage string) (string, error) {
	out := filepath.Join(dir, fmt.Sprintf("hidden-%d-positions-%d-%s", s.Hidden, max(4096, s.Seq), strings.ReplaceAll(pattern, ":", "of")))
	if matches, _ := filepath.Glob(filepath.Join(out, "config.json")); len(matches) > 0 {
		return out, nil
	}
	return out, family.Init(ctx, out, family.InitConfig{Config: s.config(), Pattern: pattern, Packed: true, DType: storage, Seed: 1})
}
