//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/tensor"
)

// kernelKey names a kernel without building its name: add and F32 are add_f32, gather, F32 and BF16 are gather_f32_bf16.
type kernelKey struct {
	op    string
	types int
	t, s  tensor.DType
}

// kernel is a function of a module that is loaded.
type kernel struct {
	name   string
	f      cu.Function
	shared int // the dynamic shared memory that it may have
}

func (k kernelKey) name() string {
	short := [...]string{tensor.F32: "f32", tensor.BF16: "bf16", tensor.F16: "f16"}
	switch k.types {
	case 1:
		return k.op + "_" + short[k.t]
	case 2:
		return k.op + "_" + short[k.t] + "_" + short[k.s]
	}
	return k.op
}

// load loads all modules: their code is in place before memory is measured.
func (b *Backend) load() error {
	for _, name := range kernels.Modules {
		m, err := b.q.Module(kernels.PTX(name))
		if err != nil {
			return fmt.Errorf("kernels %s: %w", name, err)
		}
		b.modules[name] = m
	}
	return nil
}

// kernel finds a kernel, the first time by its name, and lets it have so much dynamic shared memory.
func (b *Backend) kernel(module string, key kernelKey, shared int) (*kernel, error) {
	k := b.kernels[key]
	if k == nil {
		k = &kernel{name: key.name(), shared: 48 << 10}
		err := b.q.Do(func() (err error) {
			k.f, err = b.modules[module].Function(k.name)
			return err
		})
		if err != nil {
			return k, fmt.Errorf("module %s: %w", module, err)
		}
		b.kernels[key] = k
	}
	if shared <= k.shared {
		return k, nil
	}
	if err := shares(shared, b.shared); err != nil {
		return k, err
	}
	k.shared = shared
	return k, b.q.Share(k.f, shared)
}

// shares reports whether a block can have so much of a multiprocessor's shared memory.
func shares(n, most int) error {
	if n > most {
		return fmt.Errorf("%d bytes of shared memory are needed, and this GPU gives a block at most %d: heads this large need a data center's GPU, or --device cpu", n, most)
	}
	return nil
}

func op1(op string, t tensor.Tensor) kernelKey { return kernelKey{op: op, types: 1, t: t.DType} }
func op2(op string, t, s tensor.Tensor) kernelKey {
	return kernelKey{op: op, types: 2, t: t.DType, s: s.DType}
}

// sweep queues an elementwise kernel over n elements.
func (b *Backend) sweep(module string, k kernelKey, n int, args ...uint64) {
	if n > 0 {
		b.launch(module, k, [3]int{kernels.Sweep(n, b.number), 1, 1}, kernels.Threads, 0, args...)
	}
}

// rows queues a kernel of one block for each of n rows.
func (b *Backend) rows(module string, k kernelKey, n, threads int, args ...uint64) {
	if n > 0 {
		b.launch(module, k, [3]int{n, 1, 1}, threads, 0, args...)
	}
}

func (b *Backend) launch(module string, k kernelKey, grid [3]int, threads, shared int, args ...uint64) {
	if b.err != nil {
		return
	}
	f, err := b.kernel(module, k, shared)
	if err != nil {
		b.fail(f.name, err)
		return
	}
	b.queue(f.name, func() error { return b.q.Launch(f.f, grid, [3]int{threads, 1, 1}, shared, args...) })
}

// queue does one thing that may fail, timed if asked, waited for if asked.
func (b *Backend) queue(op string, f func() error) {
	if b.err != nil {
		return
	}
	b.recent.add(op)
	b.fail(op, b.prof.begin(b.q, op))
	b.fail(op, f())
	b.fail(op, b.prof.end(b.q))
	if b.config.Blocking && b.err == nil {
		b.fail(op, b.q.Wait())
	}
}

// Arguments fill eight bytes each.

func ptr(t tensor.Tensor) uint64 { return uint64(t.Mem.Device) }
func num(n int) uint64           { return uint64(n) }
func f32(x float32) uint64       { return uint64(math.Float32bits(x)) }

// recent are the operations queued last.
type recent struct {
	names [8]string
	n     int
}

func (r *recent) add(op string) {
	r.names[r.n%len(r.names)] = op
	r.n++
}

func (r *recent) String() string {
	var list []string
	for i := max(0, r.n-len(r.names)); i < r.n; i++ {
		list = append(list, r.names[i%len(r.names)])
	}
	slices.Reverse(list)
	return strings.Join(list, ", ")
}
