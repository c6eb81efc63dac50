//go:build cuda

package cuda

import (
	"fmt"

	"github.com/splora/splora/model/tensor"
)

// want panics unless t is a device tensor of the given type and shape; a wrong one is our own bug.
func want(op, name string, t tensor.Tensor, dt tensor.DType, rows, cols int) {
	if t.DType != dt || t.Rows != rows || t.Cols != cols || t.Len() > 0 && (t.Mem.Device == 0 || t.Mem.Host != nil) {
		where := "on the device"
		if t.Mem.Device == 0 {
			where = "not on the device"
		}
		panic(fmt.Sprintf("cuda: %s: %s is %s, %s; want %s[%d,%d] on the device", op, name, t, where, dt, rows, cols))
	}
}

// wantLen is want where only the number of elements counts.
func wantLen(op, name string, t tensor.Tensor, dt tensor.DType, n int) {
	want(op, name, t.Reshape(1, t.Len()), dt, 1, n)
}

// wantFloat panics unless t holds floats of some width.
func wantFloat(op, name string, t tensor.Tensor, rows, cols int) {
	if t.DType != tensor.F32 && t.DType != tensor.BF16 && t.DType != tensor.F16 {
		panic(fmt.Sprintf("cuda: %s: %s is %s, want floats", op, name, t))
	}
	want(op, name, t, t.DType, rows, cols)
}

// wantAct panics unless t is of a type that activations have.
func wantAct(op, name string, t tensor.Tensor) {
	if t.DType != tensor.F32 && t.DType != tensor.BF16 {
		panic(fmt.Sprintf("cuda: %s: %s is %s, want float32 or bfloat16", op, name, t))
	}
}
