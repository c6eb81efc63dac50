package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// raw is a file of the given header and n data bytes.
func raw(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i))
	}
	return b
}

func put(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.safetensors")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestABrokenFileIsRefusedByFileAndTensor(t *testing.T) {
	const ab = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}`
	for want, b := range map[string][]byte{
		"too few for a header": []byte("abc"),
		"has 0 bytes":          nil,
		"git-lfs pointer":      []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"),
		"the header claims 1000 bytes, the file has": append(binary.LittleEndian.AppendUint64(nil, 1000), "{}"...),
		"at most 100000000":                          append(binary.LittleEndian.AppendUint64(nil, 1<<62), "{}"...),
		"does not begin with {":                      raw(" {}", 0),
		"not UTF-8":                                  raw("{\"\xff\":1}", 0),
		"unexpected EOF":                             raw(`{"a":`, 0),
		"the header: invalid character":              raw(`{} {}`, 0),
		`the key "a" stands twice`:                   raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
		`the key "dtype" stands twice`:               raw(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "b" ends at byte 11 of the data, but the file holds 10; it is truncated`: raw(ab, 10),
		"1 bytes follow the last tensor":                                                 raw(ab, 12),
		`tensor "b" begins at byte 7 of the data, inside of "a"`:                         raw(strings.ReplaceAll(ab, "[8,11]", "[7,10]"), 11),
		`tensor "b" begins at byte 9 of the data, leaving a hole after byte 8`:           raw(strings.ReplaceAll(ab, "[8,11]", "[9,12]"), 12),
		`tensor "a": F32 [2] takes 8 bytes, its data_offsets span 4`:                     raw(strings.ReplaceAll(ab, "[0,8]", "[0,4]"), 11),
		`tensor "a" has the unknown dtype "F31"`:                                         raw(strings.ReplaceAll(ab, "F32", "F31"), 11),
		`tensor "a" has the negative shape [-2]`:                                         raw(strings.ReplaceAll(ab, "[2]", "[-2]"), 11),
		`tensor "a" has the data_offsets [8 0]`:                                          raw(strings.ReplaceAll(ab, "[0,8]", "[8,0]"), 11),
		`tensor "a" has no shape`:                                                        raw(strings.ReplaceAll(ab, `"shape":[2],`, ""), 11),
		`tensor "a" has fields beyond`:                                                   raw(strings.ReplaceAll(ab, `"shape":[2],`, `"shape":[2],"x":1,`), 11),
		`tensor "a": shape: json`:                                                        raw(strings.ReplaceAll(ab, "[2]", "[2.5]"), 11),
		`tensor "a": json: cannot`:                                                       raw(`{"a":7}`, 0),
		"__metadata__ is not a map of strings":                                           raw(`{"__metadata__":{"a":1}}`, 0),
		`tensor "a": the shape [4294967296 4294967296 4294967296] is too large`:          raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}`, 0),
		`tensor "a": [3] elements of F4 are no whole number of bytes`:                    raw(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, 1),
		"nested deeper": raw(strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40), 0),
	} {
		path := put(t, b)
		f, err := Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %q (%v)", err, want, f)
		}
	}
	if _, err := headerLength(binary.LittleEndian.AppendUint64(nil, 100_000_000), 1<<40); err != nil {
		t.Errorf("the longest header that the reference implementation reads: %v", err)
	}
	if _, err := headerLength(binary.LittleEndian.AppendUint64(nil, 100_000_001), 1<<40); err == nil {
		t.Error("a header that the reference implementation refuses is read")
	}
	if _, err := Open("/no/such/file"); err == nil || err.Error() != "safetensors: /no/such/file: no such file or directory" {
		t.Error(err)
	}
}

func TestAFileIsReadInPlace(t *testing.T) {
	// Tensors out of order, empty ones, a scalar, trailing spaces; made by hand.
	h := `{"z":{"dtype":"U8","shape":[3],"data_offsets":[12,15]},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[12,12]},"__metadata__":{"k":"v"},"s":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}   `
	f, err := Open(put(t, raw(h, 15)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for _, x := range f.Tensors() {
		names = append(names, x.Name)
	}
	if fmt.Sprint(names) != "[a s e z]" || f.Metadata["k"] != "v" || string(f.Header) != h || f.Size != int64(8+len(h)+15) {
		t.Errorf("%v %v", names, f.Metadata)
	}
	z, _ := f.Tensor("z")
	if !bytes.Equal(z.Data, []byte{12, 13, 14}) || z.Path != f.Path {
		t.Errorf("%+v", z)
	}
	for name, want := range map[string]string{"a": "bfloat16[2,2]", "s": "float32[1,1]", "e": "float32[0,5]", "z": "uint8[1,3]"} {
		x, _ := f.Tensor(name)
		m, err := x.Matrix()
		if err != nil || m.String() != want || len(m.Mem.Host) != m.Bytes() {
			t.Errorf("%s is %v, want %s (%v)", name, m, want, err)
		}
	}
	if _, ok := f.Tensor("k"); ok {
		t.Error("metadata is a tensor")
	}
}

func TestAMisalignedTensorIsCopiedToWhereItCanBeRead(t *testing.T) {
	h := `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}`
	f, err := Open(put(t, raw(h, 9)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, _ := f.Tensor("b")
	m, err := b.Matrix()
	if err != nil || uintptr(unsafe.Pointer(&m.Mem.Host[0]))%4 != 0 || !bytes.Equal(m.Mem.Host, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Errorf("%v %v", m.Mem.Host, err)
	}
}

func TestTheWriterSortsAlignsAndIsReadBack(t *testing.T) {
	specs := []Spec{{"b", U8, []int{5}}, {"a", BF16, []int{3, 3}}, {"c", F32, []int{2}}, {"q\"<é", F32, []int{1}}, {"empty", U64, []int{0}}, {"d", U8, []int{1}}}
	for _, align := range []int{0, 64} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		w, err := Create(path, specs, map[string]string{"format": "pt", "a": "b"}, align)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]byte{}
		for k, s := range specs {
			b := bytes.Repeat([]byte{byte(k + 1)}, int(s.Bytes()))
			want[s.Name] = b
			for len(b) > 0 { // in pieces
				n := min(3, len(b))
				if err := w.Write(s.Name, b[:n]); err != nil {
					t.Fatal(err)
				}
				b = b[n:]
			}
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the file is there before Close")
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, x := range f.Tensors() {
			if strings.HasPrefix(x.Name, "__pad__.") {
				continue
			}
			names = append(names, x.Name)
			if !bytes.Equal(x.Data, want[x.Name]) {
				t.Errorf("%s is %v", x.Name, x.Data)
			}
			if at := uintptr(unsafe.Pointer(unsafe.SliceData(x.Data))); len(x.Data) > 0 && at%uintptr(max(align, x.DType.Bits()/8)) != 0 {
				t.Errorf("align %d: %s lies at %#x", align, x.Name, at)
			}
		}
		if fmt.Sprint(names) != `[empty c q"<é a b d]` {
			t.Errorf("order %v", names)
		}
		st, _ := os.Stat(path)
		if f.Metadata["format"] != "pt" || st.Mode() != 0o644 || len(f.Tensors())-len(specs) > 6 || align == 0 && len(f.Tensors()) != len(specs) {
			t.Errorf("%v %v %d tensors", f.Metadata, st.Mode(), len(f.Tensors()))
		}
		f.Close()
		if es, _ := os.ReadDir(filepath.Dir(path)); len(es) != 1 {
			t.Errorf("something is left aside: %v", es)
		}
	}
	if _, err := Create("x", []Spec{{"a", U8, []int{1}}, {"a", U8, []int{1}}}, nil, 0); err == nil {
		t.Error("a tensor may be written twice")
	}
	if _, err := Create("x", []Spec{{"a", "F7", []int{1}}}, nil, 0); err == nil {
		t.Error("an unknown type may be written")
	}
}

