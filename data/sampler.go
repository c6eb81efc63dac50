package data

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
)

// Sampler is the order in which rows are trained: epoch after epoch, each a permutation of all rows.
//
// The order of epoch e is a Fisher–Yates shuffle, from the last place down, of 0 … n−1 by the generator
// PCG-DXSM(seed, e) of math/rand/v2, with the draw below i+1 made by Lemire's multiply-and-reject. It depends on n, seed and
// e alone, so that a run can begin at any step; only the epoch in use is kept. Not safe for concurrent use.
type Sampler struct {
	n       int
	seed    uint64
	shuffle bool
	epoch   int // of order; −1: none
	order   []int32
}

// NewSampler orders n rows; without shuffle every epoch has the files' order.
func NewSampler(n int, seed uint64, shuffle bool) *Sampler {
	if n < 1 || n > math.MaxInt32 {
		panic(fmt.Sprintf("data: sampler over %d rows", n))
	}
	return &Sampler{n: n, seed: seed, shuffle: shuffle, epoch: -1}
}

// GlobalBatch returns the rows of the k-th global batch of b rows, k from 0: places k·b … (k+1)·b of the concatenated
// epochs. The rows that are left at an epoch's end so begin the next epoch's first batch.
func (s *Sampler) GlobalBatch(k, b int) []int {
	if k < 0 || b < 1 {
		panic(fmt.Sprintf("data: global batch %d of %d rows", k, b))
	}
	rows := make([]int, b)
	for j := range rows {
		p := k*b + j
		rows[j] = s.at(p/s.n, p%s.n)
	}
	return rows
}

// Epoch returns how many epochs lie before the k-th global batch of b rows, with their fraction.
func (s *Sampler) Epoch(k, b int) float64 { return float64(k) * float64(b) / float64(s.n) }

// at returns the row at a place of an epoch.
func (s *Sampler) at(epoch, place int) int {
	if !s.shuffle {
		return place
	}
	if s.epoch != epoch {
		s.permute(epoch)
	}
	return int(s.order[place])
}

// permute sets order to the epoch's.
func (s *Sampler) permute(epoch int) {
	if s.order == nil {
		s.order = make([]int32, s.n)
	}
	for i := range s.order {
		s.order[i] = int32(i)
	}
	g := rand.NewPCG(s.seed, uint64(epoch))
	for i := s.n - 1; i > 0; i-- {
		j := below(g, uint64(i+1))
		s.order[i], s.order[j] = s.order[j], s.order[i]
	}
	s.epoch = epoch
}

// below draws uniformly from 0 … n−1 (Lemire, "Fast random integer generation in an interval", 2019).
func below(g *rand.PCG, n uint64) uint64 {
	for threshold := -n % n; ; {
		hi, lo := bits.Mul64(g.Uint64(), n)
		if lo >= threshold {
			return hi
		}
	}
}

// Share returns rank's rows of a global batch of b: ⌊rank·b/world⌋ … ⌊(rank+1)·b/world⌋. All ranks' shares, one after
// the other, are the batch, so that any number of ranks trains the same batches.
func Share(rows []int, rank, world int) []int {
	if world < 1 || rank < 0 || rank >= world {
		panic(fmt.Sprintf("data: share of rank %d of %d", rank, world))
	}
	return rows[rank*len(rows)/world : (rank+1)*len(rows)/world]
}
