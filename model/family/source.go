package family

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
)

// meta is the metadata entry of a packed linear.
func (o outline) meta() string {
	b, err := json.Marshal(packedLinear{Shape: []int{o.out, o.in}, Pattern: o.pattern.String()})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// folderSource is a folder that is written again.
type folderSource struct{ *Folder }

func (f folderSource) text() []byte    { return f.ConfigJSON }
func (f folderSource) names() []string { return LinearNames(f.Config) }

// rest are the stored tensors that are no part of a linear's weight, biases among them.
func (f folderSource) rest() []safetensors.Spec {
	part := map[string]bool{}
	for _, name := range f.names() {
		part[name+".weight"] = true
		if p, ok := f.pack[name]; ok {
			p.known(name, part)
		}
	}
	var specs []safetensors.Spec
	for _, t := range f.weights.Tensors() {
		if !part[t.Name] && !(f.Packed && strings.HasPrefix(t.Name, "__pad__.")) {
			specs = append(specs, t.Spec)
		}
	}
	return specs
}

func (f folderSource) copy(s safetensors.Spec, w *writer) error {
	t, _ := f.weights.Tensor(s.Name)
	return w.Write(s.Name, t.Data)
}

func (f folderSource) packed(name string) (*sparse.Weight, error) {
	w, _, err := f.weight(name)
	return w, err
}

func (f folderSource) outline(name string) (outline, error) {
	if p, ok := f.pack[name]; ok {
		t, _ := f.weights.Tensor(name + ".values")
		o := outline{dtype: t.DType, out: p.Shape[0], in: p.Shape[1], pattern: p.pattern}
		if len(t.Shape) == 1 {
			o.nnz = t.Shape[0]
		}
		return o, nil
	}
	l, _, err := f.linear(name)
	if err != nil {
		return outline{}, err
	}
	o := outline{dtype: safetensors.Of(l.Weight.DType), out: l.Weight.Rows, in: l.Weight.Cols, dense: l.Mask == nil, pattern: l.Pattern}
	o.nnz = sparse.Count(l.Mask)
	return o, nil
}

var _ source = folderSource{}

// Tensors lists what the folder stores, sorted by name, for reports.
func (f *Folder) Tensors() []safetensors.Spec {
	var specs []safetensors.Spec
	for _, t := range f.weights.Tensors() {
		specs = append(specs, t.Spec)
	}
	slices.SortFunc(specs, func(a, b safetensors.Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs
}

// Others lists the stored tensors that are no part of a linear's weight: embedding, head, norms, biases.
func (f *Folder) Others() []safetensors.Spec { return folderSource{f}.rest() }

// Raw is a stored tensor as it is, in the mapping.
func (f *Folder) Raw(name string) (safetensors.Tensor, error) {
	t, ok := f.weights.Tensor(name)
	if !ok {
		return t, fmt.Errorf("family: %s: no tensor is named %q", f.Dir, name)
	}
	return t, nil
}
