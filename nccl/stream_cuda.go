//go:build cuda

package nccl

/*
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static int call_stream_query(void *f, uintptr_t stream) { return ((int (*)(void *))f)((void *)stream); }
static const char *call_error_name(void *f, int code) {
	const char *name = 0;
	return ((int (*)(int, const char **))f)(code, &name) == 0 && name ? name : "unknown error";
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

type driverTable struct{ query, name unsafe.Pointer }

func dlopenDriver(path string) (driverABI, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	handle := C.dlopen(p, C.RTLD_NOW|C.RTLD_LOCAL)
	if handle == nil {
		return nil, errors.New(C.GoString(C.dlerror()))
	}
	look := func(symbol string) unsafe.Pointer {
		s := C.CString(symbol)
		defer C.free(unsafe.Pointer(s))
		return C.dlsym(handle, s)
	}
	t := driverTable{look("cuStreamQuery"), look("cuGetErrorName")}
	if t.query == nil || t.name == nil {
		return nil, fmt.Errorf("%s has no cuStreamQuery, or no cuGetErrorName", path)
	}
	return t, nil
}

func (t driverTable) streamQuery(stream uintptr) int {
	return int(C.call_stream_query(t.query, C.uintptr_t(stream)))
}

func (t driverTable) errorName(code int) string {
	return C.GoString(C.call_error_name(t.name, C.int(code)))
}
