package train

import (
	"fmt"
	"path/filepath"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/tensor"
)

// writeAdapter writes the adapters into dir, in PEFT's layout, with the marker that says how they must be merged.
func (t *trainer) writeAdapter(dir string) error {
	base, err := filepath.Abs(t.Model)
	if err != nil {
		return err
	}
	c := t.ad.Config
	targets := c.Targets
	if c.Adapts("") { // all-linear
		targets = decoder.Linears[:]
	}
	a := safetensors.Adapter{Config: safetensors.NewLoRAConfig(base, c.Rank, c.Alpha, c.Dropout, c.RSLoRA, targets,
		safetensors.Splora{Method: c.Method.String(), MaskedMerge: c.Method == lora.SPLoRA, Base: t.ModelID})}
	host := t.onHost(t.ad.Params)
	for i, w := range t.ad.Windows {
		A, B := t.ad.Of(i, host)
		a.Modules = append(a.Modules, safetensors.Module{Name: w.Name, A: A, B: B})
	}
	return safetensors.WriteAdapter(dir, a)
}

// readAdapter sets the adapters to those of a folder in PEFT's layout.
func (t *trainer) readAdapter(dir string) error {
	a, err := safetensors.ReadAdapter(dir)
	if err != nil {
		return err
	}
	if masked := t.ad.Config.Method == lora.SPLoRA; a.Masked() != masked && a.Config.Splora != nil {
		return fmt.Errorf("%s was trained with method %s and this run is %s; give --method %s", dir, a.Config.Splora.Method, t.ad.Config.Method, a.Config.Splora.Method)
	}
	if err := fill(t.be, t.ad, a); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if note := OtherBase(a, dir, t.ModelID, t.Model); note != "" {
		t.say("%s", note)
	}
	return nil
}

// OtherBase is a note on an adapter that was trained on a model of another identity than id, which model has; "" when there is nothing
// to be said. That the shapes fit is the caller's.
func OtherBase(a *safetensors.Adapter, adapter, id, model string) string {
	if s := a.Config.Splora; s == nil || s.Base == "" || s.Base == id {
		return ""
	}
	return fmt.Sprintf("note: %s was trained on a model with other content than %s; the shapes fit, so it is used", adapter, model)
}

// fill sets ad's parameters to a's, which must adapt exactly the same linears with the same rank and scale.
func fill(be compute.Backend, ad *lora.Adapters, a *safetensors.Adapter) error {
	if len(a.Modules) != len(ad.Windows) {
		return fmt.Errorf("it adapts %d linears, this run %d; give the --targets it was trained with", len(a.Modules), len(ad.Windows))
	}
	for _, m := range a.Modules {
		i := ad.Find(m.Name)
		if i < 0 {
			return fmt.Errorf("it adapts %s, which this run does not; give the --targets it was trained with", m.Name)
		}
		A, B := ad.Of(i, ad.Params)
		if m.A.Cols != A.Cols || m.B.Rows != B.Rows {
			return fmt.Errorf("%s: it is for a weight [%d,%d], the model's is [%d,%d]: it was trained on another model", m.Name, m.B.Rows, m.A.Cols, B.Rows, A.Cols)
		}
		if m.A.Rows != A.Rows || m.B.Cols != B.Cols {
			return fmt.Errorf("%s: its rank is %d, this run's is %d; give the --rank it was trained with", m.Name, m.A.Rows, A.Rows)
		}
		if s := ad.Config.Scale(); float32(m.Scale) != float32(s) {
			return fmt.Errorf("%s: its scale is %v, this run's is %v; give the --alpha and --rslora it was trained with", m.Name, m.Scale, s)
		}
		be.Upload(A, m.A.Mem.Host)
		be.Upload(B, m.B.Mem.Host)
	}
	return be.Sync()
}

// Frozen gives the adapters of a folder for evaluation and generation: no gradients.
func Frozen(be compute.Backend, arch decoder.Config, w decoder.Weights, a *safetensors.Adapter) (*lora.Adapters, error) {
	a = uniform(a)
	c := lora.Config{Method: lora.LoRA, Rank: a.Config.R, Alpha: a.Config.Alpha, RSLoRA: a.Config.RSLoRA}
	if a.Masked() {
		c.Method = lora.SPLoRA
	}
	all, err := decoder.Targets(arch, w, lora.Config{})
	if err != nil {
		return nil, err
	}
	known := map[string]lora.Shape{}
	for _, s := range all {
		known[s.Name] = s
	}
	var shapes []lora.Shape
	for _, m := range a.Modules {
		s, ok := known[m.Name]
		if !ok {
			return nil, fmt.Errorf("it adapts %s, which is no linear layer of the model's blocks; only these can be adapted", m.Name)
		}
		shapes = append(shapes, s)
	}
	ad := lora.New(be, c, shapes, false)
	return ad, fill(be, ad, a)
}

// uniform is an adapter whose modules all have the config's rank and scale. Where PEFT's rank_pattern and alpha_pattern made them
// differ, the narrow ones get zeros, and B takes the scale, so that s = 1: the product s·B·A stays what it is.
func uniform(a *safetensors.Adapter) *safetensors.Adapter {
	r, s, same := a.Config.R, a.Config.Scale(), a.Config.Alpha > 0
	for _, m := range a.Modules {
		r = max(r, m.A.Rows)
		same = same && m.A.Rows == a.Config.R && m.Scale == s
	}
	if same {
		return a
	}
	out := &safetensors.Adapter{Config: a.Config}
	out.Config.R, out.Config.Alpha, out.Config.RSLoRA = r, float64(r), false
	for _, m := range a.Modules {
		A, B := tensor.New(tensor.F32, r, m.A.Cols), tensor.New(tensor.F32, m.B.Rows, r)
		copy(A.Float32(), m.A.Float32())
		for k, b := range m.B.Float32() {
			B.Float32()[k/m.B.Cols*r+k%m.B.Cols] = float32(m.Scale * float64(b))
		}
		out.Modules = append(out.Modules, safetensors.Module{Name: m.Name, A: A, B: B, Scale: 1})
	}
	return out
}
