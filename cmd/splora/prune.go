package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/data"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/prune"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func newPrune() *cobra.Command {
	var p pruning
	c := &cobra.Command{
		Use:   "prune",
		Short: "Prune a model's linears, block by block",
		Long: `prune drops weights of all linears of all blocks and writes a Hugging Face folder with mask.safetensors.

--pattern n:m keeps n of every m consecutive inputs (2:4 halves); a number is the fraction removed (0.6 keeps 40 %).
Wanda scores a weight by its magnitude times the norm of its input over the calibration samples; a block's inputs come
from the pruned blocks before it.`,
		Example: "  splora prune --model llama/ --out llama-2of4/ --pattern 2:4 --calibration c4.jsonl",
		Args:    noArgs,
	}
	p.flags(c)
	f := c.Flags()
	f.StringVar(&p.out, "out", "", "folder to write")
	f.StringVar(&p.pattern, "pattern", "2:4", "n:m keeps n of m; a number is the fraction removed")
	f.StringVar(&p.method, "pruner", string(prune.Wanda), "wanda or magnitude")
	f.StringVar(&p.file, "calibration", "", "text, or JSONL with text or input_ids, for wanda")
	f.IntVar(&p.samples, "calibration-samples", 128, "calibration samples, for wanda")
	f.IntVar(&p.seq, "calibration-seq", 2048, "tokens of a calibration sample, at most the model's positions, for wanda")
	f.Uint64Var(&p.seed, "seed", 0, "seed of the places that calibration samples are taken from, for wanda")
	f.BoolVar(&p.json, "json", false, "print the per-layer report as one JSON object")
	complete(c, "pruner", "wanda", "magnitude")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "model", "out"); err != nil {
			return err
		}
		return p.run(c)
	}
	return c
}

// pruning is one run of prune.
type pruning struct {
	inference
	out, pattern, method, file string
	samples, seq               int
	seed                       uint64
	json                       bool

	target prune.Target
	layers []prune.Layer
}

func (p *pruning) run(c *cobra.Command) error {
	method, err := prune.ParseMethod(p.method)
	if err != nil {
		return usage{err}
	}
	if p.target.Pattern, p.target.Sparsity, err = sparse.ParsePattern(p.pattern); err != nil {
		return usage{err}
	}
	if method == prune.Wanda && p.file == "" {
		return usagef("prune: wanda needs --calibration FILE")
	}
	if method == prune.Magnitude {
		if err := refuse(c, "with --pruner magnitude", "calibration", "calibration-samples", "calibration-seq", "seed"); err != nil {
			return err
		}
	}
	if err := family.Vacant(p.out); err != nil {
		return err
	}
	defer p.close()
	if err := p.open(); err != nil {
		return err
	}
	began := time.Now()
	m, err := p.blocks(c, method)
	if err != nil {
		return err
	}
	err = prune.Sequential(c.Context(), m, method, p.target, func(i int, layers []prune.Layer) {
		p.layers = append(p.layers, layers...)
		fmt.Fprintf(c.ErrOrStderr(), "block %d/%d pruned  %s\n", i+1, m.Blocks(), time.Since(began).Round(100*time.Millisecond))
	})
	if err != nil {
		return err
	}
	if err := m.write(c.Context(), p.folder, p.out, p.target.Pattern); err != nil {
		return err
	}
	return p.show(c)
}

// show prints the report.
func (p *pruning) show(c *cobra.Command) error {
	kept, all := 0, 0
	for _, l := range p.layers {
		kept, all = kept+l.Kept, all+l.Weights
	}
	density := float64(kept) / float64(all)
	if p.json {
		return printJSON(c, map[string]any{"out": p.out, "pattern": p.pattern, "pruner": p.method, "density": density, "layers": p.layers})
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "layer\tweights\tkept\tdensity\tscore kept\t")
	for _, l := range p.layers {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f %%\t%.2f %%\t\n", l.Name, l.Weights, l.Kept, 100*l.Density, 100*l.Energy)
	}
	fmt.Fprintf(w, "in all\t%d\t%d\t%.2f %%\t\t\n", all, kept, 100*density)
	return w.Flush()
}

