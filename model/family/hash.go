package family

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Hash is the model's identity, cheap enough to be compared between ranks at every start, and the same for a Hugging Face folder
// and its packed form: the sha256 of config.json, of every tensor's name, type and shape, and of samples of the content: whole
// tensors up to 256 KiB; of larger linears 8 rows of weights and mask, of other tensors 8 pieces of 4 KiB, at even distances
// from the first to the last. It tells models and their versions apart; it does not find a flipped bit.
func (f *Folder) Hash() (string, error) {
	h := sha256.New()
	frame(h, f.ConfigJSON)
	for _, p := range others(f.Config) {
		t, _ := f.weights.Tensor(p.name)
		fmt.Fprintln(h, t.Name, t.DType, t.Shape)
		n := len(t.Data)
		for _, i := range samples(n/hashPiece, n) {
			frame(h, t.Data[i*hashPiece:min(n, (i+1)*hashPiece)])
		}
		if n <= hashWhole {
			frame(h, t.Data)
		}
	}
	for _, name := range LinearNames(f.Config) {
		if err := f.hashLinear(h, name); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

const hashWhole, hashPiece, hashSamples = 256 << 10, 4 << 10, 8

// frame hashes b and its length.
func frame(h hash.Hash, b []byte) {
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}

// samples are the indices to look at, of n pieces that take so many bytes: all, or hashSamples at even distances.
func samples(n, bytes int) (at []int) {
	k := hashSamples
	if bytes <= hashWhole || n <= k {
		k = n
	}
	for i := range k {
		at = append(at, i*(n-1)/max(1, k-1))
	}
	return at
}

// hashLinear hashes rows of a linear: the weights with +0 where they are pruned, and the mask.
func (f *Folder) hashLinear(h hash.Hash, name string) error {
	row, t, err := f.rows(name)
	if err != nil {
		return err
	}
	fmt.Fprintln(h, name, t)
	dense := tensor.New(t.DType, 1, t.Cols)
	for _, i := range samples(t.Rows, t.Bytes()) {
		w, err := row(i)
		if err != nil {
			return err
		}
		w.Expand(dense)
		frame(h, dense.Mem.Host)
		bits := w.Mask()
		if bits == nil {
			bits = sparse.FullMask(1, t.Cols)
		}
		for _, b := range bits {
			h.Write(binary.LittleEndian.AppendUint64(nil, b))
		}
	}
	if w, ok := f.checked.Load(name); ok {
		w := w.(*sparse.Weight)
		f.used(w.Values.Mem.Host, w.Bits.Host, w.Starts.Host)
	}
	return nil
}

// rows gives single rows of a linear, packed, and the form of the whole.
func (f *Folder) rows(name string) (row func(i int) (*sparse.Weight, error), form tensor.Tensor, err error) {
	if p, ok := f.pack[name]; ok {
		w, err := f.mapped(name, p)
		if err != nil {
			return nil, form, err
		}
		form = tensor.Tensor{DType: w.Values.DType, Rows: w.Out, Cols: w.In}
		return func(i int) (*sparse.Weight, error) { return w.RowWeight(i), nil }, form, nil
	}
	t, _ := f.weights.Tensor(name + ".weight")
	m, err := t.Matrix()
	if err != nil {
		return nil, form, fmt.Errorf("family: %w", err)
	}
	var given safetensors.Mask
	has := false
	if f.masks != nil {
		given, has = f.masks.Mask(name)
	}
	return func(i int) (*sparse.Weight, error) {
		w, n := m.Slice(i, i+1), (m.Cols+7)/8
		var mask []uint64
		if has {
			if mask, err = sparse.MaskFromBytes(given.Bits[i*n:(i+1)*n], 1, m.Cols); err != nil {
				return nil, fmt.Errorf("family: %s: the mask of %s: %w", f.masks.Path, name, err)
			}
		} else if f.masks == nil && !f.Packed {
			mask = sparse.MaskOf(w)
		}
		return sparse.Pack(w, mask, sparse.Pattern{})
	}, tensor.Tensor{DType: m.DType, Rows: m.Rows, Cols: m.Cols}, nil
}
