package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

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
	c.Flags().StringVar(&g.prompt, "prompt", "", "text to go on from")
	c.Flags().StringVar(&g.ids, "ids", "", "token ids to go on from, comma-separated")
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
		return g.run(c, &o)
	}
	return c
}

// sampling is one generation.
type sampling struct {
	prompt, ids string
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
	if g.tokens < 1 || g.temperature < 0 {
		return usagef("generate: --max-new-tokens must be at least 1 and --temperature not negative")
	}
	if room := o.folder.Config.MaxPositions; len(prompt)+g.tokens > room {
		return usagef("generate: %d prompt tokens and %d new ones exceed the model's max_position_embeddings %d", len(prompt), g.tokens, room)
	}
	m, err := o.load(c, decoder.Options{Batch: 1, Seq: min(512, len(prompt)), Cache: len(prompt) + g.tokens})
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	shown := o.tok.Decode(prompt, true)
	if !g.json {
		fmt.Fprint(out, shown)
	}
	all := slices.Clone(prompt)
	err = g.each(c, m, o, prompt, func(id int32) {
		all = append(all, id)
		if text := o.tok.Decode(all, true); !g.json && strings.HasPrefix(text, shown) && !strings.HasSuffix(text, "\uFFFD") {
			fmt.Fprint(out, text[len(shown):])
			shown = text
		}
	})
	if err != nil {
		return err
	}
	if g.json {
		return printJSON(c, map[string]any{"ids": all[len(prompt):], "text": o.tok.Decode(all[len(prompt):], true), "prompt_ids": prompt})
	}
	fmt.Fprintln(out)
	return nil
}

// start is the prompt's ids.
func (g *sampling) start(o *inference) ([]int32, error) {
	if g.ids == "" {
		ids := o.tok.Encode(g.prompt, true)
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

// each calls f with every new token, until the end-of-text token, the limit or an interrupt.
func (g *sampling) each(c *cobra.Command, m *decoder.Model, o *inference, prompt []int32, f func(id int32)) error {
	cache, rng := m.NewCache(), rand.New(rand.NewPCG(g.seed, 0))
	next := prompt
	eos, hasEOS := o.tok.EOS()
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
		if hasEOS && id == eos {
			return nil
		}
		f(id)
		next = []int32{id}
	}
	return nil
}

// pick draws from softmax(logits/temperature); at 0 it takes the largest, the first of equals. −1: they are not finite.
func pick(logits []float32, temperature float64, rng *rand.Rand) int32 {
	best := 0
	for i, l := range logits {
		if math.IsNaN(float64(l)) {
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
