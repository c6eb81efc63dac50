//go:build cuda

package cuda

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// tile is the size, in bytes, of what Repeat is given by Random.
const tile = 4 << 20

// Repeat sets dst to piece, again and again: the first copy comes from the host, the others are made on the device, each as long as
// all before it.
func (b *Backend) Repeat(dst tensor.Tensor, piece []byte) {
	n, at := dst.Bytes(), dst.Mem.Device
	first := min(n, len(piece))
	head := tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: first, Mem: dst.Mem}
	b.Upload(head, piece[:first])
	for done := first; done < n && b.err == nil; {
		k := min(done, n-done)
		b.queue("copy", func() error { return b.q.Copy(at+uintptr(done), at, k) })
		done += k
	}
}

// Random is a weight [out,in] of the pattern n:m, made on the device: kept values are normal with the given deviation, in BF16, and
// every group's kept places are drawn alike. It is for measuring: values and mask repeat after some millions.
func (b *Backend) Random(out, in int, p sparse.Pattern, deviation float64, seed uint64) (*sparse.Weight, error) {
	w := &sparse.Weight{Out: out, In: in, Pattern: p, Bits: b.Alloc(out * sparse.Words(in) * 8)}
	if !w.Computed() || in%64 != 0 {
		return nil, fmt.Errorf("cuda: a random weight [%d,%d] of pattern %s: the group must divide 64, and 64 the inputs", out, in, p)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	nnz := out * in / p.M * p.N
	w.Values = tensor.Tensor{DType: tensor.BF16, Rows: 1, Cols: nnz, Mem: b.Alloc(2 * nnz)}
	b.Repeat(w.Values, normal(rng, nnz, deviation))
	bits := make([]byte, min(tile, out*in/8))
	for i := 0; i < len(bits); i += 8 {
		binary.LittleEndian.PutUint64(bits[i:], word(rng, p))
	}
	b.Repeat(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: out * in / 8, Mem: w.Bits}, bits)
	return w, nil
}

// normal is at most a tile of n numbers in BF16.
func normal(rng *rand.Rand, n int, deviation float64) []byte {
	v := make([]byte, min(tile, 2*n))
	for i := 0; i < len(v); i += 2 {
		binary.LittleEndian.PutUint16(v[i:], tensor.ToBF16(float32(deviation*rng.NormFloat64())))
	}
	return v
}

// word is a mask of 64 inputs.
func word(rng *rand.Rand, p sparse.Pattern) (bits uint64) {
	for g := 0; g < 64; g += p.M {
		for kept, left := p.N, p.M; left > 0; left-- { // each place is kept with the probability that makes N of M
			if rng.IntN(left) < kept {
				bits |= 1 << (g + p.M - left)
				kept--
			}
		}
	}
	return bits
}

// RandomTable is an embedding or a head [rows,cols] in BF16, made as Random makes values.
func (b *Backend) RandomTable(rows, cols int, deviation float64, seed uint64) tensor.Tensor {
	t := tensor.Tensor{DType: tensor.BF16, Rows: rows, Cols: cols, Mem: b.Alloc(2 * rows * cols)}
	b.Repeat(t, normal(rand.New(rand.NewPCG(seed, 1)), rows*cols, deviation))
	return t
}
