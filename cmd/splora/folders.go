package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/sparse"
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
		o.Path = config
		if err := family.Init(c.Context(), out, o); err != nil {
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
		Long: `export writes a model folder in the packed form, or back. Kept weights, zeros among them, and all other tensors stay bit for bit.
The packed form stores nothing of pruned weights, so that a -0 among them, as w * 0 leaves it, comes back as 0.`,
		Args: noArgs,
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
		if err := write(c.Context(), src, out); err != nil {
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
		Long: `plan prints the resident memory that one rank of train comes to on this machine, from a model folder or from a config.json
alone, with train's flags, for rows of --seq tokens: train allocates for the longest row that there is, and less when none is
that long. The tokenised rows, a mapped file, come on top. For a config.json, --pattern says how the linears are going to be
pruned.

A packed folder is mapped, not read: it stands in memory once, however many ranks of the host use it, and where memory is
short the system drops parts of it and reads them again. A Hugging Face folder's sparse linears are packed in each rank's own memory.

With --device cuda it plans a GPU's memory, and needs none.`,
		Args: noArgs,
	}
	c.Flags().StringVar(&file, "config", "", "YAML file with train's settings")
	c.Flags().StringVar(&pattern, "pattern", "2:4", "with a config.json: n:m keeps n of m; a number is the fraction removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	train.Flags(c.Flags(), &cfg)
	completeTrain(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if cfg.Model == "" && file == "" {
			return usagef("plan: --model is missing: a model folder, or a config.json")
		}
		for _, name := range []string{"data", "out"} { // plan needs neither
			if err := c.Flags().Set(name, "-"); err != nil {
				return err
			}
		}
		if err := train.Resolve(c.Flags(), &cfg, file); err != nil {
			return err
		}
		if !strings.HasSuffix(cfg.Model, ".json") {
			if err := refuse(c, "with a model folder, whose masks say it", "pattern"); err != nil {
				return err
			}
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

// footprint is plan of a folder or a config.json, on this machine's processors.
func footprint(cfg train.Config, pattern string) (f train.Footprint, err error) {
	sketch, arch, mapped, packed, err := sketch(cfg.Model, pattern)
	if err != nil {
		return f, err
	}
	lc, err := cfg.LoRA()
	if err != nil {
		return f, err
	}
	if cfg.Seq == 0 {
		cfg.Seq = min(2048, arch.MaxPositions)
	}
	if cfg.Seq > arch.MaxPositions {
		return f, tooManyPositions("plan", cfg, arch.MaxPositions)
	}
	_, gpu, err := parseDevice(cfg.Device)
	if err != nil {
		return f, err
	}
	if err := checkStreamed(cfg, packed, gpu); err != nil {
		return f, err
	}
	if err := train.CheckRows(cfg.Options(cfg.Seq)); err != nil {
		return f, fmt.Errorf("plan: %w", err)
	}
	if gpu {
		p, err := decoder.Estimate(cuda.Planner{SparseCores: cfg.Memory == "fused"}, arch, sketch, &lc, true, cfg.Options(cfg.Seq))
		return train.Measure(sketch, arch, p).PlannedOn(cuda.Config{}.Own()), err
	}
	be := cpu.New(cpu.Config{Threads: cfg.Threads})
	defer be.Close()
	p, err := decoder.Estimate(be, arch, sketch, &lc, true, cfg.Options(cfg.Seq))
	f = train.Measure(sketch, arch, p)
	f.Mapped, f.Process = mapped, train.Program()
	if packed && streams(cfg.Base, f, 1) {
		f = f.Streamed(family.Largest(sketch), sketch, arch)
	}
	return f, err
}

// checkStreamed refuses --base streamed where the base stands in memory all the same.
func checkStreamed(cfg train.Config, packed, gpu bool) error {
	switch {
	case cfg.Base != "streamed":
		return nil
	case !packed:
		return usagef("--base streamed: %s is not a packed folder, and only one can be streamed: splora export --format packed makes it", cfg.Model)
	case gpu:
		return usagef("--base streamed: a GPU's base stands in its memory: give --device cpu, or another --base")
	}
	return nil
}

// streams decides whether a packed base is streamed to ranks of this host.
func streams(base string, f train.Footprint, ranks int) bool {
	room := train.HostMemory()
	return base == "streamed" || base == "auto" && room > 0 && !f.Fits(room, ranks)
}

// sketch is the model of a folder, whose tokenizer is loaded as train loads it, or what a config.json will be; mapped is how much of it
// stays in its files, packed whether the folder is, so that it can be streamed.
func sketch(path, pattern string) (r *decoder.Resident, c decoder.Config, mapped int, packed bool, err error) {
	if strings.HasSuffix(path, ".json") {
		a, err := family.ReadConfig(path)
		if err != nil {
			return nil, c, 0, false, err
		}
		p, removed, err := sparse.ParsePattern(pattern)
		if err != nil {
			return nil, c, 0, false, usage{err}
		}
		return decoder.Sketch(a.Config, a.DType, p, removed), a.Config, 0, false, nil
	}
	f, err := family.Open(path)
	if err != nil {
		return nil, c, 0, false, err
	}
	defer f.Close()
	if r, err = f.Sketch(); err != nil {
		return nil, c, 0, false, err
	}
	_, err = openTokenizer(path, f)
	return r, f.Config, f.Mapped(r), f.Packed, err
}
