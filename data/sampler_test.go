package data

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTheSharesOfAllRanksAreTheBatchForAnyWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, world := rapid.IntRange(1, 70).Draw(t, "b"), rapid.IntRange(1, 20).Draw(t, "world")
		rows := NewSampler(rapid.IntRange(1, 100).Draw(t, "n"), 7, true).GlobalBatch(rapid.IntRange(0, 9).Draw(t, "k"), b)
		var all []int
		for rank := range world {
			share := Share(rows, rank, world)
			if d := len(share) - b/world; d < 0 || d > 1 {
				t.Fatalf("rank %d of %d has %d of %d rows", rank, world, len(share), b)
			}
			all = append(all, share...)
		}
		if !slices.Equal(all, rows) {
			t.Fatalf("shares %v, batch %v", all, rows)
		}
	})
}

func TestBatchesConcatenateToEpochsEachOfWhichIsAPermutation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, b := rapid.IntRange(1, 40).Draw(t, "n"), rapid.IntRange(1, 60).Draw(t, "b")
		shuffle := rapid.Bool().Draw(t, "shuffle")
		s := NewSampler(n, 3, shuffle)
		var all []int
		for k := 0; len(all) < 4*n; k++ {
			all = append(all, s.GlobalBatch(k, b)...)
		}
		for e := range 4 {
			epoch := slices.Clone(all[e*n : (e+1)*n])
			if !shuffle && !slices.IsSorted(epoch) {
				t.Fatalf("epoch %d without shuffle: %v", e, epoch)
			}
			slices.Sort(epoch)
			for i, r := range epoch {
				if i != r {
					t.Fatalf("epoch %d is no permutation: %v", e, epoch)
				}
			}
		}
	})
}

func TestABatchDoesNotDependOnThoseBeforeIt(t *testing.T) {
	walked := NewSampler(23, 42, true)
	for k := range 40 {
		if got, want := NewSampler(23, 42, true).GlobalBatch(k, 7), walked.GlobalBatch(k, 7); !slices.Equal(got, want) {
			t.Fatalf("batch %d is %v from the start, %v by itself", k, want, got)
		}
	}
}

func TestTheOrderOfASeedNeverChanges(t *testing.T) {
	// By ten lines of Python: PCG-DXSM with state 42·2⁶⁴ + epoch, Lemire's draw, Fisher–Yates from the last place down.
	// A checkpoint's position means these rows for ever.
	s := NewSampler(10, 42, true)
	for k, want := range [][]int{
		{6, 2, 5, 3, 4, 7, 0, 1, 9, 8},
		{2, 3, 9, 6, 0, 8, 7, 4, 5, 1},
		{2, 9, 5, 4, 3, 7, 6, 0, 8, 1},
	} {
		if got := s.GlobalBatch(k, 10); !slices.Equal(got, want) {
			t.Errorf("epoch %d of seed 42: %v, want %v", k, got, want)
		}
	}
	if a, b := NewSampler(1000, 1, true).GlobalBatch(0, 1000), NewSampler(1000, 2, true).GlobalBatch(0, 1000); slices.Equal(a, b) {
		t.Error("two seeds give one order")
	}
}

func TestEveryPlaceIsAsLikelyForEveryRow(t *testing.T) {
	const n, runs = 6, 6000
	var count [n][n]int
	for seed := range runs {
		for place, row := range NewSampler(n, uint64(seed), true).GlobalBatch(0, n) {
			count[place][row]++
		}
	}
	chi := 0.0 // 25 degrees of freedom: above 60 once in 10⁴
	for _, places := range count {
		for _, c := range places {
			d := float64(c) - runs/n
			chi += d * d / (runs / n)
		}
	}
	if !(chi < 60) {
		t.Errorf("χ² = %.1f", chi)
	}
}

func TestTheEpochCountsRowsNotSteps(t *testing.T) {
	s := NewSampler(10, 0, false)
	if got := s.Epoch(5, 4); got != 2 {
		t.Errorf("epoch %v before batch 5 of 4 of 10 rows, want 2", got)
	}
}
