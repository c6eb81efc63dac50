// Package lora is the masked linear layer and its adapters.
//
//	W̃ = M ⊙ (W + s·B·A)      y = x·W̃ᵀ + bias          s = α/r   (rsLoRA: α/√r)
//	dx = dy·W̃      G = M ⊙ (dyᵀ·x)      dA = s·Bᵀ·G      dB = s·G·Aᵀ
//	x [N,in]  y [N,out]  W, M, W̃, G [out,in]  A [r,in]  B [out,r]
//
// W is immutable, M is data, W̃ is scratch: it stands in the one weight slot of the device only while it is used; dense,
// or packed where the products walk the kept weights alone.
//
// x, y, dx, dy, and with them W̃ and G, are F32 or BF16. Adapters, their gradients and moments are F32 in any case, and W̃ is merged
// from them in float32; the products that take A and B as operands beside BF16 take a BF16 copy of them, Adapters.Half.
package lora

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// Method says how an adapter enters a layer.
type Method uint8

// Methods.
const (
	SPLoRA Method = iota // y = x·(M ⊙ (W + s·B·A))ᵀ: the exact masked merge
	LoRA                 // y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ: the merged model is dense
)

// Linear is one frozen linear layer, with an adapter if A is present.
type Linear struct {
	Name   string // "model.layers.0.self_attn.q_proj"
	W      *sparse.Weight
	Bias   tensor.Tensor // F32 [1,out] or absent
	Method Method
	Scale  float32
	// A [r,in], B [out,r] and their gradients are windows into the flat vectors of Adapters; absent: frozen only.
	A, B, DA, DB tensor.Tensor
	// A16, B16 are the windows of A and B into Half: what multiplies BF16 activations and G.
	A16, B16 tensor.Tensor
	// Kept walks the kept weights alone, where the device offers that and expects it to be faster (compute.SparseLinear); otherwise, and
	// without Kept, the products go through the merged weight in the slot.
	Kept bool
	// Drop drops inputs of plain LoRA's path; the zero Dropout drops none.
	Drop Dropout
}

// Dropout is one layer's dropout in one step: D(x) = x ⊙ m/(1−P). Forward, recomputation and backward find the same m.
type Dropout struct {
	P    float32
	Seed uint64        // of this layer and step
	IDs  tensor.Tensor // I32 [1,N]: which row of the data each row of x is
}

// Adapted reports whether the layer has an adapter.
func (l *Linear) Adapted() bool { return !l.A.Absent() }

func (l *Linear) plain() bool { return l.Adapted() && l.Method == LoRA }

// inMerge is what W̃ has of the adapter: B, A, s, or nothing where the adapter has a path of its own or there is none.
func (l *Linear) inMerge() (b, a tensor.Tensor, s float32) {
	if l.Adapted() && l.Method == SPLoRA {
		return l.B, l.A, l.Scale
	}
	return
}

// factors are A and B as operands beside x.
func (l *Linear) factors(x tensor.Tensor) (a, b tensor.Tensor) {
	if x.DType == tensor.BF16 {
		if l.A16.Absent() {
			panic("lora: " + l.Name + " gets bfloat16 activations, and its adapters have no Half")
		}
		return l.A16, l.B16
	}
	return l.A, l.B
}

// merged leases the slot for W̃ in the given type.
func (l *Linear) merged(dev compute.Device, dt tensor.DType) tensor.Tensor {
	w := l.slot(dev, dt)
	b, a, s := l.inMerge()
	dev.Merge(w, l.W, b, a, s)
	return w
}

func (l *Linear) slot(dev compute.Device, dt tensor.DType) tensor.Tensor {
	return dev.Weight.Lease(l.Name, dt, l.W.Out, l.W.In)
}

// walker is the device's way over the kept weights for x's rows; nil: through the slot, if it has room for W̃. It has less where the largest
// batch walks every layer: then a shorter one does so, too.
func (l *Linear) walker(dev compute.Device, x tensor.Tensor) compute.SparseLinear {
	if !l.Kept || l.W.Dense() {
		return nil
	}
	k, ok := dev.Backend.(compute.SparseLinear)
	if ok && (k.WalksKept(l.W, x.DType, x.Rows) || !dev.Weight.Holds(x.DType, l.W.Out, l.W.In)) {
		return k
	}
	return nil
}

// keptSlot leases what k uses of the slot.
func (l *Linear) keptSlot(dev compute.Device, k compute.SparseLinear, dt tensor.DType) tensor.Tensor {
	return dev.Weight.Lease(l.Name, dt, 1, k.KeptSlot(l.W, dt))
}

// Forward sets y = x·W̃ᵀ + bias + β·y. β is 0 or 1.
func (l *Linear) Forward(dev compute.Device, y, x tensor.Tensor, beta float32) {
	l.product(dev, y, x, beta)
	if l.plain() {
		l.addPath(dev, y, x)
	}
	if !l.Bias.Absent() {
		dev.AddBias(y, l.Bias)
	}
}