func TestManyGoroutinesMayWrite(t *testing.T) {
	var specs []Spec
	for i := range 40 {
		specs = append(specs, Spec{fmt.Sprint("t", i), U8, []int{1000 + i}})
	}
	dir := t.TempDir()
	w, err := CreateFolder(dir, "model", specs, nil, 0, 9000)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, s := range specs {
		wg.Go(func() { w.Write(s.Name, bytes.Repeat([]byte{byte(i)}, int(s.Bytes()))) })
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := OpenFolder(dir, "model")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i, s := range specs {
		x, ok := d.Tensor(s.Name)
		if !ok || !bytes.Equal(x.Data, bytes.Repeat([]byte{byte(i)}, 1000+i)) {
			t.Errorf("%s", s.Name)
		}
	}
	if len(d.Files) != 5 || len(d.Tensors()) != 40 || !strings.HasSuffix(d.Files[4].Path, "model-00005-of-00005.safetensors") {
		t.Errorf("%d files, %d tensors", len(d.Files), len(d.Tensors()))
	}
}

func TestAFullDiskIsSaidAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "x.safetensors"), []Spec{{"a", U8, []int{100}}, {"b", U8, []int{100}}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.write = func([]byte, int64) (int, error) { return 0, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC} }
	for _, name := range []string{"a", "b"} {
		if err = w.Write(name, make([]byte, 100)); err == nil || !strings.Contains(err.Error(), "x.safetensors: the disk is full, the file needs 0.0 MiB; make room") {
			t.Errorf("%v", err)
		}
	}
	if e := w.Close(); e == nil || e.Error() != err.Error() {
		t.Errorf("Close says %v", e)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
}

