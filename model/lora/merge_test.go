package lora

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/splora/splora/model/tensor"
)

// bf16 rounds to the nearest bfloat16, ties to even.
func bf16(v float32) uint16 {
	b := math.Float32bits(v)
	return uint16((b + 0x7FFF + b>>16&1) >> 16)
}

func TestTheMergeKeepsEveryZeroPositiveAndAKeptZeroAlive(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	l, tw := layer(t, r, SPLoRA)
	dev := device(t)
	dst := tensor.New(tensor.F32, 13, 22)
	MergeInto(dev, dst, l.W, l.B, l.A, l.Scale, SPLoRA)
	ba, want := times(tw.b, tw.a.t()), zeros(13, 22)
	for i := range want.v {
		want.v[i] = tw.mask.v[i] * (tw.w.v[i] + tw.s*ba.v[i])
		if bits := math.Float32bits(dst.Float32()[i]); tw.mask.v[i] == 0 && bits != 0 {
			t.Fatalf("a pruned weight merges to bits %#x", bits)
		}
	}
	near(t, "merged", dst, want, single)
	if dst.Float32()[0] == 0 {
		t.Error("the kept weight whose value is 0 did not learn")
	}
	half := tensor.New(tensor.BF16, 13, 22)
	MergeInto(dev, half, l.W, l.B, l.A, l.Scale, SPLoRA)
	for i, got := range half.Uint16() {
		if got != bf16(dst.Float32()[i]) {
			t.Fatalf("weight %d is rounded to %#x, not once to %#x", i, got, bf16(dst.Float32()[i]))
		}
	}
}

func TestPlainLoRAMergesToADenseWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	l, tw := layer(t, r, LoRA)
	dst := tensor.New(tensor.F32, 13, 22)
	MergeInto(device(t), dst, l.W, l.B, l.A, l.Scale, LoRA)
	ba, want, zero := times(tw.b, tw.a.t()), zeros(13, 22), 0
	for i := range want.v {
		want.v[i] = tw.w.v[i] + tw.s*ba.v[i]
		if dst.Float32()[i] == 0 {
			zero++
		}
	}
	near(t, "merged", dst, want, single)
	if zero > 0 {
		t.Errorf("%d weights are 0", zero)
	}
}

func TestAnAbsentAdapterMergesToTheWeightItself(t *testing.T) {
	l, tw := layer(t, rand.New(rand.NewPCG(8, 8)), SPLoRA)
	dst := tensor.New(tensor.F32, 13, 22)
	MergeInto(device(t), dst, l.W, tensor.Tensor{}, tensor.Tensor{}, 0, SPLoRA)
	for i, v := range dst.Float32() {
		if float64(v) != tw.w.v[i] {
			t.Fatalf("weight %d is %v, want %v", i, v, tw.w.v[i])
		}
	}
}
