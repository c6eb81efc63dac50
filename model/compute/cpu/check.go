package cpu

import (
	"fmt"

	"github.com/splora/splora/model/tensor"
)

// want panics unless t is a host tensor of the given type and shape; a wrong one is our own bug.
func want(op, name string, t tensor.Tensor, dt tensor.DType, rows, cols int) {
	if t.DType != dt || t.Rows != rows || t.Cols != cols || len(t.Mem.Host) < t.Bytes() {
		panic(fmt.Sprintf("cpu: %s: %s is %s with %d host bytes, want %s[%d,%d]", op, name, t, len(t.Mem.Host), dt, rows, cols))
	}
}

// wantLen is want for operations over flat memory: only the number of elements counts.
func wantLen(op, name string, t tensor.Tensor, dt tensor.DType, n int) {
	want(op, name, tensor.Tensor{DType: t.DType, Rows: 1, Cols: t.Len(), Mem: t.Mem}, dt, 1, n)
}

// wantFloat panics unless t holds floats of some width.
func wantFloat(op, name string, t tensor.Tensor, rows, cols int) {
	if t.DType != tensor.F32 && t.DType != tensor.BF16 && t.DType != tensor.F16 {
		panic(fmt.Sprintf("cpu: %s: %s is %s, want floats", op, name, t))
	}
	want(op, name, t, t.DType, rows, cols)
}
