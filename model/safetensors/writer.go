package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Writer writes one file, tensor by tensor, in any order and from many goroutines. Nothing stands at its path before Close
// has succeeded: the bytes go to a file aside, which is synced and then renamed.
type Writer struct {
	path  string
	file  *os.File
	write func(b []byte, at int64) (int, error)
	mu    sync.Mutex
	left  map[string]*window
	bytes int64
	err   error
}

// window is what is still to be written of one tensor.
type window struct{ at, end int64 }

// Create begins a file that holds the given tensors and metadata (nil: none). Data begins at a multiple of align (0: 8), and
// so does every tensor if align is given; tensors named "__pad__.N" then fill the gaps, for the format has no holes. The
// order is by size of element, then by name, as the reference implementation writes it. The room is claimed at once where
// the file system can, so that a full disk is known before the work begins.
func Create(path string, specs []Spec, metadata map[string]string, align int) (*Writer, error) {
	text, left, size, err := layout(specs, metadata, align)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	w := &Writer{path: path, file: f, write: f.WriteAt, left: left, bytes: size}
	if err := claim(f, size); err != nil {
		w.fail(err)
	}
	w.put(text, 0)
	if w.err != nil {
		return nil, w.Close()
	}
	return w, nil
}

// layout gives the file's first bytes and each tensor's place in the file.
func layout(specs []Spec, metadata map[string]string, align int) (text []byte, at map[string]*window, size int64, err error) {
	specs = slices.Clone(specs)
	slices.SortStableFunc(specs, func(a, b Spec) int {
		return cmp.Or(cmp.Compare(b.DType.Bits(), a.DType.Bits()), cmp.Compare(a.Name, b.Name))
	})
	at = map[string]*window{}
	var head bytes.Buffer
	head.WriteByte('{')
	if len(metadata) > 0 {
		head.WriteString(`"__metadata__":` + quote(metadata))
	}
	pads, end := 0, int64(0)
	add := func(s Spec) {
		if head.Len() > 1 {
			head.WriteByte(',')
		}
		shape := s.Shape
		if shape == nil {
			shape = []int{}
		}
		n := s.Bytes()
		fmt.Fprintf(&head, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, quote(s.Name), s.DType, quote(shape), end, end+n)
		at[s.Name] = &window{end, end + n}
		end += n
	}
	for _, s := range specs {
		if at[s.Name] != nil || s.Name == "__metadata__" {
			return nil, nil, 0, fmt.Errorf("tensor %q is written twice", s.Name)
		}
		if _, err := s.size(); err != nil {
			return nil, nil, 0, err
		}
		if gap := -end & int64(max(align, 1)-1); gap > 0 {
			add(Spec{fmt.Sprintf("__pad__.%d", pads), U8, []int{int(gap)}})
			pads++
		}
		add(s)
	}
	head.WriteByte('}')
	for (8+head.Len())%max(align, 8) != 0 {
		head.WriteByte(' ')
	}
	if head.Len() > MaxHeader {
		return nil, nil, 0, fmt.Errorf("the header takes %d bytes, at most %d can be read", head.Len(), MaxHeader)
	}
	data := int64(8 + head.Len())
	for name, w := range at {
		w.at, w.end = w.at+data, w.end+data
		if len(name) > 8 && name[:8] == "__pad__." || w.at == w.end {
			delete(at, name) // zero bytes, or none
		}
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(head.Len())), head.Bytes()...), at, data + end, nil
}

// quote is v as JSON; v is a string, a shape or a map of strings (which encoding/json sorts).
func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Write appends data to the named tensor. More bytes than the tensor has, or a tensor that was not announced, are our own bug.
func (w *Writer) Write(name string, data []byte) error {
	w.mu.Lock()
	t := w.left[name]
	if len(data) > 0 && (t == nil || t.at+int64(len(data)) > t.end) {
		w.mu.Unlock()
		panic(fmt.Sprintf("safetensors: %s: %d bytes too many for the tensor %q", w.path, len(data), name))
	}
	if t == nil || w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	at := t.at
	if t.at += int64(len(data)); t.at == t.end {
		delete(w.left, name)
	}
	w.mu.Unlock()
	return w.put(data, at)
}

func (w *Writer) put(data []byte, at int64) error {
	if _, err := w.write(data, at); err != nil {
		w.fail(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// fail keeps the first failure.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("the disk is full, the file needs %.1f MiB; make room or choose another place: %w", float64(w.bytes)/(1<<20), err)
	}
	w.err = fmt.Errorf("safetensors: writing %s: %w", w.path, err)
}

// Close syncs the file and puts it in its place. After any failure it removes what was written and returns the first one.
func (w *Writer) Close() error {
	if w.err == nil && len(w.left) > 0 {
		w.Abort()
		panic(fmt.Sprintf("safetensors: %s: the tensors %q are not written", w.path, slices.Sorted(maps.Keys(w.left))))
	}
	if w.err == nil {
		w.check(w.file.Truncate(w.bytes))
		w.check(w.file.Chmod(0o644))
		w.check(w.file.Sync())
	}
	w.check(w.file.Close())
	if w.err == nil {
		w.check(os.Rename(w.file.Name(), w.path))
	}
	if w.err == nil {
		w.check(SyncDir(filepath.Dir(w.path)))
		return w.err
	}
	os.Remove(w.file.Name())
	return w.err
}

func (w *Writer) check(err error) {
	if err != nil {
		w.fail(err)
	}
}

// Abort drops the file; nothing stands at its path. After Close it does nothing.
func (w *Writer) Abort() {
	if w.file.Close() == nil {
		os.Remove(w.file.Name())
	}
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// WriteFile puts b at path: aside, synced, renamed.
func WriteFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("safetensors: writing %s: %w", path, err)
	}
	return nil
}
