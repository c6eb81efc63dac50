// Package simd holds the vector kernels of the CPU backend: Go assembly, printed by gen, chosen at run time.
//
//	tile       c = α·Σ_k a_kᵀ·b_k + β·c over packed panels
//	transpose  packing of panels that lie across the memory; along: of those that lie along it
//
// A kernel that an instruction set lacks is nil; the caller has the Go loop. Those of attention (Hide … SoftmaxBackOf) are there wherever
// Rows are.
//
// NEON has no masks: what is less than a register goes lane by lane. Its kernels have run under emulation only, so that their shapes (12×8
// tiles, 8 lanes over kept weights) come from counting registers, loads and multiply-adds, not from measurements.
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

// TileOfRows is Tile with a[k,r] at a[r·lda + k], TileOfColumns with b[k,c] at b[k·ldb + c] and a[k,r] at a[k·lda + r]: an operand where
// it stands.
type (
	TileOfRows    func(kc int, a *float32, lda int, b, c *float32, ldc int, alpha, beta float32)
	TileOfColumns func(kc int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, alpha, beta float32)
)

// Transpose sets dst[k·step + r] = src[r·stride + k] for k < blocks·Lanes and r < width ≤ Lanes.
type Transpose func(dst *float32, step int, src unsafe.Pointer, stride, blocks, width int)

// Along sets dst[p·step + r] = src[p·stride + r] for p < k and r < width ≤ Lanes; 16-bit formats with 8 lanes want width = Lanes.
type Along func(dst *float32, step int, src unsafe.Pointer, stride, k, width int)

// Panels sets dst[q·panel + p·width + r] = src[p·stride + q·width + r] for q < count, p < k, r < width.
type Panels func(dst *float32, panel int, src unsafe.Pointer, stride, k, count int)

// Kernels are what one instruction set offers.
type Kernels struct {
	// Name is "avx512", "avx2" or "neon".
	Name  string
	Lanes int
	// MR and NR are the widths of the packed panels of a and b.
	MR, NR int
	// Tile[i][j] computes RowStep·(i+1) rows and Lanes·(j+1) columns of a tile.
	Tile      [3][2]Tile
	RowStep   int
	Rows      [3][2]TileOfRows
	Columns   [3][2]TileOfColumns
	Transpose [3]Transpose
	Along     [3]Along
	// PanelsA and PanelsB pack several full panels, width MR and NR, at once.
	PanelsA, PanelsB [3]Panels
	Vec
	// Merge sets dst_j = kept_j ? w_j + Σ_k coef_k·a[k·lda + j] : +0 for j < n, from the row's bits (nil: all kept) and packed values.
	Merge [3]func(n int, dst *float32, bits *uint64, values unsafe.Pointer, coef, a *float32, lda, r int)
	// MergeHalf is Merge with a bfloat16 dst; a processor may lack it.
	MergeHalf [3]func(n int, dst *uint16, bits *uint64, values unsafe.Pointer, coef, a *float32, lda, r int)
	// FlashBack sets p = exp(Scale·s − lse), ds = Scale·p·(dp − δ), rounded; a processor may lack it.
	FlashBack func(*FlashBack)
	// FlashMax sets out [32][16] to the maxima of n blocks, by row and lane; FlashExp p = exp(Scale·s − m), rounded, and the sums likewise;
	// FlashScale multiplies the rows of n blocks by 32 numbers.
	FlashMax   func(n int, s, out unsafe.Pointer)
	FlashExp   func(*FlashAhead)
	FlashScale func(n int, s, by unsafe.Pointer)
	// Mask sets x_j = kept_j ? x_j : +0 for j < n.
	Mask     func(n int, x *float32, bits *uint64)
	MaskBF16 func(n int, x *uint16, bits *uint64)
	// Expand sets dst_j = kept_j ? dst_j + w_j : +0, and MaskWords x_j = kept_j ? x_j : +0, for j < 64·words: for an instruction set
	// without Merge and Mask. Expand reads up to 7 values beyond the last.
	Expand    [3]func(words int, dst *float32, bits *uint64, values unsafe.Pointer)
	MaskWords func(words int, x *float32, bits *uint64)
	// Combine sets dst_j += Σ_k coef_k·a[k·lda + j] for j < 32·strips, r > 0.
	Combine func(strips int, dst, coef, a *float32, lda, r int)
	// Kept has the kernels over kept weights only; Lanes 0: none.
	Kept Kept
	// Peak runs n rounds of 12 vector FMAs, n even.
	Peak func(n int)
}

// Walk and Dots are kernels over kept weights by the width of their rows.
type (
	Walk func(rows int, y, x *float32, bits *uint64, step int, values *float32)
	Dots func(rows int, dst, y, x *float32, bits *uint64, step, add int)
)

// ClassWalk is a kernel over records of classes.
type ClassWalk func(groups int, y, x *float32, records unsafe.Pointer, values, size int)

