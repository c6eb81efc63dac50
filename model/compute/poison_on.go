//go:build invariants

package compute

import (
	"math"

	"github.com/splora/splora/model/tensor"
)

// poison fills returned memory with NaN, so that whoever reads it without having set it is seen.
func poison(t tensor.Tensor) {
	switch {
	case t.Mem.Host == nil:
	case t.DType == tensor.F32:
		for i, v := 0, t.Float32(); i < len(v); i++ {
			v[i] = float32(math.NaN())
		}
	case t.DType == tensor.BF16:
		for i, v := 0, t.Uint16(); i < len(v); i++ {
			v[i] = tensor.ToBF16(float32(math.NaN()))
		}
	}
}
