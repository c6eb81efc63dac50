package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/splora/splora/data"
	"github.com/splora/splora/model/decoder"
)

func newGenerate() *cobra.Command {
	var o inference
	var g sampling
	c := &cobra.Command{
		Use:   "generate",
		Short: "Go on from a prompt, with a key/value cache",
		Args:  noArgs,
	}
	o.flags(c)
	o.runFlags(c)
	c.Flags().StringVar(&g.prompt, "prompt", "", "text to go on from")
	c.Flags().StringVar(&g.ids, "ids", "", "token ids to go on from, comma-separated")
	c.Flags().BoolVar(&g.chat, "chat", false, "the prompt is a user's message: lay it out by the model's chat template")
	c.Flags().IntVar(&g.tokens, "max-new-tokens", 64, "tokens to generate, at most; the end-of-text token stops earlier")
	c.Flags().Float64Var(&g.temperature, "temperature", 0, "0: always the likeliest token")
	c.Flags().Uint64Var(&g.seed, "seed", 0, "seed of the sampling")
	c.Flags().BoolVar(&g.json, "json", false, "print one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "model"); err != nil {
			return err
		}
		if c.Flags().Changed("prompt") == c.Flags().Changed("ids") {
			return usagef("generate: give one of --prompt and --ids")
		}
		if err := filled(c, "ids", "adapter"); err != nil {
			return err
		}
		if c.Flags().Changed("seed") && g.temperature == 0 {
			fmt.Fprintln(c.ErrOrStderr(), "note: --seed has no effect at --temperature 0, which takes the likeliest token")
		}
		if g.chat && g.prompt == "" {
			return usagef("generate: --chat needs --prompt, the user's message")
		}
		return g.run(c, &o)
	}
	return c
}

// sampling is one generation.
type sampling struct {
	prompt, ids string
	chat        bool
	tokens      int
	temperature float64
	seed        uint64
	json        bool
}

func (g *sampling) run(c *cobra.Command, o *inference) error {
	defer o.close()
	if err := o.open(); err != nil {
		return err
	}
	prompt, err := g.start(o)
	if err != nil {
		return err
	}
	if g.tokens < 1 || !(g.temperature >= 0) {
		return usagef("generate: --max-new-tokens must be at least 1 and --temperature not negative")
	}
	if room := o.folder.Config.MaxPositions; g.tokens > room-len(prompt) {
		return usagef("generate: %d prompt tokens and %d new ones exceed the model's max_position_embeddings %d", len(prompt), g.tokens, room)
	}
	m, err := o.load(c, decoder.Options{Batch: 1, Seq: min(512, len(prompt)), Cache: len(prompt) + g.tokens})
	if err != nil {
		return err
	}
	if !g.json && o.tok != nil {
		return g.stream(c, m, o, prompt)
	}
	var ids []int32
	if err := g.each(c, m, o, prompt, func(id int32) { ids = append(ids, id) }); err != nil {
		return err
	}
	return g.show(c, o, prompt, ids)
}

