package data

import "fmt"

// Row is one row of a set. The four slices have the same length and are read-only.
type Row struct {
	Tokens    []int32
	Labels    []int32 // of the token itself, not shifted; Ignore where not trained
	Positions []int32 // 0, 1, … within each document
	Docs      []int32 // 0, 0, …, 1, 1, …: number of the document within the row
}

// Batch is a micro-batch as the model takes it: B rows of T tokens, row-major, shorter rows padded on the right.
// Targets are shifted already: Targets[i] is the label of token i+1 if that is in the same row and document, else Ignore.
// Padding has document −1, token 0, position 0 and target Ignore.
type Batch struct {
	B, T                             int
	Tokens, Targets, Positions, Docs []int32 // each [B·T]
	Rows                             []int   // numbers of the rows in their set
	Active                           int     // targets ≥ 0
}

// Batch sets dst to the given rows, padded to the longest of them, rounded up to a multiple. It reuses dst's memory.
func (s *Set) Batch(dst *Batch, rows []int, multiple int) {
	dst.Rows = append(dst.Rows[:0], rows...)
	longest := 0
	for _, r := range rows {
		longest = max(longest, s.length(r))
	}
	dst.shape(len(rows), longest, multiple)
	for i, r := range rows {
		dst.put(i, s.Row(r))
	}
}

// Fill sets b to rows that belong to no set (evaluation windows, say); Rows are their numbers in the slice.
func (b *Batch) Fill(rows []Row, multiple int) {
	b.Rows = b.Rows[:0]
	longest := 0
	for i, r := range rows {
		b.Rows = append(b.Rows, i)
		longest = max(longest, len(r.Tokens))
	}
	b.shape(len(rows), longest, multiple)
	for i, r := range rows {
		b.put(i, r)
	}
}

// shape sets B and T and makes room.
func (b *Batch) shape(rows, longest, multiple int) {
	if multiple < 1 {
		multiple = 1
	}
	b.B, b.T, b.Active = rows, (longest+multiple-1)/multiple*multiple, 0
	n := b.B * b.T
	for _, v := range []*[]int32{&b.Tokens, &b.Targets, &b.Positions, &b.Docs} {
		if cap(*v) < n {
			*v = make([]int32, n)
		}
		*v = (*v)[:n]
	}
}

// put writes r and its padding to row i and counts its targets.
func (b *Batch) put(i int, r Row) {
	n := len(r.Tokens)
	if len(r.Labels) != n || len(r.Positions) != n || len(r.Docs) != n || n > b.T {
		panic(fmt.Sprintf("data: row of %d tokens, %d labels, %d positions, %d documents in a batch of %d",
			n, len(r.Labels), len(r.Positions), len(r.Docs), b.T))
	}
	lo, hi := i*b.T, (i+1)*b.T
	tokens, targets := b.Tokens[lo:hi], b.Targets[lo:hi]
	copy(tokens, r.Tokens)
	copy(b.Positions[lo:hi], r.Positions)
	copy(b.Docs[lo:hi], r.Docs)
	clear(tokens[n:])
	clear(b.Positions[lo+n : hi])
	for j := n; j < b.T; j++ {
		b.Docs[lo+j] = -1
		targets[j] = Ignore
	}
	b.Active += shift(targets[:n], r)
}

// shift sets targets[i] to the label of token i+1 of the same document, Ignore where there is none, and returns how many
// are trained.
func shift(targets []int32, r Row) int {
	active := 0
	for i := range targets {
		targets[i] = Ignore
		if i+1 < len(r.Labels) && r.Docs[i] == r.Docs[i+1] {
			targets[i] = r.Labels[i+1]
		}
		if targets[i] >= 0 {
			active++
		}
	}
	return active
}

// Windows cuts ids in windows of seq tokens without overlap; the remainder is dropped. With each window's first token
// given, perplexity is exp of the mean over windows of the mean loss of its seq−1 predictions.
func Windows(ids []int32, seq int) [][]int32 {
	if seq < 2 {
		panic(fmt.Sprintf("data: windows of %d tokens predict nothing", seq))
	}
	out := make([][]int32, 0, len(ids)/seq)
	for ; len(ids) >= seq; ids = ids[seq:] {
		out = append(out, ids[:seq:seq])
	}
	return out
}

// Plain returns ids as a row of one document, all trained.
func Plain(ids []int32) Row {
	r := Row{Tokens: ids, Labels: ids, Positions: make([]int32, len(ids)), Docs: make([]int32, len(ids))}
	for i := range r.Positions {
		r.Positions[i] = int32(i)
	}
	return r
}
