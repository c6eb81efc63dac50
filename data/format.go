package data

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
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
	cacheVersion = 2
	cacheMagic   = 0x61746164726c7073 // "splrdata"
	footerWords  = 8
	footerBytes  = 8 * footerWords
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// errCache says that a cache file is not usable and must be made anew.
var errCache = errors.New("it is damaged")

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
	if !slices.IsSorted(s.index) || s.index[rows] > indexAt/4 {
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
