package family

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/safetensors"
)

// Folder is an open model folder, Hugging Face's or packed. Names, types and shapes are checked when it is opened, the numbers
// when they are loaded. It holds the mapping that a loaded model lives in: close it after the model.
type Folder struct {
	Dir          string
	Architecture string
	Config       decoder.Config
	// ConfigJSON is config.json as it stands.
	ConfigJSON []byte
	// Packed says that the folder is in our packed form.
	Packed bool
	// Notes are what a user should know about this folder: derived masks, dense linears, what is ignored.
	Notes []string

	weights *safetensors.Folder
	masks   *safetensors.Masks // nil: derived (or packed)
	pack    packed
	stream  bool
	checked sync.Map // linear → *sparse.Weight, of a packed folder
}

// Stems of the weight files: Hugging Face's, and ours.
const stemHF, stemPacked = "model", "packed"

// Open opens a folder and checks everything but the numbers. Errors name the file and the tensor.
func Open(dir string) (*Folder, error) {
	text, err := readConfigText(dir)
	if err != nil {
		return nil, err
	}
	a, err := ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("family: %s: %w", configPath(dir), err)
	}
	f := &Folder{Dir: dir, Architecture: a.Name, Config: a.Config, ConfigJSON: text, Notes: a.Notes}
	if err := f.open(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Folder) open() (err error) {
	stem := stemHF
	if IsPacked(f.Dir) {
		f.Packed, stem = true, stemPacked
		if err := readMarker(f.Dir); err != nil {
			return err
		}
	}
	if f.weights, err = safetensors.OpenFolder(f.Dir, stem); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	if f.Packed {
		if f.pack, err = readPacked(f.weights); err != nil {
			return err
		}
	} else if f.masks, err = safetensors.ReadMasks(f.Dir); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return f.checkNames()
}

// checkNames compares the tensors with what the architecture has: none missing, none of another shape, none too many.
func (f *Folder) checkNames() error {
	known := map[string]bool{}
	for _, p := range others(f.Config) {
		known[p.name] = true
		if err := f.checkTensor(p.name, p.shape); err != nil {
			return err
		}
	}
	for i := range f.Config.Layers {
		for k := range linears {
			name := LinearName(i, k)
			out, in := f.Config.Shape(k)
			if p, ok := f.pack[name]; ok {
				if !slices.Equal(p.Shape, []int{out, in}) {
					return fmt.Errorf("family: %s: %s has the shape %v, config.json wants [%d %d]", f.Dir, name, p.Shape, out, in)
				}
				p.known(name, known)
				continue
			}
			known[name+".weight"] = true
			if err := f.checkTensor(name+".weight", []int{out, in}); err != nil {
				return err
			}
			if err := f.checkMaskShape(name, out, in); err != nil {
				return err
			}
		}
	}
	return f.checkExtra(known)
}

// checkTensor checks one tensor's presence, type and shape.
func (f *Folder) checkTensor(name string, shape []int) error {
	t, ok := f.weights.Tensor(name)
	if !ok {
		return fmt.Errorf("family: %s: tensor %q is missing; config.json (%s) wants it with the shape %v", f.Dir, name, f.Architecture, shape)
	}
	if !slices.Contains([]safetensors.DType{safetensors.F32, safetensors.F16, safetensors.BF16}, t.DType) {
		return fmt.Errorf("family: %s: tensor %q is %s; known: F32, F16, BF16", t.Path, name, t.DType)
	}
	if !slices.Equal(t.Shape, shape) {
		return fmt.Errorf("family: %s: tensor %q has the shape %v, config.json wants %v", t.Path, name, t.Shape, shape)
	}
	return nil
}

// checkMaskShape compares a mask with its weight.
func (f *Folder) checkMaskShape(name string, out, in int) error {
	if f.masks == nil {
		return nil
	}
	m, ok := f.masks.Mask(name)
	if ok && !slices.Equal(m.Shape, []int{out, in}) {
		return fmt.Errorf("family: %s: the mask of %s is for a weight %v, but the weight is [%d %d]; %s", f.masks.Path, name, m.Shape, out, in, maskAdvice)
	}
	return nil
}

const maskAdvice = "take the mask.safetensors that was written with these weights, prune again, or delete it to have M = (W ≠ 0)"

// checkExtra refuses tensors that the architecture does not have: a bias that is not added would change the model in silence.
func (f *Folder) checkExtra(known map[string]bool) error {
	for _, t := range f.weights.Tensors() {
		switch {
		case known[t.Name], strings.HasSuffix(t.Name, ".rotary_emb.inv_freq"), f.Packed && strings.HasPrefix(t.Name, "__pad__."):
		case t.Name == headName && f.Config.Tied:
			f.Notes = append(f.Notes, "lm_head.weight is stored but not used: tie_word_embeddings makes the embedding the head")
		default:
			return fmt.Errorf("family: %s: tensor %q does not belong to %s as config.json describes it", t.Path, t.Name, f.Architecture)
		}
	}
	if f.masks == nil {
		return nil
	}
	all := map[string]bool{}
	for _, name := range LinearNames(f.Config) {
		all[name] = true
	}
	for _, m := range f.masks.All() {
		if !all[m.Linear] {
			return fmt.Errorf("family: %s: %q is no linear layer of this model; %s", f.masks.Path, m.Linear, maskAdvice)
		}
	}
	return nil
}

// Close ends the mappings; a model that was loaded from the folder is gone with them.
func (f *Folder) Close() error {
	var err error
	if f.weights != nil {
		err = f.weights.Close()
	}
	if f.masks != nil {
		if e := f.masks.Close(); err == nil {
			err = e
		}
	}
	return err
}

// sortedKeys are a map's keys, sorted.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