func TestAnAbortedFileIsNotThere(t *testing.T) {
	dir := t.TempDir()
	w, err := CreateFolder(dir, "model", []Spec{{"a", U8, []int{100}}, {"b", U8, []int{100}}}, nil, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	w.Write("a", make([]byte, 100))
	w.Abort()
	w.Abort()
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
}

func TestAnUnfinishedOrOverfullTensorIsOurBug(t *testing.T) {
	for name, f := range map[string]func(w *Writer){
		"unfinished": func(w *Writer) { w.Write("a", make([]byte, 3)); w.Close() },
		"overfull":   func(w *Writer) { defer w.Abort(); w.Write("a", make([]byte, 5)) },
		"unknown":    func(w *Writer) { defer w.Abort(); w.Write("b", make([]byte, 1)) },
	} {
		w, err := Create(filepath.Join(t.TempDir(), "x"), []Spec{{"a", U8, []int{4}}}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			f(w)
		}()
	}
}

func TestShardsAndIndexMustAgree(t *testing.T) {
	make := func(t *testing.T) string {
		dir := t.TempDir()
		specs := []Spec{{"a", U8, []int{4}}, {"b", U8, []int{4}}}
		w, err := CreateFolder(dir, "model", specs, nil, 0, 4)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range specs {
			w.Write(s.Name, []byte{1, 2, 3, 4})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	one, two, index := "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"
	for want, spoil := range map[string]func(dir string){
		two + ": no such file or directory (a shard that model.safetensors.index.json names)": func(dir string) { os.Remove(filepath.Join(dir, two)) },
		`tensor "b" is not in its shard ` + two:                                               func(dir string) { zeros(t, filepath.Join(dir, two), nil) },
		one + `: tensor "x" is in it, but model.safetensors.index`:                            func(dir string) { zeros(t, filepath.Join(dir, one), []Spec{{"x", U8, []int{1}}}) },
		two + ": the file has 2 bytes":                                                        func(dir string) { os.WriteFile(filepath.Join(dir, two), []byte("{}"), 0o644) },
		`the shard "../x.safetensors" is not a file of this folder`: func(dir string) {
			os.WriteFile(filepath.Join(dir, index), []byte(`{"weight_map":{"a":"../x.safetensors"}}`), 0o644)
		},
		"the weight_map is empty": func(dir string) { os.WriteFile(filepath.Join(dir, index), []byte(`{}`), 0o644) },
		`index.json: the key "a" stands twice`: func(dir string) {
			os.WriteFile(filepath.Join(dir, index), []byte(`{"weight_map":{"a":"x","a":"y"}}`), 0o644)
		},
		"index.json: unexpected EOF":              func(dir string) { os.WriteFile(filepath.Join(dir, index), []byte(`{`), 0o644) },
		"neither model.safetensors nor its index": func(dir string) { os.Remove(filepath.Join(dir, index)) },
	} {
		dir := make(t)
		spoil(dir)
		if _, err := OpenFolder(dir, "model"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
	if _, err := OpenFolder(make(t), "model"); err != nil {
		t.Error(err)
	}
}

// writeMasks writes dir/mask.safetensors.
func writeMasks(dir string, masks []Mask) error {
	w, err := CreateMasks(dir)
	if err != nil {
		return err
	}
	for _, m := range masks {
		if w.Add(m) != nil {
			break // Close reports it
		}
	}
	return w.Close()
}

func TestMasksSurviveTheirFile(t *testing.T) {
	dir := t.TempDir()
	if ms, err := ReadMasks(dir); ms != nil || err != nil {
		t.Errorf("no file: %v %v", ms, err)
	}
	masks := []Mask{{Linear: "l.b", Shape: []int{3, 12}, Pattern: "2:4", SHA256: Hash([]byte("w")), Bits: []byte{1, 2, 3, 4, 5, 6}}, {Linear: "l.a", Shape: []int{1, 8}, Pattern: "unstructured", SHA256: Hash(nil), Bits: []byte{255}}}
	if err := writeMasks(dir, masks); err != nil {
		t.Fatal(err)
	}
	ms, err := ReadMasks(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ms.Close()
	if all := ms.All(); len(all) != 2 || fmt.Sprint(all[0]) != fmt.Sprint(masks[1]) || fmt.Sprint(all[1]) != fmt.Sprint(masks[0]) {
		t.Errorf("%+v", all)
	}
	if m, ok := ms.Mask("l.b"); !ok || m.SHA256 != "50e721e49c013f00c62cf59f2163542a9d8df02464efeb615d31051b0fddc326" {
		t.Errorf("%+v", m)
	}
	if _, ok := ms.Mask("l.c"); ok {
		t.Error("a mask that is not there")
	}
}

func TestAFileThatIsNoMaskFileIsRefused(t *testing.T) {
	meta := func(kv ...string) map[string]string {
		m := map[string]string{"format": "splora-mask", "version": "1"}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for want, c := range map[string]struct {
		meta map[string]string
		spec Spec
	}{
		`version "2"`:                        {meta("version", "2"), Spec{"a.mask", U8, []int{1, 1}}},
		`format ""`:                          {nil, Spec{"a.mask", U8, []int{1, 1}}},
		"masks are named <linear>":           {meta(), Spec{"a", U8, []int{1, 1}}},
		"its entry in __metadata__":          {meta(), Spec{"a.mask", U8, []int{1, 1}}},
		"which is no mask of a weight [2 9]": {meta("a.mask", `{"shape":[2,9]}`), Spec{"a.mask", U8, []int{2, 1}}},
		"which is no mask of a weight []":    {meta("a.mask", `{}`), Spec{"a.mask", U8, []int{2, 1}}},
		"is BOOL":                            {meta("a.mask", `{"shape":[2,8]}`), Spec{"a.mask", "BOOL", []int{2, 1}}},
	} {
		dir := t.TempDir()
		w, err := Create(filepath.Join(dir, MaskFile), []Spec{c.spec}, c.meta, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(c.spec.Name, make([]byte, c.spec.Bytes()))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadMasks(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}`), uint16(11))
	f.Add([]byte(`{"__metadata__":{"k":"v"},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]}}  `), uint16(0))
	f.Add([]byte(`{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}`), uint16(3))
	f.Add([]byte(`{}`), uint16(0))
	f.Fuzz(func(t *testing.T, text []byte, n uint16) {
		b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
		b = append(b, make([]byte, n)...)
		k, err := headerLength(b[:8], int64(len(b)))
		if err != nil {
			return
		}
		file, err := view("x", b, k)
		if err != nil {
			return
		}
		// What is accepted tiles the data, and is written again as it is.
		total := int64(0)
		var specs []Spec
		for _, x := range file.Tensors() {
			if int64(len(x.Data)) != x.Bytes() {
				t.Fatalf("%+v has %d bytes", x.Spec, len(x.Data))
			}
			total += x.Bytes()
			specs = append(specs, x.Spec)
		}
		if total != int64(n) {
			t.Fatalf("%d of %d bytes are covered", total, n)
		}
		head, _, size, err := layout(specs, file.Metadata, 0)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseHeader(head[8:], size-int64(len(head)))
		if err != nil || len(again.entries) != len(specs) {
			t.Fatalf("%v: %s", err, head)
		}
	})
}

func TestForgetChangesNothing(t *testing.T) {
	n := 1 << 16
	path := filepath.Join(t.TempDir(), "x")
	w, err := Create(path, []Spec{{"a", U8, []int{n}}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := slices.Repeat([]byte{7, 8, 9, 10}, n/4)
	w.Write("a", b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, _ := f.Tensor("a")
	Forget(a.Data)
	Forget(a.Data[:0])
	if !bytes.Equal(a.Data, b) {
		t.Error("the data changed")
	}
}
