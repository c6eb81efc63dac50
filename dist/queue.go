package dist

import "sync"

// queue without a bound: put never blocks, so that memberlist's callbacks and the readers of sockets may call it.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{} // has an item while the queue may have some
}

func newQueue[T any]() *queue[T] { return &queue[T]{ready: make(chan struct{}, 1)} }

func (q *queue[T]) put(x T) {
	q.mu.Lock()
	q.items = append(q.items, x)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// drain takes everything. Call it after ready.
func (q *queue[T]) drain() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	xs := q.items
	q.items = nil
	return xs
}
