// Package simd holds the vector kernels of the CPU backend: Go assembly, printed by gen, chosen at run time.
//
//	tile       c = α·Σ_k a_kᵀ·b_k + β·c over packed panels
//	transpose  packing of panels that lie across the memory; along: of those that lie along it
//
// A kernel that an instruction set lacks is nil; the caller has the Go loop.
package simd

//go:generate go run ./gen

import "unsafe"

// Format is the type of the elements that packing widens to float32.
type Format int

// Formats.
const (
	F32 Format = iota
	BF16
	F16
)

// Tile sets c [rows,cols] = α·Σ_k a[k,:]ᵀ·b[k,:] + β·c, k < kc, from packed panels; rows of c are ldc apart. β = 0 does not read c.
type Tile func(kc int, a, b, c *float32, ldc int, alpha, beta float32)

// Transpose sets dst[k·step + r] = rows[r][first + k] for k < blocks·Lanes and r < width ≤ Lanes. It reads Lanes rows.
type Transpose func(dst *float32, step int, rows *[16]unsafe.Pointer, first, blocks, width int)

// Along sets dst[p·step + r] = src[p·stride + r] for p < k and r < width ≤ Lanes; 16-bit formats with 8 lanes want width = Lanes.
type Along func(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

// Kernels are what one instruction set offers.
type Kernels struct {
	// Name is "avx512" or "avx2".
	Name  string
	Lanes int
	// MR and NR are the widths of the packed panels of a and b.
	MR, NR int
	// Tile[i][j] computes RowStep·(i+1) rows and Lanes·(j+1) columns of a tile.
	Tile      [3][2]Tile
	RowStep   int
	Transpose [3]Transpose
	Along     [3]Along
	// Peak runs n rounds of 12 vector FMAs.
	Peak func(n int)
}

// Names are the instruction sets, best first.
func Names() []string { return []string{"avx512", "avx2"} }
