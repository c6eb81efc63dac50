package sparse

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// ParsePattern reads what a user writes. "n:m" KEEPS n of m consecutive inputs ("1:4" removes three quarters; some
// pruning tools count the removed ones); a number is the fraction REMOVED ("0.6" keeps 40 %, unstructured). sparsity is the
// fraction removed, either way.
func ParsePattern(s string) (p Pattern, sparsity float64, err error) {
	n, m, ok := strings.Cut(s, ":")
	if !ok {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || !(x >= 0 && x < 1) {
			return Pattern{}, 0, fmt.Errorf("sparse: pattern %q: want n:m (keeps n of m consecutive inputs, as 2:4) or the fraction to remove (0 ≤ x < 1, as 0.5)", s)
		}
		return Pattern{}, x, nil
	}
	p.N, err = strconv.Atoi(n)
	if err == nil {
		p.M, err = strconv.Atoi(m)
	}
	if err != nil || p.N < 1 || p.N >= p.M || p.M > 1<<16 {
		return Pattern{}, 0, fmt.Errorf("sparse: pattern %q: n:m keeps n of m consecutive inputs, 1 ≤ n < m", s)
	}
	return p, 1 - float64(p.N)/float64(p.M), nil
}

// Unstructured reports whether the pattern says nothing of where the kept weights are.
func (p Pattern) Unstructured() bool { return p.M == 0 }

func (p Pattern) String() string {
	if p.Unstructured() {
		return "unstructured"
	}
	return fmt.Sprintf("%d:%d", p.N, p.M)
}

// Keep is the number of weights that a row of in inputs keeps: N of every M; a last group of g = in%M inputs keeps
// min(N, g), which is what zero-padding to a whole group allows. 0 when unstructured.
func (p Pattern) Keep(in int) int {
	if p.Unstructured() {
		return 0
	}
	return in/p.M*p.N + min(p.N, in%p.M)
}

// Check reports the first row and group in which mask [out, in] is not exactly of the pattern.
func (p Pattern) Check(mask []uint64, out, in int) error {
	if err := checkMask(mask, out, in); err != nil || p.Unstructured() {
		return err
	}
	if p.N < 1 || p.N > p.M {
		return fmt.Errorf("sparse: no pattern %d:%d", p.N, p.M)
	}
	words := Words(in)
	for i := range out {
		row := mask[i*words : (i+1)*words]
		if j := p.firstBad(row, in); j >= 0 {
			g := min(p.M, in-j)
			return fmt.Errorf("sparse: row %d keeps %d of the inputs %d…%d, the pattern %s keeps %d", i, countBits(row, j, j+g), j, j+g-1, p, min(p.N, g))
		}
	}
	return nil
}

// firstBad is the first input of the first group that breaks the pattern, or -1.
func (p Pattern) firstBad(row []uint64, in int) int {
	j := 0
	if sums, want, ok := p.fast(); ok {
		for j+64 <= in && sums(row[j/64]) == want {
			j += 64
		}
	}
	for ; j < in; j += p.M {
		g := min(p.M, in-j)
		if countBits(row, j, j+g) != min(p.N, g) {
			return j
		}
	}
	return -1
}

// fast gives the counts of all groups of a word at once, for M = 2, 4, 8, and what they must be.
func (p Pattern) fast() (sums func(uint64) uint64, want uint64, ok bool) {
	const m1, m2, m4 = 0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f
	two := func(x uint64) uint64 { return x - x>>1&m1 }
	four := func(x uint64) uint64 { x = two(x); return x&m2 + x>>2&m2 }
	n := uint64(p.N)
	switch p.M {
	case 2:
		return two, n * m1, true
	case 4:
		return four, n * 0x1111111111111111, true
	case 8:
		return func(x uint64) uint64 { x = four(x); return (x + x>>4) & m4 }, n * 0x0101010101010101, true
	}
	return nil, 0, false
}

// countBits is the number of set bits j0 ≤ j < j1 of a row.
func countBits(row []uint64, j0, j1 int) (n int) {
	for j0 < j1 {
		w := row[j0/64] >> (j0 % 64)
		if k := min(64-j0%64, j1-j0); k < 64 {
			w &= 1<<k - 1
			j0 += k
		} else {
			j0 += 64
		}
		n += bits.OnesCount64(w)
	}
	return n
}

// Detect is the pattern that mask [out, in] has: the n:m of smallest m ∈ {2, 4, 8, 16, 32} that holds in every group, else
// unstructured. A mask that keeps everything or nothing is unstructured.
func Detect(mask []uint64, out, in int) Pattern {
	for m := 2; m <= 32 && m <= in; m *= 2 {
		p := Pattern{countBits(mask, 0, m), m}
		if p.N > 0 && p.N < p.M && p.Check(mask, out, in) == nil {
			return p
		}
	}
	return Pattern{}
}

// Removed is the number of weights of a row of in inputs that an unstructured sparsity removes: ⌊in·sparsity⌋, with the
// fraction taken as it was written (0.7 of 10 is 7, though 0.7 is no binary fraction).
func Removed(in int, sparsity float64) int { return int(math.Floor(float64(in)*sparsity + 1e-9)) }
