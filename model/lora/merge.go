package lora

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// MergeInto sets dst [out,in], in its storage type, to the merged weight: computed in float32 in the weight slot, then rounded
// once. SP-LoRA: M ⊙ (W + s·B·A), exactly +0 where M is 0. Plain LoRA: W + s·B·A, dense. Absent b, a: W itself.
func MergeInto(dev compute.Device, dst tensor.Tensor, w *sparse.Weight, b, a tensor.Tensor, s float32, method Method) {
	l := Linear{Name: "merge", W: w, Method: method, Scale: s, A: a, B: b}
	t := l.merged(dev, tensor.F32)
	if l.plain() {
		dev.Gemm(t, s, b, false, a, false, 1)
	}
	dev.Copy(dst, t)
	dev.Weight.Return(t)
}
