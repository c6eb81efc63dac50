package dist

import (
	"cmp"
	"io"
	"sync"
)

// piece is how many floats move at a time: 512 KiB stay in cache between receive, add and send, and keep system calls few.
const piece = 128 << 10

// chunk c of n of a vector.
func chunk(v []float32, c, n int) []float32 {
	c = ((c % n) + n) % n
	return v[c*len(v)/n : (c+1)*len(v)/n]
}

// RingBytes is exactly how many bytes the given rank writes to its data connection in one all-reduce of n floats:
// 4·(2n − |chunk rank| − |chunk rank+1|). It reads RingBytes of its left neighbour.
func RingBytes(world, rank, n int) int64 {
	if world < 2 {
		return 0
	}
	size := func(c int) int64 { c %= world; return int64((c+1)*n/world - c*n/world) }
	return 4 * (2*int64(n) - size(rank) - size(rank+1))
}

// ringSum is the ring all-reduce without a ring: the same order of additions, for ranks in one process.
func ringSum(vs [][]float32) {
	n := len(vs)
	for c := range n {
		dst := chunk(vs[c], c, n)
		sum := append([]float32(nil), chunk(vs[(c+1)%n], c, n)...)
		for k := 2; k <= n && n > 1; k++ {
			add(sum, chunk(vs[(c+k)%n], c, n))
		}
		copy(dst, sum)
	}
	for c := range n {
		for _, v := range vs {
			copy(chunk(v, c, n), chunk(vs[c], c, n))
		}
	}
}

// add adds src to dst.
func add(dst, src []float32) {
	dst = dst[:len(src)]
	for len(src) >= 8 {
		d, s := dst[:8:8], src[:8:8]
		d[0] += s[0]
		d[1] += s[1]
		d[2] += s[2]
		d[3] += s[3]
		d[4] += s[4]
		d[5] += s[5]
		d[6] += s[6]
		d[7] += s[7]
		dst, src = dst[8:], src[8:]
	}
	for i, x := range src {
		dst[i] += x
	}
}

// ring is one rank's place in it: a stream to the right neighbour, one from the left.
type ring struct {
	rank, n int
	piece   int // floats
	right   io.Writer
	left    io.Reader
	scratch []float32                   // one piece
	broken  func(right bool, err error) // called when a stream fails; returns once both are closed
}

// allReduce sets v to the sum. What is received, in its order, is also what has to be sent on, after the first chunk:
// so the sender runs behind a count of finished floats.
func (g *ring) allReduce(v []float32) error {
	if g.n == 1 { // an elastic world that only one rank came to
		return nil
	}
	var send, recv [][]float32
	for s := range g.n - 1 {
		send = append(send, chunk(v, g.rank-s-1, g.n))
		recv = append(recv, chunk(v, g.rank-s-2, g.n))
	}
	for s := range g.n - 1 {
		send = append(send, chunk(v, g.rank-s, g.n))
		recv = append(recv, chunk(v, g.rank-s-1, g.n))
	}
	return g.run(send, recv, g.n-1, len(send[0]))
}

// broadcast passes root's v to the right, down to root's left neighbour.
func (g *ring) broadcast(v []float32, root int) error {
	var send, recv [][]float32
	ready := 0
	if (g.rank+1)%g.n != root {
		send = append(send, v)
	}
	if g.rank != root {
		recv = append(recv, v)
	} else {
		ready = len(v)
	}
	return g.run(send, recv, 0, ready)
}

// run receives the spans recv in order, adding to the first adds of them and setting the others, while it sends
// the spans send in order; of those the first ready floats may go at once, every further one as one was received.
func (g *ring) run(send, recv [][]float32, adds, ready int) error {
	tide := newTide(ready)
	sent := make(chan error, 1)
	go func() {
		err := g.sendAll(send, tide)
		if err != nil {
			tide.stop()
			g.broken(true, err)
		}
		sent <- err
	}()
	err := g.recvAdd(recv[:adds], tide)
	if err == nil {
		err = g.recvSet(recv[adds:], send[:adds], tide)
	}
	if err != nil {
		tide.stop()
		g.broken(false, err)
	}
	return cmp.Or(<-sent, err)
}

func (g *ring) sendAll(spans [][]float32, t *tide) error {
	for _, v := range spans {
		for len(v) > 0 {
			n, ok := t.take(min(g.piece, len(v)))
			if !ok {
				return nil
			}
			if err := writeFloats(g.right, v[:n]); err != nil {
				return err
			}
			t.gone(n)
			v = v[n:]
		}
	}
	return nil
}

// recvAdd adds what comes from the left to the spans.
func (g *ring) recvAdd(spans [][]float32, t *tide) error {
	for _, v := range spans {
		for len(v) > 0 {
			n := min(g.piece, len(v))
			if err := g.addNext(v[:n]); err != nil {
				return err
			}
			t.rise(n)
			v = v[n:]
		}
	}
	return nil
}

// addNext adds the next floats from the left to v.
func (g *ring) addNext(v []float32) error {
	if in, ok := g.left.(*sharedIn); ok && littleEndian() {
		return in.add(v)
	}
	if g.scratch == nil {
		g.scratch = make([]float32, g.piece)
	}
	if err := readFloats(g.left, g.scratch[:len(v)]); err != nil {
		return err
	}
	add(v, g.scratch[:len(v)])
	return nil
}

// recvSet sets the spans to what comes from the left. Span s has been sent before, as sent[s], while it was summed: it
// cannot come back finished before it went, but the call that sent it may not have returned yet.
func (g *ring) recvSet(spans, sent [][]float32, t *tide) error {
	gone := 0
	for s, v := range spans {
		for done := 0; done < len(v); {
			n := min(g.piece, len(v)-done)
			if s < len(sent) {
				t.waitGone(gone + done + n)
			}
			if err := readFloats(g.left, v[done:done+n]); err != nil {
				return err
			}
			t.rise(n)
			done += n
		}
		if s < len(sent) {
			gone += len(sent[s])
		}
	}
	return nil
}

// tide counts the floats that are ready to be sent, and those that have been.
type tide struct {
	mu      sync.Mutex
	change  sync.Cond
	level   int
	sent    int
	stopped bool
}

func newTide(level int) *tide {
	t := &tide{level: level}
	t.change.L = &t.mu
	return t
}

// take waits until any are ready and takes at most limit of them; not ok after stop.
func (t *tide) take(limit int) (n int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.level == 0 && !t.stopped {
		t.change.Wait()
	}
	n = min(limit, t.level)
	t.level -= n
	return n, !t.stopped
}

func (t *tide) rise(n int) {
	t.mu.Lock()
	t.level += n
	t.mu.Unlock()
	t.change.Broadcast()
}

func (t *tide) gone(n int) {
	t.mu.Lock()
	t.sent += n
	t.mu.Unlock()
	t.change.Broadcast()
}

func (t *tide) waitGone(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.sent < n && !t.stopped {
		t.change.Wait()
	}
}

func (t *tide) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.change.Broadcast()
}
