package family

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Linear is one linear layer's weight, unpacked.
type Linear struct {
	Name string // "model.layers.0.self_attn.q_proj"
	// Weight is [out,in] in its storage type. It may be the read-only mapping.
	Weight tensor.Tensor
	// Mask is M, rows padded to whole words; nil: every weight is kept. It may be the read-only mapping.
	Mask    []uint64
	Pattern sparse.Pattern
}

// Load makes the model: linears packed, embedding and head as they are stored, norms and biases as F32. In a Hugging Face
// folder a sparse linear is packed in memory, one after the other, and its pages are given back; what is dense, and everything in
// a packed folder, stays in the mapping, which all processes of a host share. Every number is looked at once: NaN and Inf, a mask
// of other weights and a non-zero weight where M = 0 are errors that name the tensor.
func (f *Folder) Load() (*decoder.Resident, error) {
	r := &decoder.Resident{Blocks: make([]decoder.Block, f.Config.Layers)}
	if err := f.loadOthers(r); err != nil {
		return nil, err
	}
	derived := make([]bool, f.Config.Layers*len(linears))
	err := each(len(derived), func(n int) error {
		i, k := n/len(linears), n%len(linears)
		w, fresh, err := f.weight(LinearName(i, k))
		derived[n] = fresh
		b := &r.Blocks[i].Linears[k]
		b.Name, b.W = LinearName(i, k), w
		return err
	})
	if err != nil {
		return nil, err
	}
	f.note(r, slices.Contains(derived, true))
	return r, nil
}

