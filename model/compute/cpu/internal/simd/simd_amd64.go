package simd

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// For gives the kernels of the named instruction set, or nil when this machine lacks it.
func For(name string) *Kernels {
	x := &cpu.X86
	switch {
	case name == "avx512" && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ && x.HasFMA:
		k := &Kernels{
			Name: name, Lanes: 16, MR: 12, NR: 32, RowStep: 4,
			Rows:      [3][2]TileOfRows{{gemmRows512x4x1, gemmRows512x4x2}, {gemmRows512x8x1, gemmRows512x8x2}, {gemmRows512x12x1, gemmRows512x12x2}},
			Columns:   [3][2]TileOfColumns{{gemmColumns512x4x1, gemmColumns512x4x2}, {gemmColumns512x8x1, gemmColumns512x8x2}, {gemmColumns512x12x1, gemmColumns512x12x2}},
			Tile:      [3][2]Tile{{gemm512x4x1, gemm512x4x2}, {gemm512x8x1, gemm512x8x2}, {gemm512x12x1, gemm512x12x2}},
			Transpose: [3]Transpose{transpose512F32, transpose512BF16, transpose512F16},
			Along:     [3]Along{along512F32, along512BF16, along512F16},
			PanelsA:   [3]Panels{panels512F32x1, panels512BF16x1, panels512F16x1},
			PanelsB:   [3]Panels{panels512F32x2, panels512BF16x2, panels512F16x2},
			Vec: Vec{
				Add: add512, Axpy: axpy512, Scale: scale512,
				Dot: [3]func(int, *float32, unsafe.Pointer) float32{dotF32512, dotBF16512, dotF16512}, Dot3: dot3512,
				Max: max512, ExpSum: expSum512, Hide: hide512, SoftmaxBack: softmaxBack512,
				MaxOf: maxOf512, ExpOf: expOf512, ExpAdd: expAdd512, HideFrom: hideFrom512, SoftmaxBackOf: softmaxBackOf512, Silu: silu512, SiluBack: siluBack512,
				Norm: norm512, NormBack: normBack512, NormBackAdd: normBackAdd512, Rotate: rotate512, Adam: adam512, Squares: squares512, Dropout: dropout512,
				Widen: [3]func(int, *float32, unsafe.Pointer){BF16: widenBF16512, F16: widenF16512}, NarrowBF16: narrowBF16512, DotHalf: dotHalf512,
			},
			Merge: [3]func(int, *float32, *uint64, unsafe.Pointer, *float32, *float32, int, int){merge512F32, merge512BF16, merge512F16},
			Mask:  mask512, MaskBF16: maskBF16512,
			Kept: kept512(),
			Peak: peak512,
		}
		if x.HasAVX512BF16 {
			k.Kept.Half = keptHalf512()
			k.Kept.MergeHalf = [3]func(*KeptMerge){keptMerge512F32Half, keptMerge512BF16Half, keptMerge512F16Half}
			k.Kept.MergePairs = [3]func(*KeptMerge){keptMerge512F32Pairs, keptMerge512BF16Pairs, keptMerge512F16Pairs}
			k.RoundBF16, k.FlashBack = roundBF16512, flashBack512
			k.FlashMax, k.FlashExp, k.FlashScale = flashMax512, flashExp512, flashScale512
			k.MergeHalf = [3]func(int, *uint16, *uint64, unsafe.Pointer, *float32, *float32, int, int){merge512F32Half, merge512BF16Half, merge512F16Half}
		}
		return k
	case name == "avx2" && x.HasAVX2 && x.HasFMA: // every such machine has F16C
		return &Kernels{
			Name: name, Lanes: 8, MR: 6, NR: 16, RowStep: 2,
			Rows:      [3][2]TileOfRows{{gemmRows256x2x1, gemmRows256x2x2}, {gemmRows256x4x1, gemmRows256x4x2}, {gemmRows256x6x1, gemmRows256x6x2}},
			Columns:   [3][2]TileOfColumns{{gemmColumns256x2x1, gemmColumns256x2x2}, {gemmColumns256x4x1, gemmColumns256x4x2}, {gemmColumns256x6x1, gemmColumns256x6x2}},
			Tile:      [3][2]Tile{{gemm256x2x1, gemm256x2x2}, {gemm256x4x1, gemm256x4x2}, {gemm256x6x1, gemm256x6x2}},
			Transpose: [3]Transpose{transpose256F32, transpose256BF16, transpose256F16},
			Along:     [3]Along{along256F32, along256BF16, along256F16},
			PanelsA:   [3]Panels{panels256F32x1},
			PanelsB:   [3]Panels{panels256F32x2, panels256BF16x2, panels256F16x2},
			Vec: Vec{
				Add: add256, Axpy: axpy256, Scale: scale256,
				Dot: [3]func(int, *float32, unsafe.Pointer) float32{dotF32256, dotBF16256, dotF16256}, Dot3: dot3256,
				Max: max256, ExpSum: expSum256, Hide: hide256, SoftmaxBack: softmaxBack256,
				MaxOf: maxOf256, ExpOf: expOf256, ExpAdd: expAdd256, HideFrom: hideFrom256, SoftmaxBackOf: softmaxBackOf256, Silu: silu256, SiluBack: siluBack256,
				Norm: norm256, NormBack: normBack256, NormBackAdd: normBackAdd256, Rotate: rotate256, Adam: adam256, Squares: squares256,
				Widen: [3]func(int, *float32, unsafe.Pointer){BF16: widenBF16256, F16: widenF16256}, NarrowBF16: narrowBF16256,
			},
			Expand:    [3]func(int, *float32, *uint64, unsafe.Pointer){expand256F32, expand256BF16, expand256F16},
			MaskWords: maskWords256, Combine: combine256,
			Kept: kept256(),
			Peak: peak256,
		}
	}
	return nil
}

