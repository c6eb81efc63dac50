package family

import (
	"fmt"
	"math/bits"

	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Sketch is the model as Load would make it, without memory: shapes, types and counts, for planning. Of the numbers only masks are
// looked at; where a folder has none that are its own, its weights are, for their zeros.
func (f *Folder) Sketch() (*decoder.Resident, error) {
	embed, _ := f.weights.Tensor(embedName)
	m, err := embed.Matrix()
	if err != nil {
		return nil, fmt.Errorf("family: %w", err)
	}
	r := decoder.Sketch(f.Config, m.DType, sparse.Pattern{}, 0)
	if head, ok := f.weights.Tensor(headName); ok && !f.Config.Tied {
		if m, err = head.Matrix(); err != nil {
			return nil, fmt.Errorf("family: %w", err)
		}
		r.HeadTable.DType = m.DType
	}
	return r, each(f.Config.Layers*len(linears), func(n int) (err error) {
		i, k := n/len(linears), n%len(linears)
		r.Blocks[i].Linears[k].W, err = f.outlined(LinearName(i, k))
		return err
	})
}

// outlined is a linear as Load would pack it, without memory.
func (f *Folder) outlined(name string) (*sparse.Weight, error) {
	if p, ok := f.pack[name]; ok {
		values, ok := f.weights.Tensor(name + ".values")
		if !ok {
			return nil, fmt.Errorf("family: %s: %s lacks its values", f.Dir, name)
		}
		v, err := values.Matrix()
		if err != nil {
			return nil, fmt.Errorf("family: %w", err)
		}
		return sparse.Counted(p.Shape[0], p.Shape[1], v.DType, p.pattern, v.Len()), nil
	}
	t, ok := f.weights.Tensor(name + ".weight")
	if !ok {
		return nil, fmt.Errorf("family: %s: no linear layer is named %q", f.Dir, name)
	}
	w, err := t.Matrix()
	if err != nil {
		return nil, fmt.Errorf("family: %w", err)
	}
	l := Linear{Weight: w}
	switch {
	case f.masks != nil:
		return f.masked(name, w)
	case !f.Packed:
		l.derive()
	}
	nnz := w.Len()
	if l.Mask != nil {
		nnz = sparse.Count(l.Mask)
	}
	return sparse.Counted(w.Rows, w.Cols, w.DType, l.Pattern, nnz), nil
}

// masked counts the bits of a weight's mask, if it has one.
func (f *Folder) masked(name string, w tensor.Tensor) (*sparse.Weight, error) {
	m, ok := f.masks.Mask(name)
	if !ok {
		return sparse.Counted(w.Rows, w.Cols, w.DType, sparse.Pattern{}, w.Len()), nil
	}
	var p sparse.Pattern
	if m.Pattern != (sparse.Pattern{}).String() {
		var err error
		if p, _, err = sparse.ParsePattern(m.Pattern); err != nil {
			return nil, fmt.Errorf("family: %s: the mask of %s is broken: %w; %s", f.masks.Path, name, err, maskAdvice)
		}
	}
	nnz := 0
	for _, b := range m.Bits {
		nnz += bits.OnesCount8(b)
	}
	return sparse.Counted(w.Rows, w.Cols, w.DType, p, nnz), nil
}

// Mapped is how much of a model of this folder, loaded or sketched, stays in the files' mapping, in bytes: it is shared by all processes of the
// host, and the system may drop and read again what is not in use. The rest is memory of the process.
func (f *Folder) Mapped(r *decoder.Resident) int {
	n := r.EmbedTable.Bytes()
	if !f.Config.Tied {
		n += r.HeadTable.Bytes()
	}
	for _, b := range r.Blocks {
		for _, l := range b.Linears {
			if f.Packed || l.W.Dense() {
				n += l.W.Bytes()
			}
		}
	}
	return n
}