// Kept are kernels over the kept weights of 64 columns at a time: row i's are the bits of bits[i·step], and its values follow those of
// row i−1. Panels x, y have rows of n·Lanes floats.
type Kept struct {
	// Lanes is a register's, or, where that is short, two registers'.
	Lanes int
	// Walk[n−1] adds to y_i: Σ_j value_ij·x_j, in rising j (in up to four partial sums, taken in turn, where n is small).
	Walk [8]Walk
	// Dots[n−1] sets dst_ij = y_i·x_j, or adds it with add ≠ 0. It reads the row behind the 64th of x. Some widths n are nil.
	Dots [8]Dots
	// Reduce[n−1] adds to db_i: Σ_j g_ij·a_j (in up to four partial sums, taken in turn) and to da_j: Σ_i g_ij·b_i. Some widths n are nil.
	Reduce [4]func(*KeptReduce)
	// Compress sets dst to the elements of src [64] that bits keeps; nil where Merge packs.
	Compress func(dst, src *float32, bits uint64)
	// Merge packs a merge, by the format of W's packed values; MergeWide with values in dense rows; MergeHalf of 2:4 into bfloat16, and
	// MergePairs into bfloat16, dense, in pairs of rows. nil with 8 lanes, and the last two also where a processor lacks them.
	Merge, MergeHalf, MergePairs [3]func(*KeptMerge)
	MergeWide                    func(*KeptMerge)
	// Half has the kernels for bfloat16; a processor may lack them.
	Half KeptHalf
}

// KeptHalf are kernels over the kept weights of bfloat16, with sums in float32. They multiply pairs.
type KeptHalf struct {
	// Walk[n−1] is Kept.Walk for 2:4, every row of which has exactly two of each four, and as many fours: y has rows of n·Lanes floats, values
	// are pairs of bfloat16, and the panel has six rows for each four inputs a, b, c, d, of pairs of bfloat16, as many as y has floats: (a,b),
	// (a,c), (b,c), (a,d), (b,d), (c,d). SixPairs makes groups times six of such rows from two, (a,b) and (c,d), of regs·Lanes pairs.
	Walk     [4]Walk
	SixPairs func(groups, regs int, dst, src *float32)
	// Dots[n−1] is Kept.Dots for rows of n·Lanes pairs of tokens. PairRows makes k times two such rows from one, of 2·regs·Lanes pairs of inputs.
	Dots     [8]Dots
	PairRows func(k, regs int, dst, src *float32)
	// ClassPack sorts the outputs of a 2:4 weight by class; ClassWalk[n−1] adds to y the products of groups of records, one after the other, with
	// rows of n·2·Lanes bfloat16s of x, as PairRows makes them. The values of a record begin at byte values of it, and it takes size bytes.
	ClassPack func(*ClassPack)
	ClassWalk [2]ClassWalk
	// WeaveRows makes k rows of pairs of bfloat16, each from two rows of regs·Lanes floats; dst may be src.
	WeaveRows func(k, regs int, dst, src *float32)
}

// ClassPack are the arguments of the records of Groups groups, at most 16, of four inputs a, b, c, d each, over 16·Slices outputs, at most 256. A
// class is the outputs that keep the same two inputs: ab, cd, ac, bd, ad, bc. A record is
//
//	six bytes   half the number of each class's outputs, rounded up
//	from 8 on   the numbers of these outputs, one byte each, class after class
//	Values on   their weights, two outputs at a time: both weights of the first input, both of the second
//
// where the last of an odd number is there once more, with weights of 0. Words [Groups][16·Slices] are the two weights, bfloat16, that an output
// keeps; Bits [2][16·Slices] its mask, eight groups each. It writes up to 15 bytes behind the numbers and 63 behind the values.
type ClassPack struct {
	Groups, Slices int
	Words, Bits    unsafe.Pointer
	Dst            unsafe.Pointer
	Values, Size   int
}

// KeptReduce are the arguments of a reduction of Rows rows of 64 columns of G; rows of DB, DA, A and B have n·Lanes floats.
type KeptReduce struct {
	Rows         int
	DB, DA, A, B *float32
	Bits         *uint64
	Step         int
	G            *float32 // packed
}

// KeptMerge are the arguments of a packed merge of Rows rows of 64 columns:
//
//	dst = w_ij + Σ_p coef_ip·a_pj at the j kept in Bits[i·Step], one after the other, row after row; p < R
//
// Coef is [Rows,R], A [R,64]. Row i's packed values begin at number At[i], which moves on behind them; or w is Wide [Rows,64]. In pairs, dst is a
// step of two panels of 32 columns, Panel bytes apart (0: there is one), as package amx lays them out, Rows ≤ 32, and what is not kept is 0.
type KeptMerge struct {
	Rows   int
	Dst    unsafe.Pointer
	Bits   *uint64
	Step   int
	Values unsafe.Pointer
	At     *uint32
	Wide   *float32
	Coef   *float32
	A      *float32
	R      int
	Panel  int
}