// product sets y = x·W̃ᵀ + β·y.
func (l *Linear) product(dev compute.Device, y, x tensor.Tensor, beta float32) {
	if k := l.walker(dev, x); k != nil {
		slot := l.keptSlot(dev, k, x.DType)
		b, a, s := l.inMerge()
		k.KeptForward(y, x, slot, l.W, b, a, s, beta)
		dev.Weight.Return(slot)
		return
	}
	w := l.merged(dev, x.DType)
	dev.Gemm(y, 1, x, false, w, true, beta)
	dev.Weight.Return(w)
}

// inputGradient sets dx = dy·W̃ + β·dx.
func (l *Linear) inputGradient(dev compute.Device, dx, dy tensor.Tensor, beta float32) {
	if k := l.walker(dev, dy); k != nil {
		slot := l.keptSlot(dev, k, dy.DType)
		b, a, s := l.inMerge()
		k.KeptInput(dx, dy, slot, l.W, b, a, s, beta)
		dev.Weight.Return(slot)
		return
	}
	w := l.merged(dev, dy.DType)
	dev.Gemm(dx, 1, dy, false, w, false, beta)
	dev.Weight.Return(w)
}

// addPath adds s·(D(x)·Aᵀ)·Bᵀ to y.
func (l *Linear) addPath(dev compute.Device, y, x tensor.Tensor) {
	defer dev.Acts.Reset(dev.Acts.Mark())
	t := dev.Acts.Push(x.DType, x.Rows, l.A.Rows)
	a, b := l.factors(x)
	dev.Gemm(t, 1, l.dropped(dev, x), false, a, true, 0)
	dev.Gemm(y, l.Scale, t, false, b, true, 1)
}

// dropped is D(x), pushed; x itself without dropout.
func (l *Linear) dropped(dev compute.Device, x tensor.Tensor) tensor.Tensor {
	if l.Drop.P == 0 {
		return x
	}
	d := dev.Acts.Push(x.DType, x.Rows, x.Cols)
	dev.Dropout(d, x, l.Drop.IDs, l.Drop.Seed, l.Drop.P)
	return d
}

// Backward sets dx = dy·W̃ + β·dx, unless dx is absent, and adds to DA and DB, unless they are.
func (l *Linear) Backward(dev compute.Device, dx, dy, x tensor.Tensor, beta float32) {
	if !dx.Absent() {
		l.inputGradient(dev, dx, dy, beta)
	}
	switch {
	case l.plain():
		l.pathBackward(dev, dx, dy, x)
	case !l.DA.Absent():
		l.maskedGradient(dev, dy, x)
	}
}

// maskedGradient forms G = M ⊙ (dyᵀ·x) in the slot, and adds DA += s·Bᵀ·G, DB += s·G·Aᵀ.
func (l *Linear) maskedGradient(dev compute.Device, dy, x tensor.Tensor) {
	if k := l.walker(dev, x); k != nil {
		slot := l.keptSlot(dev, k, x.DType)
		k.KeptAdapter(l.DA, l.DB, dy, x, slot, l.W, l.B, l.A, l.Scale)
		dev.Weight.Return(slot)
		return
	}
	g := l.slot(dev, x.DType)
	defer dev.Weight.Return(g)
	dev.Gemm(g, 1, dy, true, x, false, 0)
	if k, ok := dev.Backend.(compute.MaskedAdapter); ok && k.AdapterGradient(l.DA, l.DB, g, l.W, l.B, l.A, l.Scale) {
		return
	}
	dev.Mask(g, l.W)
	a, b := l.factors(g)
	dev.Gemm(l.DA, l.Scale, b, true, g, false, 1)
	dev.Gemm(l.DB, l.Scale, g, false, a, true, 1)
}

// pathBackward differentiates s·(D(x)·Aᵀ)·Bᵀ: with u = dy·B,  dx += D(s·u·A),  DA += s·uᵀ·D(x),  DB += s·dyᵀ·(D(x)·Aᵀ).
func (l *Linear) pathBackward(dev compute.Device, dx, dy, x tensor.Tensor) {
	defer dev.Acts.Reset(dev.Acts.Mark())
	u := dev.Acts.Push(x.DType, x.Rows, l.A.Rows)
	a, b := l.factors(x)
	dev.Gemm(u, 1, dy, false, b, false, 0)
	if !dx.Absent() {
		l.pathInput(dev, dx, u)
	}
	if l.DA.Absent() {
		return
	}
	x = l.dropped(dev, x)
	t := dev.Acts.Push(x.DType, x.Rows, l.A.Rows)
	dev.Gemm(t, 1, x, false, a, true, 0)
	dev.Gemm(l.DA, l.Scale, u, true, x, false, 1)
	dev.Gemm(l.DB, l.Scale, dy, true, t, false, 1)
}

// pathInput adds D(s·u·A) to dx.
func (l *Linear) pathInput(dev compute.Device, dx, u tensor.Tensor) {
	a, _ := l.factors(u)
	if l.Drop.P == 0 {
		dev.Gemm(dx, l.Scale, u, false, a, false, 1)
		return
	}
	defer dev.Acts.Reset(dev.Acts.Mark())
	t := dev.Acts.Push(dx.DType, dx.Rows, dx.Cols)
	dev.Gemm(t, l.Scale, u, false, a, false, 0)
	dev.Dropout(t, t, l.Drop.IDs, l.Drop.Seed, l.Drop.P)
	dev.Add(dx, t)
}
