//go:build cuda

// Package driver is the part of the CUDA driver API that the backend uses: gorgonia.org/cu's package-level calls, and beside
// them what cu lacks (attributes of functions, pinned memory, the JIT's messages) or does slowly (launches).
//
// A Queue is one stream of a device's primary context. Its calls bind the context to the thread they run on when that is
// another one than before, so they may be made on any thread, one at a time.
package driver

// #include "queue.h"
// #include <stdlib.h>
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute/cuda/internal/libcuda"
)

// Code is a CUresult other than success.
type Code int

// Codes that callers tell apart.
const (
	NoLibrary Code = libcuda.NoLibrary
	NoDevice  Code = libcuda.NoDevice
	NoMemory  Code = 2
	notReady  Code = 600
)

func (c Code) Error() string {
	if c == NoLibrary {
		return "libcuda.so.1 cannot be opened"
	}
	var name, text *C.char
	if C.cuGetErrorName(C.CUresult(c), &name) != 0 || name == nil || C.cuGetErrorString(C.CUresult(c), &text) != 0 || text == nil {
		return fmt.Sprintf("CUDA error %d", int(c))
	}
	return fmt.Sprintf("%s (%d): %s", C.GoString(name), int(c), C.GoString(text))
}

func code(rc C.CUresult) error {
	if rc == 0 {
		return nil
	}
	return Code(rc)
}

// Init is the driver's state: nil when it can be used. why is what the loader said about a missing library.
func Init() (why string, err error) {
	rc, why := libcuda.Status()
	return why, code(C.CUresult(rc))
}

// Version is the driver's CUDA version, 12040 for 12.4.
func Version() int { return cu.Version() }

// Queue is one stream of a device.
type Queue struct {
	Device cu.Device
	Stream cu.Stream
	q      *C.splora_queue
}

// Open retains the device's primary context, and makes a stream in it.
func Open(d cu.Device) (*Queue, error) {
	ctx, err := d.RetainPrimaryCtx()
	if err != nil {
		return nil, fmt.Errorf("cuDevicePrimaryCtxRetain: %w", err)
	}
	q := &Queue{Device: d, q: C.splora_queue_new(*(*C.CUcontext)(unsafe.Pointer(&ctx)))}
	err = q.Do(func() (err error) {
		q.Stream, err = cu.MakeStream(cu.NonBlocking)
		return err
	})
	if err != nil {
		C.free(unsafe.Pointer(q.q))
		return nil, errors.Join(fmt.Errorf("cuStreamCreate: %w", err), d.ReleasePrimaryCtx())
	}
	q.q.stream = C.CUstream(unsafe.Pointer(q.Stream.C()))
	return q, nil
}

// Close waits for the stream and gives the context back.
func (q *Queue) Close() error {
	err := q.Do(func() error {
		return errors.Join(code(C.splora_wait(q.q)), q.Stream.Destroy())
	})
	C.free(unsafe.Pointer(q.q))
	q.q = nil
	return errors.Join(err, q.Device.ReleasePrimaryCtx())
}

// Do calls f on a thread to which the context is bound: for calls of cu itself.
func (q *Queue) Do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := code(C.splora_bind(q.q)); err != nil {
		return err
	}
	return f()
}

// Handle is the CUstream.
func (q *Queue) Handle() uintptr { return uintptr(unsafe.Pointer(q.Stream.C())) }

// Launch queues a kernel. Each argument fills eight bytes, of which the kernel takes as many as its parameter has.
func (q *Queue) Launch(f cu.Function, grid, block [3]int, shared int, args ...uint64) error {
	if len(args) > C.SPLORA_ARGS {
		panic(fmt.Sprintf("driver: a kernel with %d arguments", len(args)))
	}
	for i, a := range args {
		q.q.slot[i] = C.uint64_t(a)
	}
	return code(C.splora_launch(q.q, *(*C.CUfunction)(unsafe.Pointer(&f)), C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]),
		C.uint(block[0]), C.uint(block[1]), C.uint(block[2]), C.uint(shared)))
}

// Set sets n elements of the given size (1, 2 or 4 bytes) to v's low bytes.
func (q *Queue) Set(dst uintptr, v uint32, size, n int) error {
	return code(C.splora_set(q.q, C.CUdeviceptr(dst), C.uint32_t(v), C.int(size), C.size_t(n)))
}

// To queues a copy from pinned memory, From one to it, Copy one on the device.
func (q *Queue) To(dst uintptr, src []byte) error {
	return code(C.splora_to(q.q, C.CUdeviceptr(dst), unsafe.Pointer(&src[0]), C.size_t(len(src))))
}

func (q *Queue) From(dst []byte, src uintptr) error {
	return code(C.splora_from(q.q, unsafe.Pointer(&dst[0]), C.CUdeviceptr(src), C.size_t(len(dst))))
}

func (q *Queue) Copy(dst, src uintptr, n int) error {
	return code(C.splora_copy(q.q, C.CUdeviceptr(dst), C.CUdeviceptr(src), C.size_t(n)))
}

// Wait waits for all that was queued.
func (q *Queue) Wait() error { return code(C.splora_wait(q.q)) }

// Done reports whether all that was queued is done.
func (q *Queue) Done() (bool, error) {
	switch rc := Code(C.splora_query(q.q)); rc {
	case 0:
		return true, nil
	case notReady:
		return false, nil
	default:
		return false, rc
	}
}

// Alloc gives n bytes of device memory; Free gives them back.
func (q *Queue) Alloc(n int) (at uintptr, err error) {
	err = q.Do(func() error {
		p, err := cu.MemAlloc(int64(n))
		at = uintptr(p)
		if errors.Is(err, cu.OutOfMemory) {
			return NoMemory
		}
		return err
	})
	return at, err
}

func (q *Queue) Free(at uintptr) error {
	return q.Do(func() error { return cu.MemFree(cu.DevicePtr(at)) })
}

// Memory is the device's free and total memory, in bytes.
func (q *Queue) Memory() (free, total int, err error) {
	err = q.Do(func() error {
		f, t, err := cu.MemInfo()
		free, total = int(f), int(t)
		return err
	})
	return free, total, err
}

// Pinned gives n bytes of host memory that the device copies from and to by itself.
func (q *Queue) Pinned(n int) (b []byte, err error) {
	err = q.Do(func() error {
		var p unsafe.Pointer
		rc := C.cuMemHostAlloc(&p, C.size_t(n), 0)
		if rc == 0 {
			b = unsafe.Slice((*byte)(p), n)
		}
		return code(rc)
	})
	return b, err
}

// Unpin frees what Pinned gave.
func (q *Queue) Unpin(b []byte) error {
	return q.Do(func() error { return cu.MemFreeHost(unsafe.Pointer(&b[0])) })
}

// BusID is the device's PCI address, as NVML and nvidia-smi show it.
func BusID(d cu.Device) string {
	var b [32]C.char
	if C.cuDeviceGetPCIBusId(&b[0], C.int(len(b)), C.CUdevice(d)) != 0 {
		return ""
	}
	return C.GoString(&b[0])
}
