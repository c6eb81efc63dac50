package tokenizer

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// naiveMerge is byte pair encoding as its definition says: again and again the first pair of the lowest rank.
func naiveMerge(rank func(a, b int32) (uint64, bool), ids []int32) []int32 {
	for {
		at, best := -1, uint64(0)
		for i := 1; i < len(ids); i++ {
			if r, ok := rank(ids[i-1], ids[i]); ok && (at < 0 || r < best) {
				at, best = i-1, r
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Concat(ids[:at], []int32{int32(best & 0xFFFFFFFF)}, ids[at+2:])
	}
}

func TestTheHeapAndTheShortLoopMergeAsTheDefinitionSays(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, family := range []string{"gpt2", "llama2"} {
		tok := load(t, family)
		m, sc := tok.model, new(scratch)
		rank := func(a, b int32) (uint64, bool) { r := m.rank.get(a, b); return r, r != noPair }
		for n := 1; n < 150; n++ {
			word := make([]byte, n)
			for i := range word {
				word[i] = "the  aonrsl{}"[rng.IntN(13)]
			}
			sc.ids = m.symbols(sc.ids[:0], string(word))
			want := naiveMerge(rank, slices.Clone(sc.ids))
			if got := m.mergeLong(nil, sc); !slices.Equal(got, want) {
				t.Fatalf("%s: heap: %q: got %v, want %v", family, word, got, want)
			}
			sc.ids = m.symbols(sc.ids[:0], string(word))
			if got := m.mergeShort(sc); !slices.Equal(got, want) {
				t.Fatalf("%s: loop: %q: got %v, want %v", family, word, got, want)
			}
		}
	}
}

// Ids, links, candidates and the result take 24 bytes per byte; the rest is rounding, and the pieces of Encode's first guess. Under the
// race detector it is 46, as what slices.Grow adds is made first.
func TestAWordAsLongAsAFileTakesLittleMoreThanItsSymbols(t *testing.T) {
	tok := load(t, "gpt2")
	word := strings.Repeat("theandthisof", 1<<18)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ids := tok.Encode(word, false)
	runtime.ReadMemStats(&after)
	if perByte := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(word)); !(perByte <= 64) || len(ids) == 0 {
		t.Errorf("%.1f bytes per byte of the word", perByte)
	}
}

func TestCuttingBetweenCharactersThatNoTokenJoinsChangesNoID(t *testing.T) {
	for _, family := range []string{"llama2", "metaspace", "unk", "sentencepiece"} {
		cut, whole := load(t, family), load(t, family)
		if cut.model.cuts == nil {
			t.Fatalf("%s: is never cut", family)
		}
		whole.model.cuts = nil
		for _, text := range append(texts(t), strings.Join(texts(t), " ")) {
			if got, want := cut.Encode(text, false), whole.Encode(text, false); !slices.Equal(got, want) {
				t.Errorf("%s: %+q: got %q, want %q", family, text, names(cut, got), names(whole, want))
			}
		}
	}
}

func TestALongTextWithoutASpaceIsOneWordAndEnds(t *testing.T) {
	for _, family := range []string{"gpt2", "llama3", "llama2"} {
		tok := load(t, family)
		text := strings.Repeat("theendoftheline", 1<<14) // quadratic merging would not end
		if n := len(tok.Encode(text, false)); n == 0 || n >= len(text) {
			t.Errorf("%s: %d ids of %d bytes", family, n, len(text))
		}
	}
}

func TestWhatACallerDoesToItsIDsDoesNotReachTheWordCache(t *testing.T) {
	tok := load(t, "llama3")
	want := tok.Encode("the the the", false)
	got := tok.Encode("the the the", false)
	for i := range got {
		got[i] = -7
	}
	if got := tok.Encode("the the the", false); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEncodeAppendKeepsWhatIsThere(t *testing.T) {
	tok := load(t, "llama3")
	got := tok.EncodeAppend([]int32{-1, -2}, "Hello world!", true)
	if want := append([]int32{-1, -2}, tok.Encode("Hello world!", true)...); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
