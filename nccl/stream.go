package nccl

import "fmt"

// Driver is libcuda.so.1, opened for the one call without which no collective's end can be seen.
type Driver struct{ abi driverABI }

// driverABI is what crosses to C.
type driverABI interface {
	streamQuery(stream uintptr) int
	errorName(code int) string
}

// CUresult of cuStreamQuery.
const (
	cudaSuccess  = 0
	cudaNotReady = 600
)

// OpenDriver opens the CUDA driver's library; path "" is the loader's libcuda.so.1.
func OpenDriver(path string) (*Driver, error) {
	if path == "" {
		path = "libcuda.so.1"
	}
	a, err := dlopenDriver(path)
	if err != nil {
		return nil, fmt.Errorf("nccl: the CUDA driver: %w", err)
	}
	return &Driver{a}, nil
}

// StreamQuery tells whether a stream has done all that was queued on it. An error is the stream's, and lasts: of a kernel
// that failed, of a GPU that is gone. Call it on a thread to which the stream's context is bound.
func (d *Driver) StreamQuery(stream uintptr) (done bool, err error) {
	switch code := d.abi.streamQuery(stream); code {
	case cudaSuccess:
		return true, nil
	case cudaNotReady:
		return false, nil
	default:
		return false, fmt.Errorf("nccl: cuStreamQuery: %s (%d)", d.abi.errorName(code), code)
	}
}
