//go:build !cuda

package cuda

import (
	"fmt"

	"github.com/splora/splora/model/compute"
)

// Backend cannot be made in a program built without the cuda tag.
type Backend struct{ compute.Backend }

// Open says that the program was built without the cuda tag.
func Open(Config) (*Backend, error) {
	return nil, fmt.Errorf("cuda: %w: build with `go build -tags cuda` (eval \"$(.ci/cuda-env)\" finds CUDA's headers), or use --device cpu", ErrNotBuilt)
}

// Reserve is never reached, as are the methods below.
func (b *Backend) Reserve(int) error { return ErrNotBuilt }

// Seal: see the backend.
func (b *Backend) Seal() {}

// Room: see the backend.
func (b *Backend) Room() int { return 0 }

// Usage: see the backend.
func (b *Backend) Usage() (Usage, error) { return Usage{}, ErrNotBuilt }

// Stream: see the backend.
func (b *Backend) Stream() uintptr { return 0 }
