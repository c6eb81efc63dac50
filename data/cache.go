package data

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A cache file, little-endian:
//
//	rows      per row: n tokens, n labels; packed ones also n positions, n documents; int32
//	index     rows+1 uint64: where each row begins, in int32; 8-byte aligned
//	counts    Stats as JSON
//	footer    version, packed, rows, index offset, counts offset, counts length, crc32c of all before, magic; uint64 each
//
// The footer comes last, so that a file that was cut off has none, and a whole one can be written in one pass.
const (
	cacheVersion = 1
	cacheMagic   = 0x61746164726c7073 // "splrdata"
	footerWords  = 8
	footerBytes  = 8 * footerWords
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// errCache says that a cache file is not usable and must be made anew.
var errCache = errors.New("data: damaged cache file")

// openCache maps the cache file of c, making it first if it is missing or damaged. One process makes it, under a lock;
// the others wait.
func openCache(ctx context.Context, c Config, tok Tokenizer) (*Set, error) {
	if c.CacheDir == "" {
		return openPrivate(ctx, c, tok)
	}
	before, err := identities(c.paths())
	if err != nil {
		return nil, err
	}
	key, err := cacheKey(c, tok)
	if err != nil {
		return nil, err
	}
	s, err := openKeyed(ctx, key, before, c, tok)
	if err == nil {
		s.key = key
	}
	return s, err
}

func openKeyed(ctx context.Context, key, before string, c Config, tok Tokenizer) (*Set, error) {
	path := filepath.Join(c.CacheDir, key+".rows")
	if s, err := load(path); err == nil {
		return s, nil
	}
	if err := os.MkdirAll(c.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("data: cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(c.CacheDir, key+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err := load(path); err == nil {
		return s, nil
	}
	if err := publish(ctx, path, before, c, tok); err != nil {
		return nil, err
	}
	return load(path)
}

// openPrivate makes a cache file that no one else sees and that is gone when the set is closed.
func openPrivate(ctx context.Context, c Config, tok Tokenizer) (*Set, error) {
	f, err := os.CreateTemp("", "splora-data-*.rows")
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if err := build(ctx, f, c, tok); err != nil {
		return nil, err
	}
	return load(f.Name())
}

// publish makes the file aside, in the same directory, and renames it when it is on disk. Under the lock no one else
// writes aside, so what an earlier process left there when it was killed is overwritten. before is what the files were
// when the key was made.
func publish(ctx context.Context, path, before string, c Config, tok Tokenizer) (err error) {
	aside := path + ".aside"
	f, err := os.Create(aside)
	if err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(aside)
		}
	}()
	if err := build(ctx, f, c, tok); err != nil {
		return err
	}
	if after, err := identities(c.paths()); err != nil || after != before {
		return fmt.Errorf("data: the files of %s changed while they were read; run again", c.Files)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// identities returns sizes and times of files, which change when they are written to.
func identities(paths []string) (string, error) {
	var s string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
		s += fmt.Sprintln(info.Size(), info.ModTime().UnixNano())
	}
	return s, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return nil
}

// lock takes the lock file, waiting for whoever holds it. The kernel frees it when its process dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data: cache: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("data: cache: lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cacheKey is the hash of everything that changes the rows.
func cacheKey(c Config, tok Tokenizer) (string, error) {
	type file struct{ Kind, SHA256 string }
	k := struct {
		Version, Seq, Vocab    int
		Packing, TrainOnPrompt bool
		TooLong                TooLong
		Tokenizer, Template    string
		EOS                    int32
		Files                  []file
	}{Version: cacheVersion, Seq: c.Seq, Vocab: c.VocabSize, Packing: c.Packing, TrainOnPrompt: c.TrainOnPrompt,
		TooLong: c.TooLong, Tokenizer: c.TokenizerHash, EOS: -1}
	if tok != nil {
		k.Template = tok.ChatTemplate()
		if id, ok := tok.EOS(); ok {
			k.EOS = id
		}
	}
	for _, p := range c.paths() {
		sum, err := hashFile(p)
		if err != nil {
			return "", err
		}
		kind, zipped := form(p)
		k.Files = append(k.Files, file{fmt.Sprint(kind, zipped), sum})
	}
	b, err := json.Marshal(k)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("data: %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writer writes a cache file in one pass.
type writer struct {
	buf    *bufio.Writer
	crc    hash.Hash32
	words  uint64 // int32 written
	index  []uint64
	packed bool
	stats  Stats
	row32  []byte
}

func newWriter(w io.Writer, packed bool) *writer {
	o := &writer{crc: crc32.New(crcTable), index: []uint64{0}, packed: packed}
	o.buf = bufio.NewWriterSize(io.MultiWriter(w, o.crc), 1<<20)
	return o
}

// row appends documents as one row.
func (o *writer) row(docs []sample) error {
	b := o.row32[:0]
	for _, d := range docs {
		b = words(b, d.tokens)
	}
	for _, d := range docs {
		b = words(b, d.labels)
		o.tally(d)
	}
	if o.packed {
		for _, d := range docs {
			for i := range d.tokens {
				b = binary.LittleEndian.AppendUint32(b, uint32(i))
			}
		}
		for n, d := range docs {
			for range d.tokens {
				b = binary.LittleEndian.AppendUint32(b, uint32(n))
			}
		}
	}
	o.row32 = b
	o.words += uint64(len(b) / 4)
	o.index = append(o.index, o.words)
	o.stats.Sequences++
	return o.write(b)
}

func (o *writer) tally(d sample) {
	o.stats.Documents++
	o.stats.Tokens += int64(len(d.tokens))
	for _, y := range d.labels[1:] {
		if y >= 0 {
			o.stats.Trained++
		}
	}
}

func words(b []byte, v []int32) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return b
}

func (o *writer) write(b []byte) error {
	if _, err := o.buf.Write(b); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return nil
}

// finish writes index, counts and footer.
func (o *writer) finish() error {
	counts, err := json.Marshal(o.stats)
	if err != nil {
		panic(err)
	}
	var b []byte
	if o.words%2 == 1 {
		b = append(b, 0, 0, 0, 0)
	}
	indexAt := 4*o.words + uint64(len(b))
	for _, x := range o.index {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	countsAt := indexAt + 8*uint64(len(o.index))
	for len(counts)%8 != 0 { // the footer is aligned, too
		counts = append(counts, ' ')
	}
	b = append(b, counts...)
	if err := o.write(b); err != nil {
		return err
	}
	packed := uint64(0)
	if o.packed {
		packed = 1
	}
	foot := []uint64{cacheVersion, packed, uint64(len(o.index) - 1), indexAt, countsAt, uint64(len(counts))}
	b = b[:0]
	for _, x := range foot {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	if err := o.write(b); err != nil {
		return err
	}
	if err := o.buf.Flush(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	b = binary.LittleEndian.AppendUint64(nil, uint64(o.crc.Sum32()))
	b = binary.LittleEndian.AppendUint64(b, cacheMagic)
	if err := o.write(b); err != nil {
		return err
	}
	if err := o.buf.Flush(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return nil
}

// load maps a cache file and checks all of it.
func load(path string) (*Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < footerBytes {
		return nil, errCache
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("data: map %s: %w", path, err)
	}
	s, err := parse(mem)
	if err != nil {
		unix.Munmap(mem)
		return nil, err
	}
	return s, nil
}

// parse reads a whole cache file.
func parse(mem []byte) (*Set, error) {
	end := len(mem) - footerBytes
	var foot [footerWords]uint64
	for i := range foot {
		foot[i] = binary.LittleEndian.Uint64(mem[end+8*i:])
	}
	rows, indexAt, countsAt, countsLen := foot[2], foot[3], foot[4], foot[5]
	size := uint64(len(mem))
	switch {
	case foot[7] != cacheMagic, foot[0] != cacheVersion, foot[1] > 1:
		return nil, errCache
	case uint64(crc32.Checksum(mem[:size-16], crcTable)) != foot[6]:
		return nil, errCache
	case indexAt%8 != 0, indexAt > size, rows > size, countsAt != indexAt+8*(rows+1), countsAt+countsLen != uint64(end):
		return nil, errCache
	}
	s := &Set{mem: mem, packed: foot[1] == 1, index: view[uint64](mem, indexAt, rows+1)}
	if err := json.Unmarshal(mem[countsAt:end], &s.stats); err != nil {
		return nil, errCache
	}
	s.words = view[int32](mem, 0, s.index[rows])
	longest := 0
	for i := range s.Len() {
		longest = max(longest, s.length(i))
	}
	s.iota, s.zeros = make([]int32, longest), make([]int32, longest)
	for i := range s.iota {
		s.iota[i] = int32(i)
	}
	return s, nil
}