// Vec are loops over n elements; sums have a fixed order.
type Vec struct {
	// Add: y += x. Axpy: y += s·x. Scale: x *= s.
	Add   func(n int, y, x *float32)
	Axpy  func(n int, y, x *float32, s float32)
	Scale func(n int, x *float32, s float32)
	// Dot is Σ x·w by w's format; with 8 lanes and a 16-bit format it leaves out the last n%8. Dot3 is Σ x·y·z.
	Dot  [3]func(n int, x *float32, w unsafe.Pointer) float32
	Dot3 func(n int, x, y, z *float32) float32
	// Max ignores NaN. ExpSum: x = exp(x − m), and its sum.
	Max    func(n int, x *float32) float32
	ExpSum func(n int, x *float32, m float32) float32
	// Hide: s = −∞ unless 0 ≤ qpos − kpos < window and kdoc = qdoc.
	Hide func(n int, s *float32, kpos, kdoc *int32, qpos, qdoc, window int32)
	// MaxOf: m = max(m, x). ExpOf: x = exp(x − m), elementwise; ExpAdd: and sum += x.
	MaxOf  func(n int, m, x *float32)
	ExpOf  func(n int, x, m *float32)
	ExpAdd func(n int, x, m, sum *float32)
	// HideFrom: s = −∞ unless 0 ≤ qpos − kpos < window and kdoc = qdoc, for one key.
	HideFrom func(n int, s *float32, qpos, qdoc *int32, kpos, kdoc, window int32)
	// SoftmaxBackOf: d = s·p·(d − delta), elementwise.
	SoftmaxBackOf func(n int, d, p, delta *float32, s float32)
	// SoftmaxBack: d = s·p·(d − delta).
	SoftmaxBack func(n int, d, p *float32, delta, s float32)
	// Silu: h = silu(g)·u. SiluBack: dg = dh·u·silu'(g), du = dh·silu(g).
	Silu     func(n int, h, g, u *float32)
	SiluBack func(n int, dg, du, dh, g, u *float32)
	// Norm: y = x·rstd·w. NormBack: dx = rstd·(dy·w − x·mean); NormBackAdd adds it to dx.
	Norm                  func(n int, y, x, w *float32, rstd float32)
	NormBack, NormBackAdd func(n int, dx, dy, x, w *float32, rstd, mean float32)
	// Rotate: (a, b) = (a·cos − b·sin, b·cos + a·sin), sin times sign.
	Rotate func(n int, a, b, cos, sin *float32, sign float32)
	// DotHalf is Σ x·y, both bfloat16; nil with less than 16 lanes.
	DotHalf func(n int, x, y unsafe.Pointer) float32
	// Widen: y = x, x of the format; NarrowBF16: y = x, rounded to nearest even. With 8 lanes they leave out the last n%8.
	Widen      [3]func(n int, y *float32, x unsafe.Pointer)
	NarrowBF16 func(n int, y unsafe.Pointer, x *float32)
	// RoundBF16 is NarrowBF16, but subnormal numbers become 0; a processor may lack it.
	RoundBF16 func(n int, y unsafe.Pointer, x *float32)
	// Squares is Σ x² in float64, n a multiple of 2·Lanes and not 0.
	Squares func(n int, x *float32) float64
	// Dropout: y_j = mix(at + (j+1)·γ) >> 40 < limit ? 0 : scale·x_j, n a multiple of 8 and not 0; γ and mix are SplitMix64's.
	Dropout func(n int, y, x *float32, at, limit uint64, scale float32)
	// Adam: ĝ = scale·g, m = b1·m + c1·ĝ, v = b2·v + c2·ĝ², p = p·decay − step·m/(√(v·inv2) + eps).
	Adam func(n int, p, g, m, v *float32, scale, b1, c1, b2, c2, decay, step, inv2, eps float32)
}

// FlashBack are the arguments of the weights of attention's backward: 32 queries against N panels of 32 keys.
type FlashBack struct {
	// S, DP are N blocks of four 16×16 tiles; Lse, Delta 32 numbers, +Inf and 0 for a query that is not there.
	S, DP, Lse, Delta unsafe.Pointer
	// DSA is N steps of a panel of a, rows the queries, for a product over keys; DSB and PB are one step in each of N panels of b, Step bytes
	// apart, columns the keys, for products over queries (see package amx).
	DSA, DSB, PB unsafe.Pointer
	N, Step      int
	Scale        float32
}

// FlashAhead are the arguments of the weights of attention's forward: 32 queries against N panels of 32 keys.
type FlashAhead struct {
	// S is N blocks of four 16×16 tiles; P becomes N steps of a panel of a, rows the queries; M is 32 numbers, Sums [32][16].
	S, P, M, Sums unsafe.Pointer
	N             int
	Scale         float32
}

// Names are the instruction sets, best first.
func Names() []string { return []string{"avx512", "avx2", "neon"} }
