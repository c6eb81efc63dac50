package cpu

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// task is an operation cut into pieces: do computes items [i, j). Pieces are independent.
type task interface {
	do(w *worker, i, j int)
}

// worker is one thread's scratch memory; it grows to what the largest operation needs and stays.
type worker struct {
	vec
	buf    []float32
	strips [8][]float32       // of BF16 operands, widened
	a, b   []float32          // packed operands of a product on this thread
	edge   [512]float32       // a tile that hangs over the edge
	line   [blockK]float32    // a row being packed
	rows   [16]unsafe.Pointer // of a transposition
	at     []uint32           // where the values of a packed matrix go
	spans  []span             // of keys
	ones   [chunk / 64]uint64 // the mask of a dense row
}

// scratch gives n floats of unspecified content, valid until the worker's next piece.
func (w *worker) scratch(n int) []float32 {
	if cap(w.buf) < n {
		w.buf = make([]float32, n)
	}
	return w.buf[:n]
}

// pool runs tasks on the caller's goroutine (worker 0) and on len(workers)−1 others.
type pool struct {
	workers []worker
	wake    chan int // a worker's index
	done    sync.WaitGroup
	ended   sync.WaitGroup

	task     task
	n, grain int
	next     atomic.Int64
}

func newPool(threads int, v vec) *pool {
	p := &pool{workers: make([]worker, threads), wake: make(chan int, threads)}
	for i := range p.workers {
		p.workers[i].vec = v
		for k := range p.workers[i].ones {
			p.workers[i].ones[k] = ^uint64(0)
		}
	}
	for range threads - 1 {
		p.ended.Add(1)
		go p.serve()
	}
	return p
}

func (p *pool) threads() int { return len(p.workers) }

func (p *pool) serve() {
	defer p.ended.Done()
	for i := range p.wake {
		p.work(&p.workers[i])
		p.done.Done()
	}
}

// run computes items [0, n) of t in pieces of grain; it returns when all are done.
func (p *pool) run(t task, n, grain int) {
	if n <= 0 {
		return
	}
	p.task, p.n, p.grain = t, n, max(grain, 1)
	p.next.Store(0)
	pieces := (n + p.grain - 1) / p.grain
	helpers := min(pieces, len(p.workers)) - 1
	p.done.Add(helpers)
	for i := range helpers {
		p.wake <- i + 1
	}
	p.work(&p.workers[0])
	p.done.Wait()
	p.task = nil
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
	close(p.wake)
	p.ended.Wait()
}

// grain is the number of rows of the given cost (about one per multiply-add) that make a piece worth waking a thread.
func grain(cost int) int { return max(1, 1<<15/max(cost, 1)) }
