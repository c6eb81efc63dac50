//go:build !cuda

package launch

// OpenGPUs opens the NVIDIA driver's library, which only a build with -tags cuda can.
func OpenGPUs() (GPUs, error) { return nil, ErrNotBuilt }
