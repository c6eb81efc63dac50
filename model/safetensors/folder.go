package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Folder is the weights of a folder: one file, or shards and their index.
type Folder struct {
	Dir   string
	Files []*File // sorted by name
	where map[string]*File
}

// Index is what STEM.safetensors.index.json says.
type Index struct {
	Metadata  map[string]any    `json:"metadata"`
	WeightMap map[string]string `json:"weight_map"` // tensor → file
}

// OpenFolder opens dir/STEM.safetensors, or all shards of dir/STEM.safetensors.index.json; stem is "model" in Hugging Face's
// folders. A missing shard, a tensor that its shard lacks, and a tensor in a shard that the index does not name are errors.
func OpenFolder(dir, stem string) (*Folder, error) {
	one := filepath.Join(dir, stem+".safetensors")
	index := one + ".index.json"
	d := &Folder{Dir: dir, where: map[string]*File{}}
	_, err := os.Stat(one)
	if err != nil {
		if _, err := os.Stat(index); err == nil {
			if err := d.open(index); err != nil {
				return nil, err
			}
			return d, nil
		}
		return nil, fmt.Errorf("safetensors: %s: neither %s nor its index is there%s", dir, filepath.Base(one), hint(dir))
	}
	f, err := Open(one)
	if err != nil {
		return nil, err
	}
	d.add(f)
	return d, nil
}

// hint says what stands there instead.
func hint(dir string) string {
	if m, _ := filepath.Glob(filepath.Join(dir, "pytorch_model*.bin")); len(m) > 0 {
		return "; pickled weights (pytorch_model*.bin) are not read, save them with safe_serialization"
	}
	return ""
}

func (d *Folder) add(f *File) {
	d.Files = append(d.Files, f)
	for _, t := range f.Tensors() {
		d.where[t.Name] = f
	}
}

// open opens the shards that an index names and compares both.
func (d *Folder) open(index string) (err error) {
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	var ix Index
	b, err := os.ReadFile(index)
	if err == nil {
		err = noDuplicates(b)
	}
	if err == nil {
		err = json.Unmarshal(b, &ix)
	}
	if err != nil {
		return fmt.Errorf("safetensors: %s: %w", index, err)
	}
	if len(ix.WeightMap) == 0 {
		return fmt.Errorf("safetensors: %s: the weight_map is empty", index)
	}
	for _, name := range shards(ix) {
		if name != filepath.Base(name) || name == ".." || name == "." {
			return fmt.Errorf("safetensors: %s: the shard %q is not a file of this folder", index, name)
		}
		f, err := Open(filepath.Join(d.Dir, name))
		if err != nil {
			return fmt.Errorf("%w (a shard that %s names)", err, filepath.Base(index))
		}
		for _, t := range f.Tensors() {
			if ix.WeightMap[t.Name] != name {
				defer f.Close()
				return fmt.Errorf("safetensors: %s: tensor %q is in it, but %s says %q", f.Path, t.Name, filepath.Base(index), ix.WeightMap[t.Name])
			}
		}
		d.add(f)
	}
	missing := []string{}
	for name := range ix.WeightMap {
		if d.where[name] == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		name := slices.Min(missing)
		return fmt.Errorf("safetensors: %s: tensor %q is not in its shard %s (%d such)", index, name, ix.WeightMap[name], len(missing))
	}
	return nil
}

// shards are the distinct files of an index, sorted.
func shards(ix Index) []string {
	var names []string
	for _, n := range ix.WeightMap {
		names = append(names, n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Tensor is the named tensor.
func (d *Folder) Tensor(name string) (Tensor, bool) {
	f := d.where[name]
	if f == nil {
		return Tensor{}, false
	}
	return f.Tensor(name)
}

// Tensors are all tensors, file by file, in the order of their data.
func (d *Folder) Tensors() []Tensor {
	var all []Tensor
	for _, f := range d.Files {
		all = append(all, f.Tensors()...)
	}
	return all
}

// Close ends all mappings.
func (d *Folder) Close() error {
	var err error
	for _, f := range d.Files {
		err = errors.Join(err, f.Close())
	}
	d.Files, d.where = nil, nil
	return err
}

// FolderWriter writes dir/STEM.safetensors, or shards with an index when the tensors take more than a shard holds.
type FolderWriter struct {
	index  string // "" for one file
	total  int64
	shards []*Writer
	names  []string
	where  map[string]int
}

// CreateFolder begins the weights of a folder; see Create. Tensors are filled into shards in the given order. maxShard 0
// means 5 GB, as Hugging Face writes them.
func CreateFolder(dir, stem string, specs []Spec, metadata map[string]string, align int, maxShard int64) (*FolderWriter, error) {
	if maxShard == 0 {
		maxShard = 5_000_000_000
	}
	groups, n := [][]Spec{nil}, int64(0)
	w := &FolderWriter{where: map[string]int{}}
	for _, s := range specs {
		b, err := s.size()
		if err != nil {
			return nil, fmt.Errorf("safetensors: %s: %w", dir, err)
		}
		if n > 0 && n+b > maxShard {
			groups, n = append(groups, nil), 0
		}
		k := len(groups) - 1
		groups[k] = append(groups[k], s)
		w.where[s.Name] = k
		n, w.total = n+b, w.total+b
	}
	if len(groups) > 1 {
		w.index = filepath.Join(dir, stem+".safetensors.index.json")
	}
	for k, g := range groups {
		name := stem + ".safetensors"
		if len(groups) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d.safetensors", stem, k+1, len(groups))
		}
		f, err := Create(filepath.Join(dir, name), g, metadata, align)
		if err != nil {
			w.Abort()
			return nil, err
		}
		w.shards, w.names = append(w.shards, f), append(w.names, name)
	}
	return w, nil
}

// Write appends data to the named tensor; see Writer.Write.
func (w *FolderWriter) Write(name string, data []byte) error {
	k, ok := w.where[name]
	if !ok {
		panic(fmt.Sprintf("safetensors: the tensor %q was not announced", name))
	}
	return w.shards[k].Write(name, data)
}

// Close puts all shards, then the index, in their places.
func (w *FolderWriter) Close() error {
	for k, f := range w.shards {
		if err := f.Close(); err != nil {
			for _, g := range w.shards[k+1:] {
				g.Abort()
			}
			return err
		}
	}
	if w.index == "" {
		return nil
	}
	ix := Index{Metadata: map[string]any{"total_size": w.total}, WeightMap: map[string]string{}}
	for name, k := range w.where {
		ix.WeightMap[name] = w.names[k]
	}
	b, err := json.MarshalIndent(ix, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(w.index, append(b, '\n'))
}

// Abort drops all shards that are not closed.
func (w *FolderWriter) Abort() {
	for _, f := range w.shards {
		f.Abort()
	}
}
