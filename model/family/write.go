package family

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// source is what a folder is written from: a Folder, or Init's random numbers.
type source interface {
	text() []byte                             // config.json
	names() []string                          // the linears, in the model's order
	rest() []safetensors.Spec                 // all tensors but the linears' weights
	copy(s safetensors.Spec, w *writer) error // writes one of rest
	outline(linear string) (outline, error)
	Linear(linear string) (Linear, error)
	packed(linear string) (*sparse.Weight, error)
}

type writer = safetensors.FolderWriter

// until is a source that gives nothing more once its context has ended.
type until struct {
	ctx context.Context
	source
}

func (u until) copy(s safetensors.Spec, w *writer) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	return u.source.copy(s, w)
}

func (u until) Linear(linear string) (Linear, error) {
	if err := u.ctx.Err(); err != nil {
		return Linear{}, err
	}
	return u.source.Linear(linear)
}

func (u until) packed(linear string) (*sparse.Weight, error) {
	if err := u.ctx.Err(); err != nil {
		return nil, err
	}
	return u.source.packed(linear)
}

// outline is the form of a linear.
type outline struct {
	dtype        safetensors.DType
	out, in, nnz int
	dense        bool
	pattern      sparse.Pattern
}

// Rewrite writes into out a Hugging Face folder like src in which replace has changed the linears: dense safetensors with exact
// zeros, mask.safetensors, and every other tensor and file as it is. replace is called once for each linear, block by block in
// the order of decoder.Linears, from one goroutine, and returns the new weight with the shape and storage type it was given; the
// memory may be used again after the next call. A non-zero weight where the returned mask is 0, a mask that is not of its
// pattern, and NaN or Inf are errors. A nil replace keeps everything. out must not exist or be empty; it appears complete or
// not at all. When ctx ends, its error comes after the linear under way.
func Rewrite(ctx context.Context, src *Folder, out string, replace func(Linear) (Linear, error)) error {
	return aside(out, func(dir string) error {
		if err := CopyAux(src.Dir, dir); err != nil {
			return err
		}
		return writeHF(dir, until{ctx, folderSource{src}}, replace)
	})
}

// WriteHF writes src as a Hugging Face folder. Kept weights, zeros among them, stay bit for bit.
func WriteHF(ctx context.Context, src *Folder, out string) error { return Rewrite(ctx, src, out, nil) }

// WritePacked writes src as a packed folder, bit for bit, under the same conditions as Rewrite.
func WritePacked(ctx context.Context, src *Folder, out string) error {
	return aside(out, func(dir string) error {
		if err := CopyAux(src.Dir, dir); err != nil {
			return err
		}
		return writePacked(dir, until{ctx, folderSource{src}})
	})
}

