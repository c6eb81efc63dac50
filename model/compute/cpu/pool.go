package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
)

// task is an operation cut into pieces: do computes items [i, j). Pieces are independent.
type task interface {
	do(w *worker, i, j int)
}

// worker is one thread's scratch memory; it grows to what the largest operation needs and stays.
type worker struct {
	vec
	index  int
	work   Work
	buf    []float32
	strips [8][]float32    // of BF16 operands, widened
	a, b   []float32       // packed operands of a product on this thread, or a block of W̃ on its way to classes
	edge   [512]float32    // a tile that hangs over the edge
	line   [blockK]float32 // a row being packed
	at     []uint32        // where the values of a packed matrix go
	spans  []span          // of keys
	keys   keyScratch
	ones   [chunk / 64]uint64 // the mask of a dense row
	unit   unitScratch
	masked maskedScratch

	keptMerge  simd.KeptMerge
	classPack  simd.ClassPack
	keptReduce simd.KeptReduce

	beside    *unit // of the backend
	unitBack  unitBackScratch
	unitAhead unitAheadScratch
}

// scratch gives n floats of unspecified content, valid until the worker's next piece.
func (w *worker) scratch(n int) []float32 {
	if cap(w.buf) < n {
		w.buf = make([]float32, n)
	}
	return w.buf[:n]
}

// pool runs tasks on the caller's goroutine (worker 0) and on len(workers)−1 others. A step is thousands of short tasks, and waking a
// sleeping thread takes as long as a short task: so a worker looks out for the next task for a moment before it sleeps, and the caller
// likewise for the last piece. With more workers than processors nobody looks out, for that would keep the others from working.
type pool struct {
	workers []worker
	wake    []chan struct{} // of the sleeping workers, by index
	asleep  []atomic.Bool
	called  atomic.Uint64 // number of tasks so far << 16 | number of workers that take part in this one
	left    atomic.Int64  // of those, how many have not come to its end
	done    chan struct{} // the last of them, where the caller sleeps
	waits   atomic.Bool
	ended   sync.WaitGroup
	closed  bool
	looks   int
	tasks   int // so far

	task     task
	n, grain int
	next     atomic.Int64
}

// looks is how often a worker looks before it sleeps: about half a millisecond, which most waits for the last piece are shorter than. Waking a
// thread takes longer than most tasks.
const looks = 1 << 18

// looksOf is the number of looks of a pool of so many threads.
func looksOf(threads int) int {
	if threads > runtime.GOMAXPROCS(0) {
		return 0
	}
	return looks
}

func newPool(threads, looks int, v vec) *pool {
	p := &pool{workers: make([]worker, threads), wake: make([]chan struct{}, threads), asleep: make([]atomic.Bool, threads), done: make(chan struct{}, 1), looks: looks}
	for i := range p.workers {
		p.workers[i].vec, p.workers[i].index = v, i
		for k := range p.workers[i].ones {
			p.workers[i].ones[k] = ^uint64(0)
		}
	}
	for i := 1; i < threads; i++ {
		p.wake[i] = make(chan struct{}, 1)
		p.ended.Add(1)
		go p.serve(i)
	}
	return p
}

func (p *pool) threads() int { return len(p.workers) }

// serve is worker i: it works at the tasks that it takes part in.
func (p *pool) serve(i int) {
	defer p.ended.Done()
	for seen := uint64(0); ; {
		if seen = p.await(i, seen); i >= int(seen&0xffff) {
			continue
		}
		if p.closed {
			return
		}
		p.work(&p.workers[i])
		if p.left.Add(-1) == 0 && p.waits.Swap(false) {
			p.done <- struct{}{}
		}
	}
}

// await gives the next call after the one seen. Who says that it sleeps looks once more: a call before that is seen now, and one after it
// finds the sleeper. Whoever takes the word back, worker or caller, acts on it.
func (p *pool) await(i int, seen uint64) uint64 {
	for range p.looks {
		if v := p.called.Load(); v != seen {
			return v
		}
	}
	p.asleep[i].Store(true)
	if p.called.Load() == seen || !p.asleep[i].Swap(false) {
		<-p.wake[i]
	}
	return p.called.Load()
}

// call starts the first n workers.
func (p *pool) call(n int) {
	p.called.Store((p.called.Load()>>16+1)<<16 | uint64(n))
	for i := 1; i < n; i++ {
		if p.asleep[i].Load() && p.asleep[i].Swap(false) {
			p.wake[i] <- struct{}{}
		}
	}
}

// run computes items [0, n) of t in pieces of grain; it returns when all are done.
func (p *pool) run(t task, n, grain int) {
	if n <= 0 {
		return
	}
	p.tasks++
	p.task, p.n, p.grain = t, n, max(grain, 1)
	p.next.Store(0)
	if parts := min((n+p.grain-1)/p.grain, len(p.workers)); parts > 1 {
		p.left.Store(int64(parts - 1))
		p.call(parts)
	}
	p.work(&p.workers[0])
	p.join()
	p.task = nil
}

// join returns when every worker has come to the end.
func (p *pool) join() {
	for range p.looks {
		if p.left.Load() == 0 {
			return
		}
	}
	p.waits.Store(true)
	if p.left.Load() == 0 && p.waits.Swap(false) {
		return
	}
	<-p.done
}

// work takes pieces until none is left.
func (p *pool) work(w *worker) {
	for {
		i := int(p.next.Add(1)-1) * p.grain
		if i >= p.n {
			return
		}
		p.task.do(w, i, min(i+p.grain, p.n))
	}
}

func (p *pool) close() {
	p.closed = true
	p.call(len(p.workers))
	p.ended.Wait()
}

// grain is the number of rows of the given cost (about one per multiply-add) that make a piece worth waking a thread.
func grain(cost int) int { return max(1, 1<<15/max(cost, 1)) }
