package sparse

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/splora/splora/model/tensor"
)

// Words is the number of uint64 words of one mask row of in inputs.
func Words(in int) int { return (in + 63) / 64 }

// FullMask keeps every weight of [out, in].
func FullMask(out, in int) []uint64 {
	words := Words(in)
	mask := make([]uint64, out*words)
	for i := range mask {
		mask[i] = ^uint64(0)
		if i%words == words-1 && in%64 != 0 {
			mask[i] = 1<<(in%64) - 1
		}
	}
	return mask
}

// MaskOf is M = (W ≠ 0) of a host tensor (F32, BF16, F16); −0 is zero, a subnormal is not.
func MaskOf(dense tensor.Tensor) []uint64 {
	words := Words(dense.Cols)
	mask := make([]uint64, dense.Rows*words)
	parallel(dense.Rows, dense.Cols, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			row := mask[i*words : (i+1)*words]
			nonzero(row, dense.Slice(i, i+1))
		}
	})
	return mask
}

// nonzero sets the bits of one row.
func nonzero(bits []uint64, row tensor.Tensor) {
	if row.DType.Size() == 4 {
		for j, v := range words32(row) {
			if v<<1 != 0 {
				bits[j/64] |= 1 << (j % 64)
			}
		}
		return
	}
	b := row.Mem.Host
	for k := range bits {
		n := min(64, row.Cols-k*64)
		seg := b[k*128:][:2*n]
		for j := 0; j < n/4*4; j += 4 {
			bits[k] |= four(binary.LittleEndian.Uint64(seg[2*j:])) << j
		}
		for j := n / 4 * 4; j < n; j++ {
			if binary.LittleEndian.Uint16(seg[2*j:])<<1 != 0 {
				bits[k] |= 1 << j
			}
		}
	}
}

// four says which of four 16-bit numbers are not ±0: the sign goes, what is left carries into the sign's place unless it is
// 0, and a product brings the four carries together.
func four(x uint64) uint64 {
	const low, top = 0x7fff7fff7fff7fff, 0x8000800080008000
	return (x&low + low) & top >> 15 * (1<<48 | 1<<33 | 1<<18 | 1<<3) >> 48 & 15
}

// words32 is an F32 row as bits.
func words32(t tensor.Tensor) []uint32 {
	v := t.Float32()
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&v[0])), len(v))
}

// Count is the number of kept weights.
func Count(mask []uint64) (n int) {
	for _, w := range mask {
		n += bits.OnesCount64(w)
	}
	return n
}

// checkMask reports a mask of the wrong size, or with bits beyond in.
func checkMask(mask []uint64, out, in int) error {
	words := Words(in)
	if len(mask) != out*words {
		return fmt.Errorf("sparse: a mask of [%d,%d] has %d words, found %d", out, in, out*words, len(mask))
	}
	if in%64 == 0 {
		return nil
	}
	for i := range out {
		if mask[(i+1)*words-1]>>(in%64) != 0 {
			return fmt.Errorf("sparse: row %d of the mask has bits beyond its %d inputs", i, in)
		}
	}
	return nil
}

// MaskBytes is a mask [out, in] as it stands in mask.safetensors: U8 [out, ⌈in/8⌉], input j is bit j%8 of byte j/8. With
// in a multiple of 64 it is the same memory.
func MaskBytes(mask []uint64, out, in int) []byte {
	if len(mask) == 0 {
		return nil
	}
	all := unsafe.Slice((*byte)(unsafe.Pointer(&mask[0])), len(mask)*8)
	row, n := Words(in)*8, (in+7)/8
	if row == n {
		return all
	}
	b := make([]byte, 0, out*n)
	for i := range out {
		b = append(b, all[i*row:i*row+n]...)
	}
	return b
}

// MaskFromBytes is the inverse of MaskBytes; it does not copy where it need not.
func MaskFromBytes(b []byte, out, in int) ([]uint64, error) {
	n, words := (in+7)/8, Words(in)
	if len(b) != out*n {
		return nil, fmt.Errorf("sparse: a mask of [%d,%d] has %d bytes, found %d", out, in, out*n, len(b))
	}
	if len(b) == 0 {
		return []uint64{}, nil
	}
	if n == words*8 && uintptr(unsafe.Pointer(&b[0]))%8 == 0 {
		mask := unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), out*words)
		return mask, checkMask(mask, out, in)
	}
	mask := make([]uint64, out*words)
	var last [8]byte
	for i := range out {
		row := b[i*n : (i+1)*n]
		for k := range words {
			last = [8]byte{}
			copy(last[:], row[k*8:])
			mask[i*words+k] = binary.LittleEndian.Uint64(last[:])
		}
	}
	return mask, checkMask(mask, out, in)
}
