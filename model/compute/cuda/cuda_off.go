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

// Stream is never reached.
func (b *Backend) Stream() uintptr { return 0 }

// Done is never reached.
func (b *Backend) Done() (bool, error) { return true, ErrNotBuilt }
