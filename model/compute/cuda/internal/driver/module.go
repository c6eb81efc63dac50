//go:build cuda

package driver

// #include "queue.h"
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// Module loads PTX that ends in a zero byte; an error carries what the driver's compiler says.
func (q *Queue) Module(ptx []byte) (m cu.Module, err error) {
	err = q.Do(func() error {
		text := C.CBytes(ptx)
		defer C.free(text)
		const size = 8192
		log := (*C.char)(C.calloc(1, size))
		defer C.free(unsafe.Pointer(log))
		options := (*[2]C.CUjit_option)(C.calloc(2, C.sizeof_CUjit_option))
		defer C.free(unsafe.Pointer(options))
		values := (*[2]unsafe.Pointer)(C.calloc(2, C.sizeof_uintptr_t))
		defer C.free(unsafe.Pointer(values))
		options[0], values[0] = C.CU_JIT_ERROR_LOG_BUFFER, unsafe.Pointer(log)
		options[1] = C.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
		*(*uintptr)(unsafe.Pointer(&values[1])) = size // a number in a pointer's place
		rc := C.cuModuleLoadDataEx((*C.CUmodule)(unsafe.Pointer(&m)), text, 2, &options[0], &values[0])
		if rc != 0 {
			return fmt.Errorf("%w %s", Code(rc), strings.TrimSpace(C.GoString(log)))
		}
		return nil
	})
	return m, err
}

// Share lets a kernel use n bytes of dynamic shared memory, which is needed beyond 48 KiB.
func (q *Queue) Share(f cu.Function, n int) error {
	return q.Do(func() error {
		return code(C.cuFuncSetAttribute(*(*C.CUfunction)(unsafe.Pointer(&f)), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(n)))
	})
}
