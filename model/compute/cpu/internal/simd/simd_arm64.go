package simd

import "unsafe"

// For gives the kernels of the named instruction set, or nil when this machine lacks it. Every arm64 has NEON.
func For(name string) *Kernels {
	if name != "neon" {
		return nil
	}
	return &Kernels{
		Name: name, Lanes: 4, MR: 12, NR: 8, RowStep: 4,
		Rows:      [3][2]TileOfRows{{gemmRows128x4x1, gemmRows128x4x2}, {gemmRows128x8x1, gemmRows128x8x2}, {gemmRows128x12x1, gemmRows128x12x2}},
		Columns:   [3][2]TileOfColumns{{gemmColumns128x4x1, gemmColumns128x4x2}, {gemmColumns128x8x1, gemmColumns128x8x2}, {gemmColumns128x12x1, gemmColumns128x12x2}},
		Tile:      [3][2]Tile{{gemm128x4x1, gemm128x4x2}, {gemm128x8x1, gemm128x8x2}, {gemm128x12x1, gemm128x12x2}},
		Transpose: [3]Transpose{transpose128F32, transpose128BF16, transpose128F16},
		Along:     [3]Along{along128F32, along128BF16, along128F16},
		PanelsA:   [3]Panels{panels128F32x3, panels128BF16x3, panels128F16x3},
		PanelsB:   [3]Panels{panels128F32x2, panels128BF16x2, panels128F16x2},
		Vec: Vec{
			Add: add128, Axpy: axpy128, Scale: scale128,
			Dot: [3]func(int, *float32, unsafe.Pointer) float32{dotF32128, dotBF16128, dotF16128}, Dot3: dot3128,
			Max: max128, ExpSum: expSum128, Hide: hide128, SoftmaxBack: softmaxBack128,
			MaxOf: maxOf128, ExpOf: expOf128, ExpAdd: expAdd128, HideFrom: hideFrom128, SoftmaxBackOf: softmaxBackOf128, Silu: silu128, SiluBack: siluBack128,
			Norm: norm128, NormBack: normBack128, NormBackAdd: normBackAdd128, Rotate: rotate128, Adam: adam128, Squares: squares128,
			Widen: [3]func(int, *float32, unsafe.Pointer){BF16: widenBF16128, F16: widenF16128}, NarrowBF16: narrowBF16128,
		},
		Expand:    [3]func(int, *float32, *uint64, unsafe.Pointer){expand128F32, expand128BF16, expand128F16},
		MaskWords: maskWords128, Combine: combine128,
		Kept: kept128(),
		Peak: peak128,
	}
}

func kept128() Kept {
	k := Kept{Lanes: 8, Compress: compress128}
	k.Walk = [8]Walk{walk128x1, walk128x2, walk128x3, walk128x4, walk128x5, walk128x6, walk128x7, walk128x8}
	k.Dots = [8]Dots{keptDots128x1, keptDots128x2, keptDots128x3, keptDots128x4, keptDots128x5, keptDots128x6, keptDots128x7, keptDots128x8}
	k.Reduce[0], k.Reduce[1], k.Reduce[3] = keptReduce128x1, keptReduce128x2, keptReduce128x4
	return k
}
