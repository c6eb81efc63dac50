package tokenizer

// pairTable maps two 32-bit numbers to a 64-bit value: open addressing, one cache line per probe as a rule.
// It is filled once and then only read.
type pairTable struct {
	slots []pairSlot
	shift uint
}

type pairSlot struct{ key, value uint64 }

const noPair = ^uint64(0) // an empty slot, and the value of a pair that is not there

func newPairTable(n int) *pairTable {
	bits := uint(3)
	for 1<<bits < n+n/3 {
		bits++
	}
	t := &pairTable{slots: make([]pairSlot, 1<<bits), shift: 64 - bits}
	for i := range t.slots {
		t.slots[i] = pairSlot{noPair, noPair}
	}
	return t
}

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func (t *pairTable) slot(key uint64) *pairSlot {
	mask := len(t.slots) - 1
	i := int(key*0x9E3779B97F4A7C15>>t.shift) & mask
	for {
		s := &t.slots[i]
		if s.key == key || s.key == noPair {
			return s
		}
		i = (i + 1) & mask
	}
}

// put sets the value of (a, b); the table must have been made for as many pairs.
func (t *pairTable) put(a, b int32, value uint64) {
	key := pairKey(a, b)
	*t.slot(key) = pairSlot{key, value}
}

// get is the value of (a, b), or noPair.
func (t *pairTable) get(a, b int32) uint64 { return t.slot(pairKey(a, b)).value }
