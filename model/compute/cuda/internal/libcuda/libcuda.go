//go:build cuda

// Package libcuda lets a program that is linked against the CUDA driver start on a machine that has none.
//
// One idea carries it: the package itself defines every cu… function that gorgonia.org/cu and this project call, as a jump
// through a table. A constructor, which runs before any Go init, opens libcuda.so.1 and fills the table. So the linker
// needs no libcuda, the loader asks for none, and a missing driver is an error that Status reports.
//
// It must be imported by every package that imports cu, and asked before any call of cu.
package libcuda

// #cgo LDFLAGS: -L${SRCDIR}/stub -Wl,--as-needed -ldl
// extern int splora_cu_rc;
// extern char splora_cu_why[512];
import "C"

//go:generate go run gen.go

// Results of cuInit that Status gives besides the driver's own.
const (
	NoLibrary = 34  // libcuda.so.1 could not be opened
	NoDevice  = 100 // CUDA_ERROR_NO_DEVICE
)

// Status is the result of cuInit, 0 when the driver can be used, and what the loader said where it has no driver.
func Status() (rc int, why string) {
	return int(C.splora_cu_rc), C.GoString(&C.splora_cu_why[0])
}