// kept512 and kept256 need POPCNT, BMI1 and BMI2, which every processor with AVX2 and FMA has.
func kept512() Kept {
	k := Kept{Lanes: 16, MergeWide: keptMerge512Wide}
	k.Reduce[0], k.Reduce[1], k.Reduce[3] = keptReduce512x1, keptReduce512x2, keptReduce512x4
	k.Merge = [3]func(*KeptMerge){keptMerge512F32, keptMerge512BF16, keptMerge512F16}
	k.Walk = [8]Walk{walk512x1, walk512x2, walk512x3, walk512x4, walk512x5, walk512x6, walk512x7, walk512x8}
	k.Dots[0], k.Dots[1], k.Dots[3], k.Dots[7] = keptDots512x1, keptDots512x2, keptDots512x4, keptDots512x8
	return k
}

func keptHalf512() KeptHalf {
	k := KeptHalf{SixPairs: sixPairs512, PairRows: pairRows512, WeaveRows: weaveRows512, ClassPack: classPack512}
	k.ClassWalk = [2]ClassWalk{classWalk512x1, classWalk512x2}
	k.Walk = [4]Walk{pairWalk512x1, pairWalk512x2, pairWalk512x3, pairWalk512x4}
	k.Dots[0], k.Dots[1], k.Dots[3], k.Dots[7] = keptDots512x1Half, keptDots512x2Half, keptDots512x4Half, keptDots512x8Half
	return k
}

func kept256() Kept {
	k := Kept{Lanes: 8, Compress: compress256}
	k.Reduce[0], k.Reduce[1], k.Reduce[3] = keptReduce256x1, keptReduce256x2, keptReduce256x4
	k.Walk = [8]Walk{walk256x1, walk256x2, walk256x3, walk256x4, walk256x5, walk256x6, walk256x7, walk256x8}
	k.Dots = [8]Dots{
		keptDots256x1, keptDots256x2, keptDots256x3, keptDots256x4, keptDots256x5, keptDots256x6, keptDots256x7, keptDots256x8}
	return k
}

//go:noescape
func gemm512x12x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm512x12x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm512x8x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm512x8x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm512x4x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm512x4x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func transpose512F32(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along512F32(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

//go:noescape
func transpose512BF16(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along512BF16(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

//go:noescape
func transpose512F16(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along512F16(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

func peak512(n int)

//go:noescape
func gemm256x6x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm256x6x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm256x4x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm256x4x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm256x2x1(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func gemm256x2x2(kc int, a, b, c *float32, ldc int, alpha, beta float32)

//go:noescape
func transpose256F32(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along256F32(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

//go:noescape
func transpose256BF16(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along256BF16(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

//go:noescape
func transpose256F16(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

//go:noescape
func along256F16(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

func peak256(n int)
