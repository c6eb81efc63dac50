package tokenizer

import "unicode/utf8"

// cutTable knows where a text may be cut into words without changing its ids: between two characters that stand
// side by side in no token, for then no merge can ever reach across. SentencePiece models need it, since to them a
// whole document is one word.
type cutTable struct {
	m     *bpe
	ascii [utf8.RuneSelf][2]uint64 // bit set: side by side in some token
	other *pairTable
	all   bool // every byte has a fallback token: unknown characters need no care
}

// newCutTable is nil where cutting could change ids: words matter as wholes, or bytes take part in merges.
func newCutTable(m *bpe) *cutTable {
	if m.IgnoreMerges || m.Prefix != "" || m.Suffix != "" || m.bytesMerge() {
		return nil
	}
	t := &cutTable{m: m, all: m.ByteFallback}
	for _, id := range m.fallback {
		t.all = t.all && id >= 0
	}
	if !t.all && m.unk < 0 {
		return nil
	}
	seen := make(map[[2]rune]bool)
	for token := range m.vocab {
		prev := rune(-1)
		for _, r := range token {
			if prev >= 0 && prev < utf8.RuneSelf && r < utf8.RuneSelf {
				t.ascii[prev][r>>6] |= 1 << (r & 63)
			} else if prev >= 0 {
				seen[[2]rune{prev, r}] = true
			}
			prev = r
		}
	}
	t.other = newPairTable(len(seen))
	for p := range seen {
		t.other.put(p[0], p[1], 1)
	}
	return t
}

// bytesMerge tells whether a fallback byte is part of a merge.
func (m *bpe) bytesMerge() bool {
	isByte := make(map[int32]bool)
	for _, id := range m.fallback {
		isByte[id] = id >= 0
	}
	for _, p := range m.merges {
		if isByte[p[0]] || isByte[p[1]] {
			return true
		}
	}
	return false
}

// between tells whether a and b, in this order, may be separated.
func (t *cutTable) between(a, b rune) bool {
	if a < utf8.RuneSelf && b < utf8.RuneSelf {
		if t.ascii[a][b>>6]>>(b&63)&1 != 0 {
			return false
		}
	} else if t.other.get(a, b) != noPair {
		return false
	}
	return t.all || t.m.lookup(string(b)) >= 0
}
