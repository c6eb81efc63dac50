package data

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set is the rows, mapped read-only from the cache file. It is safe for concurrent use until Close.
type Set struct {
	mem    []byte
	index  []uint64 // [rows+1] first word of each row, in int32 words
	words  []int32
	packed bool
	key    string
	stats  Stats
	iota   []int32 // positions of a row that is one document
	zeros  []int32 // its documents
}

// Len returns the number of rows.
func (s *Set) Len() int { return len(s.index) - 1 }

// Bytes returns the size of the mapped cache file.
func (s *Set) Bytes() int { return len(s.mem) }

// Longest returns the number of tokens of the longest row.
func (s *Set) Longest() int { return len(s.iota) }

// Key identifies the rows: a hash of the files' content, the tokenizer and every setting that changes them. Two sets with the
// same key are equal. "" for a set without a cache directory.
func (s *Set) Key() string { return s.key }

// Stats returns what was counted when the set was made.
func (s *Set) Stats() Stats { return s.stats }

// arrays is how many int32 are stored per token: tokens and labels, and for packed rows positions and documents.
func arrays(packed bool) uint64 {
	if packed {
		return 4
	}
	return 2
}

func (s *Set) length(i int) int { return int((s.index[i+1] - s.index[i]) / arrays(s.packed)) }

// Row returns row i without copying; it is valid until Close.
func (s *Set) Row(i int) Row {
	if i < 0 || i >= s.Len() {
		panic(fmt.Sprintf("data: row %d of %d", i, s.Len()))
	}
	n := s.length(i)
	w := s.words[s.index[i]:s.index[i+1]]
	r := Row{Tokens: w[:n:n], Labels: w[n : 2*n : 2*n], Positions: s.iota[:n:n], Docs: s.zeros[:n:n]}
	if s.packed {
		r.Positions, r.Docs = w[2*n:3*n:3*n], w[3*n:]
	}
	return r
}

// Close unmaps the set.
func (s *Set) Close() error {
	mem := s.mem
	*s = Set{index: []uint64{0}}
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// view returns n elements of T at byte offset off of mem.
func view[T int32 | uint64](mem []byte, off, n uint64) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[off])), n)
}
