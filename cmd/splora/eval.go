package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/data"
	"github.com/splora/splora/data/tokenizer"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/tensor"
)

// Perplexity is the result of eval: ppl = exp(loss), loss = mean over windows of the mean loss of seq−1 predictions.
type Perplexity struct {
	PPL     float64 `json:"ppl"`
	Loss    float64 `json:"loss"`
	Tokens  int     `json:"tokens"` // predicted
	Windows int     `json:"windows"`
}

func newEval() *cobra.Command {
	var o inference
	var file string
	seq, asJSON := 0, false
	c := &cobra.Command{
		Use:   "eval",
		Short: "Perplexity of a model, with or without an adapter, on a text",
		Long: `eval cuts the ids of the whole text into windows of --seq without overlap, drops the remainder, and gives
exp of the mean over windows of the mean loss of their seq-1 predictions.`,
		Args: noArgs,
	}
	o.flags(c)
	o.runFlags(c)
	c.Flags().StringVar(&file, "data", "", "text file, or JSONL with text or input_ids")
	c.Flags().IntVar(&seq, "seq", 0, "tokens per window (0: the smaller of 2048 and the model's positions)")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "model", "data"); err != nil {
			return err
		}
		if err := filled(c, "adapter"); err != nil {
			return err
		}
		p, err := o.perplexity(c, file, seq)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c, p)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "perplexity %.4f  (loss %.6f over %s predictions in %d windows)\n", p.PPL, p.Loss, humanize.Comma(int64(p.Tokens)), p.Windows)
		return err
	}
	return c
}

// inference is a model that is run but not trained.
type inference struct {
	model, adapter string
	dtype          string // compute type; "" is float32
	device         string
	threads        int

	folder *family.Folder
	tok    *tokenizer.Tokenizer // nil: the folder has none
	be     compute.Backend
}

func (o *inference) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.model, "model", "", "model folder: Hugging Face or packed")
	c.Flags().IntVar(&o.threads, "threads", 0, "CPU threads (0: all)")
}

// runFlags are the flags of those commands that may run an adapter, compute in bfloat16, and on a GPU.
func (o *inference) runFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.adapter, "adapter", "", "adapter folder in PEFT's layout")
	c.Flags().StringVar(&o.dtype, "dtype", "float32", "compute type: float32 or bfloat16")
	complete(c, "dtype", "float32", "bfloat16")
	deviceFlag(c, &o.device)
}

// open reads the folder and its tokenizer.
func (o *inference) open() (err error) {
	if o.dtype != "" && o.dtype != "float32" && o.dtype != "bfloat16" {
		return usagef("--dtype %q: float32 or bfloat16", o.dtype)
	}
	if _, _, err := parseDevice(o.device); err != nil {
		return err
	}
	if o.folder, err = family.Open(o.model); err != nil {
		return err
	}
	o.tok, err = openTokenizer(o.model, o.folder)
	return err
}

// load makes the model ready to run.
func (o *inference) load(c *cobra.Command, opt decoder.Options) (*decoder.Model, error) {
	w, err := o.folder.Load()
	if err != nil {
		return nil, err
	}
	for _, n := range o.folder.Notes {
		fmt.Fprintln(c.ErrOrStderr(), "note:", n)
	}
	be, err := openDevice(o.device, true, o.threads, false, func(s string) { fmt.Fprintln(c.ErrOrStderr(), "note:", s) })
	if err != nil {
		return nil, err
	}
	o.be = be.Backend
	if o.dtype == "bfloat16" {
		opt.DType = tensor.BF16
	}
	weights, err := placed(o.be, w, o.folder.Config, opt)
	if err != nil {
		return nil, err
	}
	var ad *lora.Adapters
	if o.adapter != "" {
		a, err := safetensors.ReadAdapter(o.adapter)
		if err != nil {
			return nil, err
		}
		if ad, err = train.Frozen(o.be, o.folder.Config, weights, a); err != nil {
			return nil, fmt.Errorf("%s: %w", o.adapter, err)
		}
		if err := noteBase(c, a, o.adapter, o.folder, o.model); err != nil {
			return nil, err
		}
	}
	return decoder.New(o.be, o.folder.Config, weights, ad, opt)
}

// placed is the weights where the backend computes.
func placed(be compute.Backend, w *decoder.Resident, arch decoder.Config, opt decoder.Options) (decoder.Weights, error) {
	d, ok := be.(compute.Planned)
	if !ok {
		return w, nil
	}
	p, err := decoder.Estimate(be, arch, w, nil, false, opt)
	if err != nil {
		return nil, err
	}
	return train.Place(be, d, w, p)
}

func (o *inference) close() {
	if o.be != nil {
		o.be.Close()
	}
	if o.folder != nil {
		o.folder.Close()
	}
}

// perplexity is eval.
func (o *inference) perplexity(c *cobra.Command, file string, seq int) (p Perplexity, err error) {
	defer o.close()
	if err := o.open(); err != nil {
		return p, err
	}
	if seq == 0 {
		seq = min(2048, o.folder.Config.MaxPositions)
	}
	if seq < 2 || seq > o.folder.Config.MaxPositions {
		return p, usagef("eval: --seq %d: from 2 to the model's max_position_embeddings %d", seq, o.folder.Config.MaxPositions)
	}
	samples, err := data.Samples(file, words(o.tok), o.folder.Config.Vocab)
	if err != nil {
		return p, err
	}
	ids := slices.Concat(samples...)
	windows := data.Windows(ids, seq)
	if len(windows) == 0 {
		return p, fmt.Errorf("eval: %s has %d tokens, fewer than one window of --seq %d", file, len(ids), seq)
	}
	batch := max(1, min(len(windows), 1024/seq))
	m, err := o.load(c, decoder.Options{Batch: batch, Seq: seq})
	if err != nil {
		return p, err
	}
	return windowed(m, windows, batch, c.Context().Err)
}

// windowed is the perplexity of the windows, batch of them at a time; stop ends it early.
func windowed(m *decoder.Model, windows [][]int32, batch int, stop func() error) (p Perplexity, err error) {
	var b data.Batch
	var sum float64
	for chunk := range slices.Chunk(windows, batch) {
		if err := stop(); err != nil {
			return p, err
		}
		rows := make([]data.Row, len(chunk))
		for i, w := range chunk {
			rows[i] = data.Plain(w)
		}
		b.Fill(rows, 1)
		losses, counts, err := m.Losses(decoder.Batch{B: b.B, T: b.T, Tokens: b.Tokens, Targets: b.Targets, Positions: b.Positions, Docs: b.Docs})
		if err != nil {
			return p, err
		}
		for i, l := range losses {
			sum += l / float64(counts[i])
			p.Tokens, p.Windows = p.Tokens+counts[i], p.Windows+1
		}
	}
	p.Loss = sum / float64(p.Windows)
	p.PPL = math.Exp(p.Loss)
	if math.IsNaN(p.PPL) || math.IsInf(p.PPL, 0) {
		return p, fmt.Errorf("eval: the loss is %v: the model's weights or the adapter overflow, or the text is not of this tokenizer", p.Loss)
	}
	return p, nil
}