// blocks is the model as the pruner sees it, with the calibration samples embedded.
func (p *pruning) blocks(c *cobra.Command, method prune.Method) (*prunable, error) {
	seq := min(p.seq, p.folder.Config.MaxPositions)
	if seq < 1 || p.samples < 1 {
		return nil, usagef("prune: --calibration-seq and --calibration-samples must be at least 1")
	}
	var samples [][]int32
	var err error
	if method == prune.Wanda {
		if samples, err = data.Calibration(p.file, words(p.tok), p.folder.Config.Vocab, p.samples, seq, p.seed); err != nil {
			return nil, err
		}
	}
	m, err := p.load(c, decoder.Options{Batch: 1, Seq: seq})
	if err != nil {
		return nil, err
	}
	b := &prunable{Model: m, masks: map[string][]uint64{}}
	for _, s := range samples {
		in := decoder.Batch{B: 1, T: len(s), Tokens: s}
		x := m.Hidden(in)
		if err := m.Embed(x, in); err != nil {
			return nil, err
		}
		b.samples, b.hidden = append(b.samples, in), append(b.hidden, x)
	}
	return b, nil
}

// prunable is a decoder whose blocks are pruned one by one. Only the present block's pruned weights stand in memory; of
// those before it, the masks do.
type prunable struct {
	*decoder.Model
	samples []decoder.Batch
	hidden  []tensor.Tensor
	pruned  *decoder.Block // the present block, once it is
	masks   map[string][]uint64
}

func (b *prunable) Blocks() int { return b.Config.Layers }

func (b *prunable) Run(ctx context.Context, i int, observe func(linear int, x tensor.Tensor)) error {
	for s, in := range b.samples {
		if err := ctx.Err(); err != nil {
			return err
		}
		x := b.hidden[s]
		if observe != nil {
			x = tensor.New(tensor.F32, x.Rows, x.Cols)
			b.Copy(x, b.hidden[s])
		}
		if err := b.BlockForward(i, b.pruned, x, in, observe); err != nil {
			return err
		}
	}
	if observe == nil {
		b.pruned = nil
	}
	return nil
}

func (b *prunable) Linears(i int) ([]prune.Linear, error) {
	blk := b.Weights.Acquire(i)
	defer b.Weights.Release(i)
	var out []prune.Linear
	for _, l := range blk.Linears {
		w := tensor.New(tensor.F32, l.W.Out, l.W.In)
		b.Merge(w, l.W, tensor.Tensor{}, tensor.Tensor{}, 0)
		out = append(out, prune.Linear{Name: l.Name, W: w})
	}
	return out, b.Sync()
}

func (b *prunable) Prune(i int, linears []prune.Linear, masks [][]uint64) error {
	blk := *b.Weights.Acquire(i)
	b.Weights.Release(i)
	for k, l := range linears {
		w, err := sparse.Pack(l.W, masks[k], sparse.Pattern{})
		if err != nil {
			return fmt.Errorf("prune: %s: %w", l.Name, err)
		}
		blk.Linears[k].W, b.masks[l.Name] = w, masks[k]
	}
	b.pruned = &blk
	return nil
}

// write makes the pruned folder: every linear under its mask, everything else as it was.
func (b *prunable) write(ctx context.Context, src *family.Folder, out string, p sparse.Pattern) error {
	return family.Rewrite(ctx, src, out, func(l family.Linear) (family.Linear, error) {
		mask, ok := b.masks[l.Name]
		if !ok {
			return l, nil
		}
		l.Weight, l.Mask, l.Pattern = zeroed(l.Weight, mask), mask, p
		return l, nil
	})
}

// zeroed is a copy of w with +0 where the mask is 0; kept weights keep their bits.
func zeroed(w tensor.Tensor, mask []uint64) tensor.Tensor {
	out := tensor.New(w.DType, w.Rows, w.Cols)
	size, words := w.DType.Size(), (w.Cols+63)/64
	for i := range w.Rows {
		for j := range w.Cols {
			if mask[i*words+j/64]>>(j%64)&1 == 1 {
				at := (i*w.Cols + j) * size
				copy(out.Mem.Host[at:at+size], w.Mem.Host[at:at+size])
			}
		}
	}
	return out
}

var _ prune.Model = (*prunable)(nil)