// each calls fn(0) … fn(n−1) on all cores and returns the error of the smallest index.
func each(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		g.Go(func() error {
			errs[i] = fn(i)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// loadOthers loads everything but the linears' weights.
func (f *Folder) loadOthers(r *decoder.Resident) error {
	for _, p := range others(f.Config) {
		t, _ := f.weights.Tensor(p.name)
		m, err := t.Matrix()
		if err != nil {
			return fmt.Errorf("family: %w", err)
		}
		if err := finite(t, m); err != nil {
			return err
		}
		if dst := place(r, p.name); len(p.shape) == 1 {
			*dst = widened(m)
		} else {
			*dst = m
			f.used(t.Data)
		}
	}
	if f.Config.Tied {
		r.HeadTable = r.EmbedTable
		return f.tied(r.EmbedTable)
	}
	return nil
}

// tied refuses a stored head of other numbers than the embedding that is to be the head: transformers 5 then takes the stored one,
// transformers 4 does not.
func (f *Folder) tied(embed tensor.Tensor) error {
	t, ok := f.weights.Tensor(headName)
	if !ok {
		return nil
	}
	head, err := t.Matrix()
	if err == nil && !equal(head, embed) {
		err = fmt.Errorf("%s: tensor %q differs from %q, but config.json has tie_word_embeddings; set that to false, or take the tensor out", t.Path, t.Name, embedName)
	}
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	safetensors.Forget(t.Data)
	f.used(embed.Mem.Host)
	return nil
}

// equal reports whether a and b have the same shape and the same numbers, in whatever types.
func equal(a, b tensor.Tensor) bool {
	if a.Rows != b.Rows || a.Cols != b.Cols || a.DType == tensor.I32 || a.DType == tensor.U8 {
		return false
	}
	if a.DType == b.DType && bytes.Equal(a.Mem.Host, b.Mem.Host) {
		return true
	}
	x, y := make([]float32, a.Cols), make([]float32, a.Cols)
	for i := range a.Rows {
		tensor.Widen(x, a.Slice(i, i+1))
		tensor.Widen(y, b.Slice(i, i+1))
		if !slices.Equal(x, y) {
			return false
		}
	}
	return true
}

// place is where a parameter of others belongs.
func place(r *decoder.Resident, name string) *tensor.Tensor {
	switch name {
	case embedName:
		return &r.EmbedTable
	case headName:
		return &r.HeadTable
	case normName:
		return &r.Norm
	}
	var i int
	var rest string
	if _, err := fmt.Sscanf(name, "model.layers.%d.%s", &i, &rest); err != nil {
		panic("family: no place for " + name)
	}
	b := &r.Blocks[i]
	switch rest {
	case "input_layernorm.weight":
		return &b.AttnNorm
	case "post_attention_layernorm.weight":
		return &b.MLPNorm
	case "self_attn.q_norm.weight":
		return &b.QNorm
	case "self_attn.k_norm.weight":
		return &b.KNorm
	}
	k := slices.Index(linears[:], strings.TrimSuffix(rest, ".bias"))
	return &b.Linears[k].Bias
}

func widened(m tensor.Tensor) tensor.Tensor {
	w := tensor.New(tensor.F32, m.Rows, m.Cols)
	tensor.Widen(w.Float32(), m)
	return w
}

// weight is the packed weight of a linear; derived says that it has zeros, and its mask is M = (W ≠ 0).
func (f *Folder) weight(name string) (w *sparse.Weight, derived bool, err error) {
	if p, ok := f.pack[name]; ok {
		w, err = f.mapped(name, p)
		return w, false, err
	}
	l, derived, err := f.linear(name)
	if err != nil {
		return nil, false, err
	}
	w, err = sparse.Pack(l.Weight, l.Mask, l.Pattern)
	if err != nil {
		return nil, false, fmt.Errorf("family: %s: %s: %w", f.Dir, name, err)
	}
	if l.Mask != nil {
		t, _ := f.weights.Tensor(name + ".weight")
		safetensors.Forget(t.Data)
	}
	return w, derived, nil
}

// Linear is the named linear's dense weight and mask, checked as by Load. From a packed folder it is expanded.
func (f *Folder) Linear(name string) (Linear, error) {
	p, ok := f.pack[name]
	if !ok {
		l, _, err := f.linear(name)
		return l, err
	}
	w, err := f.mapped(name, p)
	if err != nil {
		return Linear{}, err
	}
	dense := tensor.New(w.Values.DType, w.Out, w.In)
	w.Expand(dense)
	return Linear{Name: name, Weight: dense, Mask: w.Mask(), Pattern: w.Pattern}, nil
}

// linear reads a linear that stands as a dense "<linear>.weight".
func (f *Folder) linear(name string) (l Linear, derived bool, err error) {
	t, ok := f.weights.Tensor(name + ".weight")
	if !ok {
		return l, false, fmt.Errorf("family: %s: no linear layer is named %q", f.Dir, name)
	}
	l.Name = name
	if l.Weight, err = t.Matrix(); err != nil {
		return l, false, fmt.Errorf("family: %w", err)
	}
	if f.masks != nil {
		if m, ok := f.masks.Mask(name); ok {
			err = f.fit(&l, t, m)
		}
	} else if !f.Packed {
		l.derive()
		derived = l.Mask != nil
	}
	if err == nil {
		err = finite(t, l.Weight)
	}
	return l, derived, err
}

// derive sets M = (W ≠ 0); a weight without zeros is dense.
func (l *Linear) derive() {
	out, in := l.Weight.Rows, l.Weight.Cols
	mask := sparse.MaskOf(l.Weight)
	if sparse.Count(mask) < out*in {
		l.Mask, l.Pattern = mask, sparse.Detect(mask, out, in)
	}
}

// fit takes the mask from the file and checks that it belongs to this weight.
func (f *Folder) fit(l *Linear, t safetensors.Tensor, m safetensors.Mask) (err error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("family: %s: the mask of %s %s; %s", f.masks.Path, l.Name, fmt.Sprintf(format, args...), maskAdvice)
	}
	out, in := l.Weight.Rows, l.Weight.Cols
	if l.Mask, err = sparse.MaskFromBytes(m.Bits, out, in); err != nil {
		return bad("is broken: %v", err)
	}
	if m.Pattern != (sparse.Pattern{}).String() {
		if l.Pattern, _, err = sparse.ParsePattern(m.Pattern); err != nil {
			return bad("is broken: %v", err)
		}
	}
	if err := l.Pattern.Check(l.Mask, out, in); err != nil {
		return bad("does not keep its pattern: %v", err)
	}
	if v := sparse.Verify(l.Weight, l.Mask); v.Extra > 0 {
		return bad("does not fit: %d weights are not zero where M = 0, the first at [%d,%d] (bits %#x) in %s", v.Extra, v.Row, v.Col, v.Bits, t.Path)
	}
	if h := safetensors.Hash(t.Data); h != m.SHA256 {
		return bad("belongs to other weights (sha256 %.12s…, found %.12s… in %s)", m.SHA256, h, t.Path)
	}
	return nil
}

// finite refuses NaN and Inf, naming the first.
func finite(t safetensors.Tensor, m tensor.Tensor) error {
	i := firstNonFinite(m)
	if i < 0 {
		return nil
	}
	var v [1]float32
	tensor.Widen(v[:], m.Window(i, 1, 1))
	at := fmt.Sprint(i)
	if len(t.Shape) == 2 {
		at = fmt.Sprintf("%d,%d", i/m.Cols, i%m.Cols)
	}
	return fmt.Errorf("family: %s: tensor %q holds %v at [%s]; the file is damaged or the model has diverged", t.Path, t.Name, v[0], at)
}

// firstNonFinite is the index of the first NaN or Inf, or −1. Eight bytes at a time: an exponent of ones is the only one
// that a one in its last bit's place carries into the sign.
func firstNonFinite(m tensor.Tensor) int {
	exp, one, top := uint64(0x7f8000007f800000), uint64(0x0080000000800000), uint64(0x8000000080000000)
	switch m.DType {
	case tensor.BF16:
		exp, one, top = 0x7f807f807f807f80, 0x0080008000800080, 0x8000800080008000
	case tensor.F16:
		exp, one, top = 0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000
	}
	b, size := m.Mem.Host, m.DType.Size()
	i, le := 0, binary.LittleEndian
	for ; i+32 <= len(b); i += 32 {
		q := b[i : i+32]
		if ((le.Uint64(q)&exp+one)|(le.Uint64(q[8:])&exp+one)|(le.Uint64(q[16:])&exp+one)|(le.Uint64(q[24:])&exp+one))&top != 0 {
			break
		}
	}
	for ; i < len(b); i += size {
		var u [8]byte
		copy(u[:], b[i:i+size])
		if (binary.LittleEndian.Uint64(u[:])&exp+one)&top != 0 {
			return i / size
		}
	}
	return -1
}

// note sums up what was found.
func (f *Folder) note(r *decoder.Resident, derived bool) {
	patterns, dense, kept, all := map[string]int{}, 0, 0, 0
	for _, b := range r.Blocks {
		for _, l := range b.Linears {
			kept, all = kept+l.W.NNZ(), all+l.W.Out*l.W.In
			if l.W.Dense() {
				dense++
			} else {
				patterns[l.W.Pattern.String()]++
			}
		}
	}
	n := len(r.Blocks) * len(linears)
	var parts []string
	for _, p := range sortedKeys(patterns) {
		parts = append(parts, fmt.Sprintf("%d %s", patterns[p], p))
	}
	if dense > 0 {
		parts = append(parts, fmt.Sprintf("%d dense (every weight is kept)", dense))
	}
	note := fmt.Sprintf("%d linear layers: %s; %.4g %% of their weights are kept", n, strings.Join(parts, ", "), 100*float64(kept)/float64(max(1, all)))
	if derived {
		note = "no mask.safetensors: masks are derived from the non-zero weights, M = (W ≠ 0), so that a kept weight of value 0 counts as pruned; " + note
	}
	f.Notes = append(f.Notes, note)
}
