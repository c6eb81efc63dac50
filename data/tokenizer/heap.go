package tokenizer

import "math"

// link is a symbol of a long word in a doubly linked list; id −1 marks one that was merged away.
type link struct{ id, prev, next int32 }

// candidate is a merge that was possible when it was queued: key is rank<<32 | position, so the least is the next.
type candidate struct {
	key    uint64
	result int32
}

// mergeLong merges sc.ids with a heap of candidates, O(n log n), and appends the result to dst.
func (m *bpe) mergeLong(dst []int32, sc *scratch) []int32 {
	sc.links, sc.heap = sc.links[:0], sc.heap[:0]
	n := int32(len(sc.ids))
	for i, id := range sc.ids {
		sc.links = append(sc.links, link{id, int32(i) - 1, int32(i) + 1})
	}
	l := sc.links
	l[n-1].next = -1
	for i := range n - 1 {
		if p := m.rank.get(l[i].id, l[i+1].id); p != noPair {
			sc.heap = append(sc.heap, newCandidate(p, i))
		}
	}
	sc.heap.init()
	for len(sc.heap) > 0 {
		c := sc.heap.pop()
		at := int32(c.key & math.MaxUint32)
		if l[at].id < 0 || l[at].next < 0 {
			continue
		}
		right := l[at].next
		if p := m.rank.get(l[at].id, l[right].id); p == noPair || int32(p&math.MaxUint32) != c.result {
			continue // queued for a pair that is no longer there
		}
		l[at].id, l[at].next = c.result, l[right].next
		l[right].id = -1
		if next := l[at].next; next >= 0 {
			l[next].prev = at
			sc.heap.offer(m, l, at, next)
		}
		if prev := l[at].prev; prev >= 0 {
			sc.heap.offer(m, l, prev, at)
		}
	}
	for i := int32(0); i >= 0; i = l[i].next {
		dst = append(dst, l[i].id)
	}
	return dst
}

func newCandidate(p uint64, at int32) candidate {
	return candidate{p&^math.MaxUint32 | uint64(at), int32(p & math.MaxUint32)}
}

// mergeHeap is a binary min-heap.
type mergeHeap []candidate

func (h *mergeHeap) offer(m *bpe, l []link, left, right int32) {
	if p := m.rank.get(l[left].id, l[right].id); p != noPair {
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
	for i > 0 && c.key < s[(i-1)/2].key {
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
		if child+1 < len(h) && h[child+1].key < h[child].key {
			child++
		}
		if c.key <= h[child].key {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = c
}
