package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/splora/splora/model/family"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Verification is the result of verify, over all linears of the blocks.
type Verification struct {
	OK       bool    `json:"ok"`
	Linears  int     `json:"linears"`
	Weights  int     `json:"weights"`
	Pruned   int     `json:"pruned"`    // weights whose mask bit is 0
	Extra    int     `json:"extra"`     // of these, those that are not zero in the merged model
	KeptZero int     `json:"kept_zero"` // kept weights of value 0 in the merged model
	Changed  int     `json:"changed"`   // weights whose value differs from the base
	Density  float64 `json:"density"`   // non-zero weights of the merged model / all
	Base     float64 `json:"base_density"`
	// Faults names what is wrong, the first of each tensor.
	Faults []string `json:"faults,omitempty"`
}

func newVerify() *cobra.Command {
	base, merged, asJSON := "", "", false
	c := &cobra.Command{
		Use:   "verify",
		Short: "Prove that a merged model is zero wherever its base is pruned",
		Long: `verify compares two model folders weight by weight. It fails (exit 1) on one non-zero value, be it subnormal, where the base's
mask is 0, on NaN and infinity, and on any tensor outside the blocks' linears that is not byte for byte the same. It fails, too,
when no weight of the base is pruned: there is nothing to prove.`,
		Args: noArgs,
	}
	c.Flags().StringVar(&base, "base", "", "the pruned model")
	c.Flags().StringVar(&merged, "merged", "", "the merged model")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := require(c, "base", "merged"); err != nil {
			return err
		}
		v, err := verify(c.Context(), base, merged)
		if err != nil {
			return err
		}
		if asJSON {
			if err := printJSON(c, v); err != nil {
				return err
			}
		} else {
			v.print(c)
		}
		if !v.OK {
			return errors.New("verify: " + merged + " is not " + base + " under its mask: " + v.Faults[0])
		}
		return nil
	}
	return c
}

func (v Verification) print(c *cobra.Command) {
	out := c.OutOrStdout()
	for _, f := range v.Faults {
		fmt.Fprintln(out, "FAULT", f)
	}
	n := func(i int) string { return humanize.Comma(int64(i)) }
	fmt.Fprintf(out, "%d linears, %s weights: %s pruned, %s of them not zero after the merge; %s weights changed; density %.4f %% (base %.4f %%)\n",
		v.Linears, n(v.Weights), n(v.Pruned), n(v.Extra), n(v.Changed), 100*v.Density, 100*v.Base)
}

// verify compares the folders.
func verify(ctx context.Context, base, merged string) (v Verification, err error) {
	b, err := family.Open(base)
	if err != nil {
		return v, err
	}
	defer b.Close()
	m, err := openRaw(merged)
	if err != nil {
		return v, err
	}
	defer m.Close()
	nonzero, baseNonzero := 0, 0
	for _, name := range family.LinearNames(b.Config) {
		if err := ctx.Err(); err != nil {
			return v, err
		}
		l, err := b.Linear(name)
		if err != nil {
			return v, err
		}
		w, err := m.linear(name)
		if err != nil {
			return v, err
		}
		if w.Rows != l.Weight.Rows || w.Cols != l.Weight.Cols {
			return v, fmt.Errorf("verify: %s is %v in %s and %v in %s", name, l.Weight, base, w, merged)
		}
		r := sparse.Verify(w, l.Mask)
		v.Linears, v.Weights, v.Pruned = v.Linears+1, v.Weights+r.Weights, v.Pruned+r.Weights-r.Kept
		n, bad := compare(w, l.Weight)
		v.Extra, v.KeptZero, v.Changed = v.Extra+r.Extra, v.KeptZero+r.KeptZero, v.Changed+n
		nonzero += sparse.Count(sparse.MaskOf(w))
		baseNonzero += sparse.Count(sparse.MaskOf(l.Weight))
		if r.Extra > 0 {
			v.Faults = append(v.Faults, fmt.Sprintf("%s: %d values are not zero where the mask is, the first at [%d,%d] (bits %#x)", name, r.Extra, r.Row, r.Col, r.Bits))
		}
		if bad >= 0 {
			v.Faults = append(v.Faults, fmt.Sprintf("%s: the value at [%d,%d] is NaN or infinite", name, bad/w.Cols, bad%w.Cols))
		}
	}
	if v.Pruned == 0 {
		return v, fmt.Errorf("verify: no weight of %s is pruned, so nothing is to be verified: give the pruned model as --base", base)
	}
	v.Density, v.Base = float64(nonzero)/float64(v.Weights), float64(baseNonzero)/float64(v.Weights)
	rest, err := m.differing(b)
	v.Faults = append(v.Faults, rest...)
	v.OK = len(v.Faults) == 0
	return v, err
}

// compare counts a's weights of another value than b's, and finds the first that is not finite (−1: none).
func compare(a, b tensor.Tensor) (changed, bad int) {
	bad = -1
	x, y := make([]float32, a.Cols), make([]float32, a.Cols)
	for i := range a.Rows {
		tensor.Widen(x, a.Slice(i, i+1))
		tensor.Widen(y, b.Slice(i, i+1))
		for j := range x {
			if x[j] != y[j] {
				changed++
			}
			if bad < 0 && x[j]-x[j] != 0 {
				bad = i*a.Cols + j
			}
		}
	}
	return changed, bad
}

// raw is a model folder whose weights are looked at as they are, whatever its own mask file says.
type raw struct {
	*safetensors.Folder
	packed *family.Folder // instead, for a packed folder
}

func openRaw(dir string) (*raw, error) {
	if family.IsPacked(dir) {
		f, err := family.Open(dir)
		return &raw{packed: f}, err
	}
	f, err := safetensors.OpenFolder(dir, "model")
	return &raw{Folder: f}, err
}

func (r *raw) Close() error {
	if r.packed != nil {
		return r.packed.Close()
	}
	return r.Folder.Close()
}

func (r *raw) linear(name string) (tensor.Tensor, error) {
	if r.packed != nil {
		l, err := r.packed.Linear(name)
		return l.Weight, err
	}
	t, ok := r.Tensor(name + ".weight")
	if !ok {
		return tensor.Tensor{}, fmt.Errorf("verify: the merged model has no tensor %q", name+".weight")
	}
	return t.Matrix()
}

// differing names the tensors outside the linears that are not as in the base, and those that it does not have.
func (r *raw) differing(base *family.Folder) (faults []string, err error) {
	other := r.packed
	for _, s := range base.Others() {
		want, err := base.Raw(s.Name)
		if err != nil {
			return nil, err
		}
		var got safetensors.Tensor
		if other != nil {
			got, err = other.Raw(s.Name)
			if err != nil {
				return nil, err
			}
		} else {
			got, _ = r.Tensor(s.Name)
		}
		if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
			faults = append(faults, s.Name+" differs from the base")
		}
	}
	return append(faults, r.unknown(base)...), nil
}

// unknown names the merged model's tensors that the base does not have, such as a bias that nothing else would look at.
func (r *raw) unknown(base *family.Folder) (faults []string) {
	if r.packed != nil {
		return nil // its names were checked when it was opened
	}
	known := map[string]bool{}
	for _, name := range family.LinearNames(base.Config) {
		known[name+".weight"] = true
	}
	for _, s := range base.Others() {
		known[s.Name] = true
	}
	for _, t := range r.Tensors() {
		if !known[t.Name] {
			faults = append(faults, t.Name+" is not in the base")
		}
	}
	return faults
}