// stream prints the text as it grows.
func (g *sampling) stream(c *cobra.Command, m *decoder.Model, o *inference, prompt []int32) error {
	all, shown, out := slices.Clone(prompt), o.tok.Decode(prompt, true), c.OutOrStdout()
	fmt.Fprint(out, shown)
	err := g.each(c, m, o, prompt, func(id int32) {
		all = append(all, id)
		if text := o.tok.Decode(all, true); strings.HasPrefix(text, shown) && !strings.HasSuffix(text, "\uFFFD") {
			fmt.Fprint(out, text[len(shown):])
			shown = text
		}
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.TrimPrefix(o.tok.Decode(all, true), shown)) // what looked unfinished
	return err
}

// show prints a finished generation: as JSON, or the bare ids of a model that has no tokenizer.
func (g *sampling) show(c *cobra.Command, o *inference, prompt, ids []int32) error {
	if !g.json {
		_, err := fmt.Fprintln(c.OutOrStdout(), strings.Trim(fmt.Sprint(ids), "[]"))
		return err
	}
	v := map[string]any{"ids": ids, "prompt_ids": prompt}
	if o.tok != nil {
		v["text"] = o.tok.Decode(ids, true)
	}
	return printJSON(c, v)
}

// start is the prompt's ids.
func (g *sampling) start(o *inference) ([]int32, error) {
	if g.ids == "" {
		if o.tok == nil {
			return nil, fmt.Errorf("generate: %s has no tokenizer for --prompt: copy tokenizer.json from the model, or give --ids", o.model)
		}
		text := g.prompt
		if g.chat {
			var err error
			if text, err = data.RenderChat(o.tok, []data.Message{{Role: "user", Content: g.prompt}}, true); err != nil {
				return nil, err
			}
		}
		ids := o.tok.Encode(text, !g.chat) // a rendered conversation holds its special tokens
		if len(ids) == 0 {
			return nil, usagef("generate: the prompt has no token")
		}
		return ids, nil
	}
	var ids []int32
	for s := range strings.SplitSeq(g.ids, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
		if err != nil || n < 0 || int(n) >= o.folder.Config.Vocab {
			return nil, usagef("generate: --ids: %q is not an id below the model's vocab_size %d", s, o.folder.Config.Vocab)
		}
		ids = append(ids, int32(n))
	}
	return ids, nil
}

// each calls f with every new token, until an end-of-text token (the last one f gets), the limit or an interrupt.
func (g *sampling) each(c *cobra.Command, m *decoder.Model, o *inference, prompt []int32, f func(id int32)) error {
	cache, rng := m.NewCache(), rand.New(rand.NewPCG(g.seed, 0))
	next := prompt
	ends, err := o.ends()
	if err != nil {
		return err
	}
	for range g.tokens {
		if err := c.Context().Err(); err != nil {
			return err
		}
		logits, err := cache.Next(next)
		if err != nil {
			return err
		}
		id := pick(logits, g.temperature, rng)
		if id < 0 {
			return errors.New("generate: the logits are not finite: the model's weights or the adapter overflow")
		}
		f(id)
		if slices.Contains(ends, id) {
			return nil
		}
		next = []int32{id}
	}
	return nil
}

// ends are the tokens that end a text: the tokenizer's EOS, and eos_token_id (one or many) of generation_config.json or,
// where that says nothing, of config.json.
func (o *inference) ends() (ids []int32, err error) {
	if o.tok != nil {
		if id, ok := o.tok.EOS(); ok {
			ids = append(ids, id)
		}
	}
	text, err := os.ReadFile(filepath.Join(o.model, "generation_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("generate: %w", err)
	}
	for _, text := range [][]byte{text, o.folder.ConfigJSON} {
		var c struct {
			EOS json.RawMessage `json:"eos_token_id"`
		}
		var one int32
		var many []int32
		switch {
		case len(text) == 0:
		case json.Unmarshal(text, &c) != nil || len(c.EOS) == 0 || string(c.EOS) == "null":
		case json.Unmarshal(c.EOS, &one) == nil:
			return append(ids, one), nil
		case json.Unmarshal(c.EOS, &many) == nil:
			return append(ids, many...), nil
		default:
			return nil, fmt.Errorf("generate: %s: eos_token_id is %s; want an id or a list of ids", o.model, c.EOS)
		}
	}
	return ids, nil
}

// pick draws from softmax(logits/temperature); at 0 it takes the largest, the first of equals. −1: they are not finite.
func pick(logits []float32, temperature float64, rng *rand.Rand) int32 {
	best := 0
	for i, l := range logits {
		if l-l != 0 {
			return -1
		}
		if l > logits[best] {
			best = i
		}
	}
	if temperature == 0 {
		return int32(best)
	}
	sum, p := 0.0, make([]float64, len(logits))
	for i, l := range logits {
		p[i] = math.Exp(float64(l-logits[best]) / temperature)
		sum += p[i]
	}
	u := rng.Float64() * sum
	for i, x := range p {
		if u -= x; u < 0 {
			return int32(i)
		}
	}
	return int32(best)
}
