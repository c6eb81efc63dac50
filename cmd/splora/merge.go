package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func newMerge() *cobra.Command {
	var m merging
	c := &cobra.Command{
		Use:   "merge",
		Short: "Merge an adapter into its model: a Hugging Face folder, exactly as sparse",
		Long: `merge computes W' = M * (W + s B A) in float32, rounds once to the storage type, and writes an ordinary Hugging Face folder:
dense safetensors with exact zeros, config, tokenizer, chat template, and mask.safetensors. An adapter of plain LoRA
has no mask to be merged under: its result is dense.`,
		Args: noArgs,
	}
	c.Flags().StringVar(&m.model, "model", "", "model folder that the adapter was trained on")
	c.Flags().StringVar(&m.adapter, "adapter", "", "adapter folder")
	c.Flags().StringVar(&m.out, "out", "", "folder to write")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "model", "adapter", "out"); err != nil {
			return err
		}
		return m.run(c)
	}
	return c
}

// merging is one merge.
type merging struct {
	model, adapter, out string

	method  lora.Method
	modules map[string]safetensors.Module
	dev     compute.Device
}

func (m *merging) run(c *cobra.Command) error {
	src, err := family.Open(m.model)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := m.read(c, src); err != nil {
		return err
	}
	be := cpu.New(cpu.Config{})
	defer be.Close()
	m.dev = device(be, src)
	done := 0
	err = family.Rewrite(c.Context(), src, m.out, func(l family.Linear) (family.Linear, error) {
		done++
		a, ok := m.modules[l.Name]
		if !ok {
			return l, nil
		}
		return m.merge(l, a)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "merged %d of %d linears into %s\n", len(m.modules), done, m.out)
	return nil
}

// read opens the adapter and checks that it is of this model.
func (m *merging) read(c *cobra.Command, src *family.Folder) error {
	a, err := safetensors.ReadAdapter(m.adapter)
	if err != nil {
		return err
	}
	if m.method = lora.LoRA; a.Masked() {
		m.method = lora.SPLoRA
	} else {
		fmt.Fprintf(c.ErrOrStderr(), "note: %s is plain LoRA: the merged linears are dense\n", m.adapter)
	}
	if err := noteBase(c, a, m.adapter, src, m.model); err != nil {
		return err
	}
	m.modules = map[string]safetensors.Module{}
	known := map[string]bool{}
	for _, n := range family.LinearNames(src.Config) {
		known[n] = true
	}
	for _, x := range a.Modules {
		if !known[x.Name] {
			return fmt.Errorf("merge: %s adapts %s, which is no linear layer of the blocks of %s; only these can be merged", filepath.Join(m.adapter, safetensors.AdapterFile), x.Name, m.model)
		}
		m.modules[x.Name] = x
	}
	return nil
}

// noteBase says so when an adapter was trained on another model than the folder's.
func noteBase(c *cobra.Command, a *safetensors.Adapter, adapter string, f *family.Folder, model string) error {
	id, err := f.Hash()
	if err != nil {
		return err
	}
	if note := train.OtherBase(a, adapter, id, model); note != "" {
		fmt.Fprintln(c.ErrOrStderr(), note)
	}
	return nil
}

// merge is W' of one linear.
func (m *merging) merge(l family.Linear, a safetensors.Module) (family.Linear, error) {
	w, err := sparse.Pack(l.Weight, l.Mask, l.Pattern)
	if err != nil {
		return l, fmt.Errorf("merge: %s: %w", l.Name, err)
	}
	if a.A.Cols != w.In || a.B.Rows != w.Out {
		return l, fmt.Errorf("merge: %s: the adapter is for [%d,%d], the weight is [%d,%d]", l.Name, a.B.Rows, a.A.Cols, w.Out, w.In)
	}
	dst := tensor.New(l.Weight.DType, w.Out, w.In)
	lora.MergeInto(m.dev, dst, w, a.B, a.A, float32(a.Scale), m.method)
	l.Weight = dst
	if m.method == lora.LoRA {
		l.Mask, l.Pattern = nil, sparse.Pattern{}
	}
	return l, m.dev.Sync()
}

// device is a backend with a weight slot for the folder's largest linear.
func device(be compute.Backend, f *family.Folder) compute.Device {
	n := 0
	for k := range len(family.LinearNames(f.Config)) / f.Config.Layers {
		out, in := f.Config.Shape(k)
		n = max(n, 4*out*in)
	}
	return compute.Device{Backend: be, Workspace: &compute.Workspace{Weight: compute.NewSlot(be.Alloc(n), n)}}
}
