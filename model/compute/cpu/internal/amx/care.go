package amx

import "math"

// Split gives the three parts of x. They add up to x exactly, unless the last ones are subnormal; of Inf and NaN the first part is the
// number and the others are 0. It is the careful form of what the packing kernels do, and their twin.
func Split(x float32) [3]uint16 {
	const half, keep, exponent = 0x8000, 0xffff0000, 0x7f800000
	u := math.Float32bits(x)
	switch {
	case x != x:
		return [3]uint16{uint16(u>>16) | 0x40}
	case u&exponent == exponent:
		return [3]uint16{uint16(u >> 16)}
	}
	var p [3]uint16
	for i := range p {
		u := math.Float32bits(x)
		near := (u + half) & keep
		if near&exponent == exponent { // rounds to Inf
			near = u & keep
		}
		p[i] = uint16(near >> 16)
		x -= math.Float32frombits(near)
	}
	return p
}

// Index is where part p of element k of row stands in a panel of parts parts, counted in bfloat16; pairs: in one of b.
func Index(row, k, p, parts int, pairs bool) int {
	at := (k/Rows*parts+p)*Rows*Rows + row/16*16*Rows
	row, k = row%16, k%Rows
	if pairs {
		return at + k/2*Rows + 2*row + k%2
	}
	return at + row*Rows + k
}
