package safetensors

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaskFile is the name of a folder's masks. Its tensors are "<linear>.mask", U8 [out, ⌈in/8⌉], input j is bit j%8 of byte
// j/8; metadata["<linear>.mask"] is JSON: {"shape":[out,in],"pattern":"2:4","sha256":"…"}, the hash being that of the
// bytes of the weight that the mask belongs to. A linear without a mask keeps every weight.
const MaskFile = "mask.safetensors"

const maskFormat, maskVersion = "splora-mask", "1"

// Mask is the mask of one linear layer.
type Mask struct {
	Linear  string `json:"-"` // "model.layers.0.self_attn.q_proj"
	Shape   []int  `json:"shape"`
	Pattern string `json:"pattern"` // "2:4" or "unstructured"
	// SHA256 is of the dense weight's bytes in its storage type, hexadecimal.
	SHA256 string `json:"sha256"`
	Bits   []byte `json:"-"`
}

// Hash is a weight's content, as Mask.SHA256 has it.
func Hash(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// MaskWriter writes dir/mask.safetensors mask by mask. The header needs all of them, so the bits wait in a file aside, not in
// memory.
type MaskWriter struct {
	path  string
	spool *os.File
	masks []Mask // without bits
	size  int64
	err   error
}

// CreateMasks begins dir/mask.safetensors; nothing stands there before Close has succeeded.
func CreateMasks(dir string) (*MaskWriter, error) {
	f, err := os.CreateTemp(dir, "."+MaskFile+".tmp-")
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return &MaskWriter{path: filepath.Join(dir, MaskFile), spool: f}, nil
}

// Add takes a mask; m.Bits may be used again afterwards.
func (w *MaskWriter) Add(m Mask) error {
	if int64(len(m.Bits)) != m.spec().Bytes() {
		panic(fmt.Sprintf("safetensors: the mask of %s %v has %d bytes", m.Linear, m.Shape, len(m.Bits)))
	}
	if _, err := w.spool.WriteAt(m.Bits, w.size); err != nil && w.err == nil {
		w.err = fmt.Errorf("safetensors: writing %s: %w", w.path, err)
	}
	w.size += int64(len(m.Bits))
	m.Bits = nil
	w.masks = append(w.masks, m)
	return w.err
}

// Abort drops everything.
func (w *MaskWriter) Abort() {
	w.spool.Close()
	os.Remove(w.spool.Name())
}

// Close puts the file in its place.
func (w *MaskWriter) Close() error {
	defer w.Abort()
	if w.err != nil {
		return w.err
	}
	meta := map[string]string{"format": maskFormat, "version": maskVersion}
	var specs []Spec
	for _, m := range w.masks {
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		meta[m.Linear+".mask"] = string(b)
		specs = append(specs, m.spec())
	}
	f, err := Create(w.path, specs, meta, 0)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, s := range specs {
		b := make([]byte, s.Bytes())
		if _, err := w.spool.ReadAt(b, at); err != nil && len(b) > 0 {
			f.fail(err)
		}
		if f.Write(s.Name, b) != nil {
			break // Close reports it
		}
		at += int64(len(b))
	}
	return f.Close()
}

func (m Mask) spec() Spec {
	return Spec{m.Linear + ".mask", U8, []int{m.Shape[0], (m.Shape[1] + 7) / 8}}
}

// Masks are the masks of a folder. Bits are windows of the mapped file.
type Masks struct {
	Path string
	file *File
	by   map[string]Mask
}

// ReadMasks opens dir/mask.safetensors; nil without an error if there is none.
func ReadMasks(dir string) (*Masks, error) {
	path := filepath.Join(dir, MaskFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	ms := &Masks{Path: path, file: f, by: map[string]Mask{}}
	if err := ms.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return ms, nil
}

func (ms *Masks) read() error {
	meta := ms.file.Metadata
	if meta["format"] != maskFormat || meta["version"] != maskVersion {
		return fmt.Errorf("its __metadata__ says format %q version %q; this program reads %q version %q", meta["format"], meta["version"], maskFormat, maskVersion)
	}
	for _, t := range ms.file.Tensors() {
		m := Mask{Linear: strings.TrimSuffix(t.Name, ".mask"), Bits: t.Data}
		if m.Linear == t.Name {
			return fmt.Errorf("tensor %q: masks are named <linear>.mask", t.Name)
		}
		if err := json.Unmarshal([]byte(meta[t.Name]), &m); err != nil {
			return fmt.Errorf("tensor %q: its entry in __metadata__: %w", t.Name, err)
		}
		if len(m.Shape) != 2 || m.Shape[0] < 0 || m.Shape[1] < 0 || t.DType != U8 || !slices.Equal(t.Shape, m.spec().Shape) {
			return fmt.Errorf("tensor %q is %s %v, which is no mask of a weight %v", t.Name, t.DType, t.Shape, m.Shape)
		}
		ms.by[m.Linear] = m
	}
	return nil
}

// Mask is the mask of the named linear.
func (ms *Masks) Mask(linear string) (Mask, bool) {
	m, ok := ms.by[linear]
	return m, ok
}

// All are the masks, sorted by linear.
func (ms *Masks) All() []Mask {
	var all []Mask
	for _, m := range ms.by {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Mask) int { return cmp.Compare(a.Linear, b.Linear) })
	return all
}

// File is the open file.
func (ms *Masks) File() *File { return ms.file }

// Close ends the mapping.
func (ms *Masks) Close() error { return ms.file.Close() }
