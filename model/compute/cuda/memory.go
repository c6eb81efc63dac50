//go:build cuda

package cuda

import (
	"errors"
	"fmt"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/internal/driver"
	"github.com/splora/splora/model/tensor"
)

// chunk is the least that is allocated at a time without Reserve.
const chunk = 32 << 20

// arena is device memory that is given out once and freed at Close.
type arena struct {
	q       *driver.Queue
	chunks  []uintptr
	at, end uintptr // what is free of the last chunk
	all     int     // in chunks
	used    int
	before  int // in use when the backend had started
	library int // what cuBLAS took
	own     int // given out to the backend itself
	sealed  bool
}

// Reserve allocates n bytes at once, from which Alloc then cuts: what the plan of a run says, so that it is one allocation.
func (b *Backend) Reserve(n int) error {
	if b.err != nil {
		return b.err
	}
	err := b.mem.grow(n)
	if errors.Is(err, driver.NoMemory) {
		free, total, _ := b.q.Memory()
		return fmt.Errorf("cuda:%d: %d bytes are planned, and the GPU has %d free of %d: end what else runs on it, or lower --micro-batch, --seq or --rank (splora plan tells what a run needs)", b.config.Device, n, free, total)
	}
	b.fail("allocating", err)
	return b.err
}

func (m *arena) grow(n int) error {
	n = (n + align - 1) &^ (align - 1)
	at, err := m.q.Alloc(n)
	if err != nil {
		return err
	}
	m.chunks = append(m.chunks, at)
	m.at, m.end, m.all = at, at+uintptr(n), m.all+n
	return m.q.Set(at, 0, 1, n)
}

// Alloc gives n zeroed bytes. After Seal it panics.
func (b *Backend) Alloc(n int) tensor.Mem {
	m := &b.mem
	if m.sealed {
		panic(fmt.Sprintf("cuda: %d bytes are allocated after the plan was sealed", n))
	}
	n = max(align, (n+align-1)&^(align-1))
	if b.err == nil && m.end-m.at < uintptr(n) {
		b.fail("allocating", m.grow(max(n, chunk)))
	}
	if b.err != nil {
		return tensor.Mem{Device: align} // never touched: the failure sticks
	}
	at := m.at
	m.at, m.used = at+uintptr(n), m.used+n
	return tensor.Mem{Device: at}
}

// Seal ends the time of allocations: from here on Alloc is a bug.
func (b *Backend) Seal() { b.mem.sealed = true }

// Align is the size that every piece of Alloc is rounded up to a multiple of.
func (b *Backend) Align() int { return align }

// Usage is the device's memory as it stands.
func (b *Backend) Usage() (compute.Usage, error) {
	free, total, err := b.q.Memory()
	m := &b.mem
	return compute.Usage{Total: total, Free: free, Before: m.before, Library: m.library, Own: m.own, Arena: m.all, Used: m.used}, err
}

func (m *arena) close() (err error) {
	for _, at := range m.chunks {
		err = errors.Join(err, m.q.Free(at))
	}
	return err
}

// Upload sets dst from host memory, which may be reused when it returns.
func (b *Backend) Upload(dst tensor.Tensor, src []byte) {
	if len(src) != dst.Bytes() {
		panic(fmt.Sprintf("cuda: upload of %d bytes to %s", len(src), dst))
	}
	at := dst.Mem.Device
	for len(src) > 0 && b.err == nil {
		piece, err := b.staging.next(b.q, min(len(src), half))
		n := copy(piece, src)
		if err == nil {
			b.queue("upload", func() error { return b.q.To(at, piece[:n]) })
		}
		b.fail("upload", err)
		src, at = src[n:], at+uintptr(n)
	}
}

// Download sets host memory from src and waits for it. After a failure dst is left as it is.
func (b *Backend) Download(dst []byte, src tensor.Tensor) {
	if len(dst) != src.Bytes() {
		panic(fmt.Sprintf("cuda: download of %s to %d bytes", src, len(dst)))
	}
	at := src.Mem.Device
	for len(dst) > 0 && b.err == nil {
		piece, err := b.staging.next(b.q, min(len(dst), half))
		if err == nil {
			b.queue("download", func() error { return b.q.From(piece, at) })
			err = b.Sync()
		}
		b.fail("download", err)
		if b.err == nil {
			copy(dst, piece)
		}
		dst, at = dst[len(piece):], at+uintptr(len(piece))
	}
}
