package safetensors

import (
	"fmt"
	"io"
	"os"
)

// File is one open safetensors file. Its tensors are windows of a read-only shared mapping; who truncates the file while
// it is mapped kills the reader.
type File struct {
	Path string
	// Metadata is __metadata__; nil if there is none.
	Metadata map[string]string
	// Header is the header's JSON as it stands in the file.
	Header  []byte
	Size    int64
	tensors []Tensor
	index   map[string]int
	unmap   func() error
}

// Open maps a file and checks its header completely. The errors name the file and the tensor.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return f, nil
}

func open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err.(*os.PathError).Err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	first := make([]byte, 8)
	k, err := io.ReadFull(f, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	n, err := headerLength(first[:k], st.Size())
	if err != nil {
		return nil, err
	}
	b, unmap, err := mapFile(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("mapping it: %w", err)
	}
	file, err := view(path, b, n)
	if err != nil {
		unmap()
		return nil, err
	}
	file.unmap = unmap
	return file, nil
}

// view reads the header of a whole file in memory.
func view(path string, b []byte, n int64) (*File, error) {
	data := b[8+n:]
	h, err := parseHeader(append([]byte(nil), b[8:8+n]...), int64(len(data)))
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, Metadata: h.metadata, Header: h.text, Size: int64(len(b)), index: map[string]int{}}
	for i, e := range h.entries {
		f.index[e.Name] = i
		f.tensors = append(f.tensors, Tensor{Spec: e.Spec, Data: data[e.begin:e.end:e.end], Path: path})
	}
	return f, nil
}

// Tensors are all tensors, in the order of their data.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor is the named tensor.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// Close ends the mapping; every Tensor of the file is gone with it.
func (f *File) Close() error {
	if f.unmap == nil {
		return nil
	}
	unmap := f.unmap
	f.unmap, f.tensors, f.index = nil, nil, nil
	return unmap()
}
