package family

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// The packed form. packed.safetensors (or shards with an index) holds, every tensor at a multiple of 64 bytes,
//
//	<linear>.values   [nnz]          the kept weights, row-major, in their storage type
//	<linear>.bits     U64 [out, ⌈in/64⌉]   M; input j is bit j%64 of word j/64
//	<linear>.starts   U32 [out·⌈in/256⌉+1] sparse.Weight.Starts, where they are not computed
//	<linear>.weight   [out,in]       instead of the three, where every weight is kept
//
// and everything else as the Hugging Face folder has it; __metadata__["<linear>"] is {"shape":[out,in],"pattern":"2:4"}.
// splora.json marks the folder and gives the version. config.json and the tokenizer's files stand beside.
const (
	packedMarker  = "splora.json"
	packedFormat  = "splora-packed"
	packedVersion = 1
	packedAlign   = 64
)

type marker struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

func markerText() []byte {
	b, err := json.MarshalIndent(marker{packedFormat, packedVersion}, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(b, '\n')
}

// IsPacked reports whether a folder is marked as packed.
func IsPacked(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, packedMarker))
	return err == nil
}

func readMarker(dir string) error {
	path := filepath.Join(dir, packedMarker)
	b, err := os.ReadFile(path)
	var m marker
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return fmt.Errorf("family: %s: %w", path, err)
	}
	if m.Format != packedFormat || m.Version != packedVersion {
		return fmt.Errorf("family: %s: format %q version %d; this program reads %q version %d: export the model again", path, m.Format, m.Version, packedFormat, packedVersion)
	}
	return nil
}

// packedLinear is the metadata of one packed linear.
type packedLinear struct {
	Shape   []int  `json:"shape"`
	Pattern string `json:"pattern"`
	pattern sparse.Pattern
}

// packed are the packed linears of a folder, by name.
type packed map[string]packedLinear

func readPacked(d *safetensors.Folder) (packed, error) {
	all := packed{}
	for _, f := range d.Files {
		if f.Metadata["format"] != packedFormat || f.Metadata["version"] != fmt.Sprint(packedVersion) {
			return nil, fmt.Errorf("family: %s: format %q version %q in its metadata, want %q version %d", f.Path, f.Metadata["format"], f.Metadata["version"], packedFormat, packedVersion)
		}
		for name, v := range f.Metadata {
			if name == "format" || name == "version" {
				continue
			}
			var p packedLinear
			err := json.Unmarshal([]byte(v), &p)
			if err == nil && p.Pattern != (sparse.Pattern{}).String() {
				p.pattern, _, err = sparse.ParsePattern(p.Pattern)
			}
			if err != nil || len(p.Shape) != 2 {
				return nil, fmt.Errorf("family: %s: the metadata of %q is %q: %v", f.Path, name, v, err)
			}
			all[name] = p
		}
	}
	return all, nil
}

// known adds the names of a packed linear's tensors.
func (p packedLinear) known(name string, known map[string]bool) {
	known[name+".values"], known[name+".bits"] = true, true
	w := sparse.Weight{Out: p.Shape[0], In: p.Shape[1], Pattern: p.pattern, Bits: tensor.Mem{Host: []byte{}}}
	if !w.Computed() {
		known[name+".starts"] = true
	}
}

// mapped is a packed linear in place, checked once.
func (f *Folder) mapped(name string, p packedLinear) (*sparse.Weight, error) {
	if w, ok := f.checked.Load(name); ok {
		return w.(*sparse.Weight), nil
	}
	w, err := f.check(name, p)
	if err == nil {
		f.checked.Store(name, w)
	}
	return w, err
}

// check reads and checks all of a packed linear.
func (f *Folder) check(name string, p packedLinear) (*sparse.Weight, error) {
	values, ok := f.weights.Tensor(name + ".values")
	bits, ok2 := f.weights.Tensor(name + ".bits")
	if !ok || !ok2 {
		return nil, fmt.Errorf("family: %s: %s lacks its values or its bits", f.Dir, name)
	}
	out, in := p.Shape[0], p.Shape[1]
	if bits.DType != safetensors.U64 || !slices.Equal(bits.Shape, []int{out, sparse.Words(in)}) {
		return nil, fmt.Errorf("family: %s: tensor %q is %s %v, want U64 [%d %d]", bits.Path, bits.Name, bits.DType, bits.Shape, out, sparse.Words(in))
	}
	v, err := values.Matrix()
	if err == nil && (v.DType == tensor.I32 || v.DType == tensor.U8) {
		err = fmt.Errorf("tensor %q is %s; known: F32, F16, BF16", values.Name, values.DType)
	}
	if err != nil {
		return nil, fmt.Errorf("family: %s: %w", values.Path, err)
	}
	if err := finite(values, v); err != nil {
		return nil, err
	}
	var starts tensor.Mem
	if s, ok := f.weights.Tensor(name + ".starts"); ok {
		if s.DType != safetensors.U32 {
			return nil, fmt.Errorf("family: %s: tensor %q is %s, want U32", s.Path, s.Name, s.DType)
		}
		starts.Host = safetensors.Aligned(s.Data, 4)
	}
	w, err := sparse.New(out, in, p.pattern, v, tensor.Mem{Host: notNil(safetensors.Aligned(bits.Data, 8))}, starts)
	if err != nil {
		return nil, fmt.Errorf("family: %s: %s: %w", values.Path, name, err)
	}
	f.used(values.Data, bits.Data, starts.Host)
	return w, nil
}

// notNil keeps empty bits present.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
