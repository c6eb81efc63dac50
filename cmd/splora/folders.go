package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func newInit() *cobra.Command {
	config, out, format := "", "", ""
	var o family.InitConfig
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a model of random weights, of any size, in little memory",
		Args:  noArgs,
	}
	f := c.Flags()
	f.StringVar(&config, "config", "", "config.json of the architecture")
	f.StringVar(&out, "out", "", "folder to write")
	f.StringVar(&o.Pattern, "pattern", "", "n:m keeps n of m; a number is the fraction removed; empty: dense")
	f.StringVar(&format, "format", "hf", "hf or packed")
	f.StringVar(&o.DType, "dtype", "bfloat16", "storage type: float32, bfloat16 or float16")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the weights")
	complete(c, "format", "hf", "packed")
	complete(c, "dtype", "float32", "bfloat16", "float16")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if err := require(c, "config", "out"); err != nil {
			return err
		}
		if o.Packed, err = packedFormat(format); err != nil {
			return err
		}
		if err := checkInit(o); err != nil {
			return err
		}
		if o.Config, err = os.ReadFile(config); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		if err := family.Init(out, o); err != nil {
			return err
		}
		return describe(c, out)
	}
	return c
}

// checkInit refuses what was wrongly written on the command line.
func checkInit(o family.InitConfig) error {
	if _, err := family.ParseDType(o.DType); err != nil && o.DType != "" {
		return usagef("init: --dtype: %w", err)
	}
	if o.Pattern == "" {
		return nil
	}
	if _, _, err := sparse.ParsePattern(o.Pattern); err != nil {
		return usagef("init: --pattern: %w", err)
	}
	return nil
}

func newExport() *cobra.Command {
	model, out, format := "", "", ""
	c := &cobra.Command{
		Use:   "export",
		Short: "Write a model folder in the packed form, or back, bit for bit",
		Args:  noArgs,
	}
	c.Flags().StringVar(&model, "model", "", "model folder")
	c.Flags().StringVar(&format, "format", "packed", "packed or hf")
	complete(c, "format", "packed", "hf")
	c.Flags().StringVar(&out, "out", "", "folder to write")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "model", "out"); err != nil {
			return err
		}
		packed, err := packedFormat(format)
		if err != nil {
			return err
		}
		src, err := family.Open(model)
		if err != nil {
			return err
		}
		defer src.Close()
		write := family.WriteHF
		if packed {
			write = family.WritePacked
		}
		if err := write(src, out); err != nil {
			return err
		}
		return describe(c, out)
	}
	return c
}

func packedFormat(s string) (bool, error) {
	if s != "packed" && s != "hf" {
		return false, usagef("--format %q: packed or hf", s)
	}
	return s == "packed", nil
}

// describe prints a line on a folder that was written.
func describe(c *cobra.Command, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	total := int64(0)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			total += st.Size()
		}
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", dir, humanize.Bytes(uint64(total)))
	return err
}

func newPlan() *cobra.Command {
	cfg, file, pattern, asJSON := train.Defaults(), "", "2:4", false
	c := &cobra.Command{
		Use:   "plan",
		Short: "The memory that a run is going to use, without running it",
		Long: `plan prints what one rank of train would allocate, from a model folder or from a config.json alone, with train's flags, for rows
of --seq tokens (train allocates less when no row is that long). For a config.json, --pattern says how the linears are
going to be pruned.`,
		Args: noArgs,
	}
	c.Flags().StringVar(&file, "config", "", "YAML file with train's settings")
	c.Flags().StringVar(&pattern, "pattern", "2:4", "with a config.json: n:m keeps n of m; a number is the fraction removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	train.Flags(c.Flags(), &cfg)
	completeTrain(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		for _, name := range []string{"data", "out"} { // plan needs neither
			if err := c.Flags().Set(name, "-"); err != nil {
				return err
			}
		}
		if err := train.Resolve(c.Flags(), &cfg, file); err != nil {
			return err
		}
		f, err := footprint(cfg, pattern)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c, struct {
				train.Footprint
				Total int `json:"total_bytes"`
			}{f, f.Total()})
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), f)
		return err
	}
	return c
}

