// Package cuda is the NVIDIA backend: every operation of compute.Backend as kernels of package kernels, queued on one stream, and
// cuBLAS for the matrix products; the forward product of a 2:4 weight may be the sparse tensor cores' (Config.SparseCores).
//
// One idea carries it: memory is one arena, cut before step 0 and never freed, and all work is queued on one stream in call
// order. So the weight slot can be reused without waiting, and nothing is allocated while a run goes on.
//
// It is compiled with the cuda build tag, over gorgonia.org/cu; neither the driver nor cuBLAS is linked: both are opened when the
// program runs, and Open says what is missing. Without the tag Open says that.
package cuda

import "errors"

// What may stand in the way of Open. They are told apart by errors.Is; the error itself has the reason and what to do.
var (
	ErrNotBuilt = errors.New("this program was built without -tags cuda")
	ErrNoDriver = errors.New("no NVIDIA driver")
	ErrNoDevice = errors.New("no NVIDIA GPU")
)

// align is what every piece of device memory is a multiple of, in bytes.
const align = 256

// Config of a backend.
type Config struct {
	// Device is the GPU's number among those visible to the process.
	Device int
	// CUBLAS is the path of libcublas.so; "": the newest one where the loader looks, then in Libraries, then where CUDA's toolkit and
	// the wheels of this machine's Pythons put it.
	CUBLAS string
	// Libraries are folders to look in for libcublas.so.13, .12, .11.
	Libraries []string
	// Workspace is cuBLAS's, in bytes; 0: 32 MiB, what NVIDIA advises for Hopper.
	Workspace int
	// SparseCores has the forward product of a 2:4 weight with bfloat16 activations done by the sparse tensor cores (--memory fused). It has
	// not been measured on a GPU, so it is off by default.
	SparseCores bool
	// Blocking waits for every operation, so that a fault names the one that failed. It is slow.
	Blocking bool
}

// Time is the device time of one operation.
type Time struct {
	Op      string
	Calls   int
	Seconds float64
}
