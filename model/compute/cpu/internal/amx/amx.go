// Package amx holds kernels of matrix units for bfloat16: Go assembly, printed by gen, chosen at run time.
//
//	c [32,32] = Σ_k a[32,k]·b[k,32]        float32 sums of products of bfloat16
//
// A panel is 32 rows of op(a), or 32 columns of op(b), in steps of 32 inner elements; a step has one plane for each part of the numbers:
//
//	a step    part by part, 16 rows × 32 elements, then the other 16 rows
//	b step    part by part, 16 pairs × 16 columns × 2 elements, then the other 16 columns
//
// both in tiles of 16 rows of 64 bytes, which transposing 16×16 pairs turns into each other. A bfloat16 is one part; a float32 is the exact
// sum of three, x = x₁ + x₂ + x₃ of 8 bits each, and a product of two float32 is the sum of the six largest products of parts:
//
//	a·b ≈ a₁b₁ + a₁b₂ + a₂b₁ + a₂b₂ + a₁b₃ + a₃b₁        error ≤ 2⁻²⁵·|a·b|, below that of rounding the product to float32
//
// (Henry, Tang, Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations"). The units
// read and write subnormal numbers as 0: parts below 2⁻¹²⁶ are lost, so that numbers below 2⁻¹⁰⁸ have fewer than 24 bits, and sums
// below 2⁻¹²⁶ are 0. Where an operand has Inf or NaN, elements that depend on it are Inf or NaN, but not always the same of the two.
package amx

//go:generate go run ./gen

import "unsafe"

// Sizes of panels.
const (
	// Rows of a panel of a, columns of a panel of b, and inner elements of a step.
	Rows = 32
	// Part is the bytes of one part of one step.
	Part = 2048
	// Block is the number of float32 of a block of c, 32×32 in tiles of 16×16.
	Block = 1024
)

// Strip are the arguments of N products of panels of K steps: block i of C is a_i·b_i, or adds it with Add ≠ 0, where a_i begins at
// A + i·AStep bytes and b_i at B + i·BStep, all 64-byte aligned.
type Strip struct {
	N, K  int
	A     unsafe.Pointer
	AStep int
	B     unsafe.Pointer
	BStep int
	C     unsafe.Pointer
	Add   int
	// Next is fetched into the second cache meanwhile: in each step the lines at Next and Next + Apart, with a float32 also the ones behind
	// them; then Next moves on by PerStep, and by PerPanel after each panel. It may run over the end of its memory.
	Next                     unsafe.Pointer
	Apart, PerStep, PerPanel int
}

// Kernels are what one unit offers.
type Kernels struct {
	// Name is "amx" or "avx512bf16".
	Name string
	// Strip[pa/2][pb/2][m][hb-1 + 2·(ha-1)] is the product of panels of pa and pb parts (1 or 3) of which the first ha and hb halves are used,
	// the best where many panels of a (m = 0) or of b (m = 1) meet one of the other side; nil: there is none.
	Strip [2][2][2][4]func(*Strip)
}

// Packing, for all units. Rows packs rows of memory as a panel of a: row r from src + r·stride bytes, k elements. Along packs a panel of b from
// src + k·stride bytes, rows (columns of op(b)) elements each, rows ≤ 32. Elements beyond k up to a whole step are 0, rows beyond rows are
// unspecified. They return 1 if a part is not finite: then the panel has to be packed with care.
type Packing struct {
	Rows16, Along16 func(dst, src unsafe.Pointer, stride, rows, k int)
	Rows32, Along32 func(dst, src unsafe.Pointer, stride, rows, k int) int
	// Turn transposes n tiles in place, 16×16 pairs or float32.
	Turn func(dst unsafe.Pointer, n int)
	// Store sets dst [rows,cols] = α·src + β·dst from a block; rows of dst, float32 or bfloat16, are stride bytes apart.
	Store32, Store16 func(dst unsafe.Pointer, stride int, src unsafe.Pointer, rows, cols int, alpha, beta float32)
}

// Masking, by the format of packed weights (F32, BF16, F16) and parts/2. 32 bits of a mask keep 32 columns; kept values follow each other.
type Masking struct {
	// Row sets one row of a panel of a, at dst, in steps of 32 columns: kept values plus the row's sums in blocks, at c (nil: none), and 0
	// elsewhere; rounded where there is one part.
	Row [3][2]func(dst, c, bits, values unsafe.Pointer, steps int)
	// Pair sets a pair of rows of n panels of b, panel bytes apart, from two rows of kept values, whose sums stand in n blocks at c (nil: none).
	Pair [3][2]func(dst unsafe.Pointer, panel int, c unsafe.Pointer, bits, values *[2]unsafe.Pointer, n int)
	// Block makes one step of a panel of a, and one of a panel of b whose inner elements are the rows, of a block c, of which a row keeps what
	// the 32 bits at bits + row·stride bytes say; the rows beyond rows are 0.
	Block [2]func(asRows, asPairs, c, bits unsafe.Pointer, stride, rows int)
}