// footprint is plan of a folder or a config.json.
func footprint(cfg train.Config, pattern string) (f train.Footprint, err error) {
	var arch decoder.Config
	if strings.HasSuffix(cfg.Model, ".json") {
		a, err := family.ReadConfig(cfg.Model)
		if err != nil {
			return f, err
		}
		p, sparsity, err := sparse.ParsePattern(pattern)
		if err != nil {
			return f, usage{err}
		}
		arch, f = a.Config, imagine(a.Config, a.DType, p, sparsity)
	} else {
		src, err := family.Open(cfg.Model)
		if err != nil {
			return f, err
		}
		defer src.Close()
		if f, err = weigh(src); err != nil {
			return f, err
		}
		arch = src.Config
	}
	lc, err := cfg.LoRA()
	if err != nil {
		return f, err
	}
	if cfg.Seq == 0 {
		cfg.Seq = min(2048, arch.MaxPositions)
	}
	if cfg.Seq > arch.MaxPositions {
		return f, usagef("plan: --seq %d: %s has max_position_embeddings %d", cfg.Seq, cfg.Model, arch.MaxPositions)
	}
	f.Plan, err = decoder.Estimate(arch, &lc, true, cfg.Options(cfg.Seq))
	return f, err
}

// weigh adds up the frozen base of a folder, linear by linear.
func weigh(src *family.Folder) (f train.Footprint, err error) {
	for _, name := range family.LinearNames(src.Config) {
		l, err := src.Linear(name)
		if err != nil {
			return f, err
		}
		w := sparse.Weight{Out: l.Weight.Rows, In: l.Weight.Cols, Pattern: l.Pattern}
		f.Dense += l.Weight.Bytes()
		if l.Mask == nil {
			f.Linears += l.Weight.Bytes()
			continue
		}
		f.Linears += packedBytes(w, sparse.Count(l.Mask), l.Weight.DType)
	}
	for _, s := range src.Others() {
		switch {
		case len(s.Shape) == 1: // norms and biases stand in float32
			f.Tables += 4 * s.Shape[0]
		case !src.Config.Tied || s.Name != "lm_head.weight":
			f.Tables += int(s.Bytes())
		}
	}
	return f, nil
}

// imagine is the frozen base of a model that is not there.
func imagine(c decoder.Config, dt tensor.DType, p sparse.Pattern, sparsity float64) (f train.Footprint) {
	for k := range decoder.Linears {
		out, in := c.Shape(k)
		kept := in - sparse.Removed(in, sparsity)
		if p.M > 0 {
			kept = p.Keep(in)
		}
		f.Dense += c.Layers * out * in * dt.Size()
		f.Linears += c.Layers * packedBytes(sparse.Weight{Out: out, In: in, Pattern: p}, out*kept, dt)
	}
	f.Tables = c.Vocab * c.Hidden * dt.Size()
	if !c.Tied {
		f.Tables *= 2
	}
	vectors := (2*c.Layers + 1) * c.Hidden
	if c.QKNorm {
		vectors += 2 * c.Layers * c.HeadDim
	}
	for k, biased := range c.Bias {
		if out, _ := c.Shape(k); biased {
			vectors += c.Layers * out
		}
	}
	f.Tables += 4 * vectors
	return f
}

// packedBytes is the size of a packed linear with nnz kept values.
func packedBytes(w sparse.Weight, nnz int, dt tensor.DType) int {
	n := nnz*dt.Size() + w.Out*w.Words()*8
	w.Bits.Host = []byte{}
	if !w.Computed() {
		n += 4 * (w.Out*w.Blocks() + 1)
	}
	return n
}
