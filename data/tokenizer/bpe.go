package tokenizer

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// bpe is the byte pair encoding of one vocabulary: a word starts as its characters (or bytes), and as long as two
// neighbours are a known merge, those of the lowest rank, leftmost first, become one.
type bpe struct {
	modelSpec
	tokens   []string   // by id
	rank     *pairTable // (left, right) → rank<<32 | result
	unk      int32      // −1: an unknown character vanishes
	ascii    [utf8.RuneSelf]int32
	bytes    [256]int32 // ids of the byte-level alphabet, −1 where absent
	fallback [256]int32 // ids of <0x00> … <0xFF>
	cuts     *cutTable  // nil: text is not to be cut
	cache    *wordCache
}

func newBPE(s modelSpec) *bpe {
	m := &bpe{modelSpec: s, cache: newWordCache()}
	last := int32(-1)
	for _, id := range s.vocab {
		last = max(last, id)
	}
	m.tokens = make([]string, last+1)
	for token, id := range s.vocab {
		m.tokens[id] = token
	}
	m.rank = newPairTable(len(s.merges))
	for i, pair := range s.merges {
		m.rank.put(pair[0], pair[1], uint64(i)<<32|uint64(s.results[i]))
	}
	if m.unk = -1; s.Unk != "" {
		m.unk = m.lookup(s.Unk)
	}
	for c := range m.ascii {
		m.ascii[c] = m.lookup(string(rune(c)))
	}
	for b := range 256 {
		m.bytes[b] = m.lookup(string(byteRune(byte(b))))
		m.fallback[b] = m.lookup(fmt.Sprintf("<0x%02X>", b))
	}
	return m
}

func (m *bpe) lookup(token string) int32 {
	if id, ok := m.vocab[token]; ok {
		return id
	}
	return -1
}

// scratch is the working memory of one call.
type scratch struct {
	ids    []int32
	pairs  []uint64
	mapped []byte
	heap   mergeHeap
	links  []link
	pieces []piece
	spare  []piece
}

// text appends the ids of s, cut into words where no token can reach across.
func (m *bpe) text(dst []int32, s string, sc *scratch) []int32 {
	if m.cuts == nil {
		return m.word(dst, s, false, sc)
	}
	start, prev := 0, rune(-1)
	for i, r := range s {
		if prev >= 0 && m.cuts.between(prev, r) {
			dst = m.word(dst, s[start:i], false, sc)
			start = i
		}
		prev = r
	}
	return m.word(dst, s[start:], false, sc)
}

// word appends the ids of one word. With byteLevel its bytes are the first symbols, otherwise its characters.
func (m *bpe) word(dst []int32, w string, byteLevel bool, sc *scratch) []int32 {
	if len(w) == 0 {
		return dst
	}
	if len(w) > cacheMaxLen {
		return m.merge(dst, w, byteLevel, sc)
	}
	slot := m.cache.slot(w)
	if e := slot.Load(); e != nil && e.word == w {
		return append(dst, e.ids...)
	}
	n := len(dst)
	dst = m.merge(dst, w, byteLevel, sc)
	putWord(slot, w, dst[n:])
	return dst
}

func (m *bpe) merge(dst []int32, w string, byteLevel bool, sc *scratch) []int32 {
	if m.IgnoreMerges {
		if id, ok := m.whole(w, byteLevel, sc); ok {
			return append(dst, id)
		}
	}
	if byteLevel && m.Prefix == "" && m.Suffix == "" {
		sc.ids = m.byteSymbols(sc.ids[:0], w)
	} else {
		if byteLevel {
			w = toByteLevel(w)
		}
		sc.ids = m.symbols(sc.ids[:0], w)
	}
	if len(sc.ids) <= shortWord {
		return append(dst, m.mergeShort(sc)...)
	}
	return m.mergeLong(dst, sc)
}

// whole looks the word up as one token.
func (m *bpe) whole(w string, byteLevel bool, sc *scratch) (int32, bool) {
	if !byteLevel {
		id, ok := m.vocab[w]
		return id, ok
	}
	sc.mapped = appendByteLevel(sc.mapped[:0], w)
	id, ok := m.vocab[string(sc.mapped)]
	return id, ok
}

func (m *bpe) byteSymbols(ids []int32, w string) []int32 {
	ids = slices.Grow(ids, len(w))
	u := unknowns{m: m}
	for i := 0; i < len(w); i++ {
		if id := m.bytes[w[i]]; id >= 0 {
			ids = append(u.flush(ids), id)
		} else {
			ids = u.miss(ids, string(byteRune(w[i])))
		}
	}
	return u.flush(ids)
}

func (m *bpe) symbols(ids []int32, w string) []int32 {
	u := unknowns{m: m}
	for i, n := 0, 0; i < len(w); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(w[i:])
		if r < utf8.RuneSelf && m.Prefix == "" && m.Suffix == "" && m.ascii[r] >= 0 {
			ids = append(u.flush(ids), m.ascii[r])
			continue
		}
		char := w[i : i+n]
		if i > 0 {
			char = m.Prefix + char
		}
		if i+n == len(w) {
			char += m.Suffix
		}
		if id, ok := m.vocab[char]; ok {
			ids = append(u.flush(ids), id)
		} else {
			ids = u.miss(ids, char)
		}
	}
	return u.flush(ids)
}

// unknowns holds back the unknown token, as neighbours may fuse into one. Fallback bytes go before a token that is
// held back: so does the reference, and the ids must be equal.
type unknowns struct {
	m       *bpe
	pending bool
}

func (u *unknowns) flush(ids []int32) []int32 {
	if u.pending {
		u.pending = false
		ids = append(ids, u.m.unk)
	}
	return ids
}

func (u *unknowns) miss(ids []int32, char string) []int32 {
	if u.m.ByteFallback {
		n := len(ids)
		for i := 0; i < len(char); i++ {
			ids = append(ids, u.m.fallback[char[i]])
			if u.m.fallback[char[i]] < 0 {
				break
			}
		}
		if ids[len(ids)-1] >= 0 {
			return ids
		}
		ids = ids[:n]
	}
	if u.m.unk >= 0 {
		if !u.m.FuseUnk {
			ids = u.flush(ids)
		}
		u.pending = true
	}
	return ids
}

// shortWord is the number of symbols up to which looking at all pairs beats a heap.
const shortWord = 64

// mergeShort merges sc.ids in place by looking for the best pair again and again.
func (m *bpe) mergeShort(sc *scratch) []int32 {
	ids, pairs := sc.ids, sc.pairs[:0]
	for i := 1; i < len(ids); i++ {
		pairs = append(pairs, m.rank.get(ids[i-1], ids[i]))
	}
	sc.pairs = pairs
	for {
		best, at := uint64(noPair), -1
		for i, p := range pairs {
			if p < best {
				best, at = p, i
			}
		}
		if at < 0 {
			return ids
		}
		ids[at] = int32(best & math.MaxUint32)
		ids = append(ids[:at+1], ids[at+2:]...)
		pairs = append(pairs[:at], pairs[at+1:]...)
		if at > 0 {
			pairs[at-1] = m.rank.get(ids[at-1], ids[at])
		}
		if at < len(pairs) {
			pairs[at] = m.rank.get(ids[at], ids[at+1])
		}
	}
}
