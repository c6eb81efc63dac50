//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda/internal/cublas"
	"github.com/splora/splora/model/compute/cuda/internal/driver"
)

// Backend computes on one GPU. One goroutine owns it, which Open locks to its thread.
type Backend struct {
	config  Config
	q       *driver.Queue
	name    string
	number  int // of multiprocessors
	shared  int // bytes of shared memory that a block may ask for
	modules map[string]cu.Module
	kernels map[kernelKey]*kernel
	lib     *cublas.Library
	blas    *cublas.Handle
	mem     arena
	scratch scratch
	staging staging
	recent  recent
	prof    *profile
	err     error // the first failure
}

var (
	_ compute.Backend = (*Backend)(nil)
	_ compute.Planned = (*Backend)(nil)
)

// Open starts the backend on a GPU: context, kernels, cuBLAS. The calling goroutine is locked to its thread until Close.
func Open(c Config) (b *Backend, err error) {
	d, err := find(c.Device)
	if err != nil {
		return nil, err
	}
	b = &Backend{config: c, modules: map[string]cu.Module{}, kernels: map[kernelKey]*kernel{}}
	if b.lib, err = cublas.Load(c.CUBLAS, append(slices.Clone(c.Libraries), folders()...)); err != nil {
		return nil, fmt.Errorf("cuda: %w; or use --device cpu", err)
	}
	runtime.LockOSThread()
	if b.q, err = driver.Open(d); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("cuda:%d: %w", c.Device, err)
	}
	if err = b.start(d); err != nil {
		return nil, errors.Join(fmt.Errorf("cuda:%d: %w", c.Device, err), b.Close())
	}
	return b, nil
}

// find gives the device, or says what is missing.
func find(n int) (cu.Device, error) {
	const cpu = "or use --device cpu"
	switch why, err := driver.Init(); {
	case errors.Is(err, driver.NoLibrary):
		return 0, fmt.Errorf("cuda: %w: %s; install the driver, %s", ErrNoDriver, why, cpu)
	case errors.Is(err, driver.NoDevice):
		return 0, fmt.Errorf("cuda: %w: the driver finds none (look at CUDA_VISIBLE_DEVICES and nvidia-smi), %s", ErrNoDevice, cpu)
	case err != nil:
		return 0, fmt.Errorf("cuda: %w: it does not start: %w; look at nvidia-smi, %s", ErrNoDriver, err, cpu)
	}
	count, err := cu.NumDevices()
	if err != nil || count == 0 {
		return 0, fmt.Errorf("cuda: %w: the driver finds none (look at CUDA_VISIBLE_DEVICES and nvidia-smi), %s", ErrNoDevice, cpu)
	}
	if n < 0 || n >= count {
		return 0, fmt.Errorf("cuda: %w with number %d: this process sees %d, from 0", ErrNoDevice, n, count)
	}
	d, err := cu.GetDevice(n)
	if err != nil {
		return 0, fmt.Errorf("cuda:%d: %w", n, err)
	}
	major, minor, err := d.ComputeCapability()
	if err == nil {
		err = able(driver.Version(), major, minor)
	}
	if err != nil {
		return 0, fmt.Errorf("cuda:%d: %w, %s", n, err, cpu)
	}
	return d, nil
}

// able reports what a driver's CUDA version, or a GPU's compute capability, is too old for.
func able(version, major, minor int) error {
	switch {
	case major < 8:
		return fmt.Errorf("compute capability %d.%d; splora's kernels need 8.0 (Ampere) or later: take another GPU", major, minor)
	case version < 11080:
		return fmt.Errorf("the driver is for CUDA %d.%d, and splora's kernels need 11.8 or later: update the driver to 520 or later", version/1000, version%1000/10)
	}
	return nil
}

// start does what needs the context.
func (b *Backend) start(d cu.Device) (err error) {
	if b.number, err = d.Attribute(cu.MultiprocessorCount); err != nil {
		return err
	}
	const perBlockOptIn = 97 // CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
	if b.shared, err = d.Attribute(perBlockOptIn); err != nil {
		return err
	}
	if err := b.load(); err != nil {
		return err
	}
	if b.staging, err = newStaging(b.q); err != nil {
		return fmt.Errorf("pinned memory: %w", err)
	}
	free, total, err := b.q.Memory()
	if err != nil {
		return err
	}
	b.mem = arena{q: b.q, before: total - free}
	if err := b.Reserve(b.config.Own()); err != nil {
		return err
	}
	if err := b.startBLAS(); err != nil {
		return err
	}
	b.scratch = newScratch(b)
	b.mem.own = b.mem.used
	b.name, err = b.describe(d, total)
	return errors.Join(err, b.err)
}

// startBLAS starts cuBLAS, and measures what it takes for itself.
func (b *Backend) startBLAS() error {
	space := b.Alloc(b.config.workspace())
	if b.err != nil {
		return b.err
	}
	before, _, err := b.q.Memory()
	if err != nil {
		return err
	}
	err = b.q.Do(func() (err error) {
		b.blas, err = b.lib.Start(b.q.Handle(), space.Device, b.config.workspace())
		return err
	})
	if err != nil {
		return err
	}
	after, _, err := b.q.Memory()
	b.mem.library = before - after
	return err
}

func (b *Backend) describe(d cu.Device, total int) (string, error) {
	name, err := d.Name()
	if err != nil {
		return "", err
	}
	major, minor, err := d.ComputeCapability()
	v, l := driver.Version(), b.blas.Version
	return fmt.Sprintf("cuda:%d (%s, %.1f GiB, compute capability %d.%d, driver for CUDA %d.%d, cuBLAS %d.%d.%d)", b.config.Device, name,
		float64(total)/(1<<30), major, minor, v/1000, v%1000/10, l/10000, l/100%100, l%100), err
}

// Name says what was detected.
func (b *Backend) Name() string { return b.name }

// Stream is the CUstream that all work is queued on: for collectives that must come in order with it.
func (b *Backend) Stream() uintptr { return b.q.Handle() }

// Done reports whether all that was queued is done, and never waits. It may be called on any thread.
func (b *Backend) Done() (bool, error) { return b.q.Done() }

// Sync waits for all that was queued, and reports the first failure.
func (b *Backend) Sync() error {
	if b.err == nil {
		b.fail("wait", b.q.Wait())
	}
	b.recent = recent{}
	return b.err
}

// fail keeps the first failure. One that comes later than the operation that caused it says what was queued last.
func (b *Backend) fail(op string, err error) {
	if err == nil || b.err != nil {
		return
	}
	if list := b.recent.String(); op == "wait" && list != "" {
		b.err = fmt.Errorf("cuda:%d: %w; it happened in one of the last operations: %s", b.config.Device, err, list)
		return
	}
	b.err = fmt.Errorf("cuda:%d: %s: %w", b.config.Device, op, err)
}

// Close waits, and gives everything back to the driver.
func (b *Backend) Close() error {
	var err error
	if b.blas != nil {
		err = b.q.Do(b.blas.Close)
	}
	err = errors.Join(err, b.prof.close(b.q), b.staging.close(b.q), b.mem.close(), b.q.Close())
	runtime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("cuda:%d: closing: %w", b.config.Device, err)
	}
	return nil
}
