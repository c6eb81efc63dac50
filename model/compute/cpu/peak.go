package cpu

import "time"

// peakTask keeps the multiply-add units busy and nothing else.
type peakTask struct{ rounds int }

func (t *peakTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		w.Peak(t.rounds)
	}
}

// Peak is what the processor's vector units can do at most, in flops (a multiply-add is 2) per second, over all threads: the best of tries
// of about a millisecond. No product is faster, but one that leaves its zeros out or that has a matrix unit. 0: the instruction set
// has none.
func (b *Backend) Peak(tries int) float64 {
	if b.kern.Peak == nil {
		return 0
	}
	const rounds = 1 << 18
	n := b.pool.threads()
	flops := float64(n) * rounds * 12 * 2 * float64(b.kern.Lanes)
	var best float64
	for range tries {
		at := time.Now()
		b.pool.run(&peakTask{rounds}, n, 1)
		best = max(best, flops/time.Since(at).Seconds())
	}
	return best
}
