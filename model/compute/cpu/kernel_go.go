package cpu

import (
	"unsafe"

	"github.com/splora/splora/model/compute/cpu/internal/simd"
)

// loops are the portable kernels and the twin of the others: everything is a Go loop.
func loops() *simd.Kernels {
	return &simd.Kernels{Name: "go", Lanes: 4, MR: 4, NR: 4, RowStep: 4, Tile: [3][2]simd.Tile{{tileGo}}, Kept: keptLoops()}
}

// tileGo is a 4×4 tile, as two halves of 4×2 that stay in registers.
func tileGo(kc int, a, b, c *float32, ldc int, alpha, beta float32) {
	as, bs := unsafe.Slice(a, 4*kc), unsafe.Slice(b, 4*kc)
	cs := unsafe.Slice(c, 3*ldc+4)
	for h := 0; h < 4; h += 2 {
		halfTile(as, bs[h:], cs[h:], ldc, alpha, beta)
	}
}

func halfTile(a, b, c []float32, ldc int, alpha, beta float32) {
	var s [8]float32
	s0, s1, s2, s3, s4, s5, s6, s7 := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
	for k := 0; k+4 <= len(a); k += 4 {
		a, b := a[k:k+4:k+4], b[k:k+2:k+2]
		s0 += a[0] * b[0]
		s1 += a[0] * b[1]
		s2 += a[1] * b[0]
		s3 += a[1] * b[1]
		s4 += a[2] * b[0]
		s5 += a[2] * b[1]
		s6 += a[3] * b[0]
		s7 += a[3] * b[1]
	}
	s = [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
	for i, v := range s {
		p := &c[i/2*ldc+i%2]
		if beta == 0 {
			*p = alpha * v
		} else {
			*p = alpha*v + beta**p
		}
	}
}
