package tokenizer

import (
	"math"
	"slices"
)

// link is where the neighbours of a symbol of a long word are, in a doubly linked list.
type link struct{ prev, next int32 }

// candidate is a merge that was possible when it was queued: rank<<32 | position, so the least is the next.
type candidate uint64

// mergeLong merges sc.ids with a heap of candidates, O(n log n), and appends the result to dst. An id of −1 marks a symbol
// that was merged away. A word may be a whole file: 20 bytes per symbol are all that is kept.
func (m *bpe) mergeLong(dst []int32, sc *scratch) []int32 {
	ids, n, left := sc.ids, int32(len(sc.ids)), len(sc.ids)
	sc.links, sc.heap = slices.Grow(sc.links[:0], len(ids)), slices.Grow(sc.heap[:0], len(ids))
	for i := range n {
		sc.links = append(sc.links, link{i - 1, i + 1})
	}
	l := sc.links
	l[n-1].next = -1
	for i := range n - 1 {
		if p := m.rank.get(ids[i], ids[i+1]); p != noPair {
			sc.heap = append(sc.heap, newCandidate(p, i))
		}
	}
	sc.heap.init()
	for len(sc.heap) > 0 {
		c := sc.heap.pop()
		at := int32(c & math.MaxUint32)
		if ids[at] < 0 || l[at].next < 0 {
			continue
		}
		right := l[at].next
		p := m.rank.get(ids[at], ids[right])
		if p == noPair || newCandidate(p, at) != c {
			continue // queued for a pair that is no longer there
		}
		ids[at], l[at].next = int32(p&math.MaxUint32), l[right].next
		ids[right] = -1
		left--
		if next := l[at].next; next >= 0 {
			l[next].prev = at
			sc.heap.offer(m, ids, at, next)
		}
		if prev := l[at].prev; prev >= 0 {
			sc.heap.offer(m, ids, prev, at)
		}
	}
	dst = slices.Grow(dst, left)
	for i := int32(0); i >= 0; i = l[i].next {
		dst = append(dst, ids[i])
	}
	return dst
}

func newCandidate(p uint64, at int32) candidate {
	return candidate(p&^math.MaxUint32 | uint64(at))
}

// mergeHeap is a binary min-heap.
type mergeHeap []candidate

func (h *mergeHeap) offer(m *bpe, ids []int32, left, right int32) {
	if p := m.rank.get(ids[left], ids[right]); p != noPair {
		h.push(newCandidate(p, left))
	}
}

func (h mergeHeap) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *mergeHeap) push(c candidate) {
	*h = append(*h, c)
	s, i := *h, len(*h)-1
	for i > 0 && c < s[(i-1)/2] {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = c
}

func (h *mergeHeap) pop() candidate {
	s := *h
	top, n := s[0], len(s)-1
	s[0] = s[n]
	*h = s[:n]
	if n > 1 {
		h.down(0)
	}
	return top
}

func (h mergeHeap) down(i int) {
	c := h[i]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if c <= h[child] {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = c
}