// write begins the weights, lets fill write the linears, copies the rest and closes.
func write(dir, stem string, src source, linears []safetensors.Spec, meta map[string]string, align int, fill func(*writer) error) error {
	specs := append(src.rest(), linears...)
	w, err := safetensors.CreateFolder(dir, stem, specs, meta, align, 0)
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	for _, s := range src.rest() {
		if err = src.copy(s, w); err != nil {
			break
		}
	}
	if err == nil {
		err = fill(w)
	}
	if err != nil {
		w.Abort()
		return err
	}
	if err = w.Close(); err == nil {
		err = safetensors.WriteFile(configPath(dir), src.text())
	}
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// writeHF writes model.safetensors, mask.safetensors and config.json.
func writeHF(dir string, src source, replace func(Linear) (Linear, error)) error {
	var specs []safetensors.Spec
	for _, name := range src.names() {
		o, err := src.outline(name)
		if err != nil {
			return err
		}
		specs = append(specs, safetensors.Spec{Name: name + ".weight", DType: o.dtype, Shape: []int{o.out, o.in}})
	}
	masks, err := safetensors.CreateMasks(dir)
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	err = write(dir, stemHF, src, specs, map[string]string{"format": "pt"}, 0, func(w *writer) error {
		for i, name := range src.names() {
			if err := writeLinear(w, masks, src, specs[i], name, replace); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		masks.Abort()
		return err
	}
	if err := masks.Close(); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// writeLinear writes one linear, replaced, and its mask.
func writeLinear(w *writer, masks *safetensors.MaskWriter, src source, s safetensors.Spec, name string, replace func(Linear) (Linear, error)) error {
	l, err := src.Linear(name)
	if err == nil && replace != nil {
		l, err = replace(l)
	}
	if err == nil {
		err = l.check(name, s)
	}
	if err == nil {
		err = w.Write(s.Name, l.Weight.Mem.Host)
	}
	if err == nil && l.Mask != nil {
		err = masks.Add(l.mask())
	}
	return err
}

// check reports a replaced linear that does not keep its own promises.
func (l Linear) check(name string, s safetensors.Spec) error {
	if want := []int{l.Weight.Rows, l.Weight.Cols}; l.Name != name || safetensors.Of(l.Weight.DType) != s.DType || !slices.Equal(want, s.Shape) {
		return fmt.Errorf("family: %s %v was to be replaced, found %s %v", s.Name, s.Shape, l.Name, l.Weight)
	}
	if l.Mask != nil {
		if err := l.Pattern.Check(l.Mask, l.Weight.Rows, l.Weight.Cols); err != nil {
			return fmt.Errorf("family: the new mask of %s: %w", name, err)
		}
		if v := sparse.Verify(l.Weight, l.Mask); v.Extra > 0 {
			return fmt.Errorf("family: the new weight of %s has %d non-zero values where M = 0, the first at [%d,%d]", name, v.Extra, v.Row, v.Col)
		}
	}
	if i := firstNonFinite(l.Weight); i >= 0 {
		return fmt.Errorf("family: the new weight of %s is not finite in %s at [%d,%d]", name, l.Weight.DType, i/l.Weight.Cols, i%l.Weight.Cols)
	}
	return nil
}

// mask is the linear's entry of mask.safetensors.
func (l Linear) mask() safetensors.Mask {
	return safetensors.Mask{Linear: l.Name, Shape: []int{l.Weight.Rows, l.Weight.Cols}, Pattern: l.Pattern.String(),
		SHA256: safetensors.Hash(l.Weight.Mem.Host), Bits: sparse.MaskBytes(l.Mask, l.Weight.Rows, l.Weight.Cols)}
}

// writePacked writes packed.safetensors, splora.json and config.json.
func writePacked(dir string, src source) error {
	meta := map[string]string{"format": packedFormat, "version": fmt.Sprint(packedVersion)}
	var specs []safetensors.Spec
	for _, name := range src.names() {
		o, err := src.outline(name)
		if err != nil {
			return err
		}
		specs = append(specs, o.specs(name)...)
		if !o.dense {
			meta[name] = o.meta()
		}
	}
	err := write(dir, stemPacked, src, specs, meta, packedAlign, func(w *writer) error {
		for _, name := range src.names() {
			p, err := src.packed(name)
			if err == nil {
				err = writeWeight(w, name, p)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := safetensors.WriteFile(filepath.Join(dir, packedMarker), markerText()); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// writeWeight writes the parts of one packed linear.
func writeWeight(w *writer, name string, p *sparse.Weight) error {
	if p.Dense() {
		return w.Write(name+".weight", p.Values.Mem.Host)
	}
	err := w.Write(name+".values", p.Values.Mem.Host)
	if err == nil {
		err = w.Write(name+".bits", p.Bits.Host)
	}
	if err == nil && !p.Computed() {
		err = w.Write(name+".starts", p.Starts.Host)
	}
	return err
}

// specs are the tensors of a linear in the packed form.
func (o outline) specs(name string) []safetensors.Spec {
	if o.dense {
		return []safetensors.Spec{{Name: name + ".weight", DType: o.dtype, Shape: []int{o.out, o.in}}}
	}
	w := sparse.Weight{Out: o.out, In: o.in, Pattern: o.pattern, Bits: tensor.Mem{Host: []byte{}}}
	s := []safetensors.Spec{
		{Name: name + ".values", DType: o.dtype, Shape: []int{o.nnz}},
		{Name: name + ".bits", DType: safetensors.U64, Shape: []int{o.out, w.Words()}}}
	if !w.Computed() {
		s = append(s, safetensors.Spec{Name: name + ".starts", DType: safetensors.U32, Shape: []int{o.out*w.Blocks() + 1}})
	}
	return s
}
