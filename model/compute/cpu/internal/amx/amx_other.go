//go:build !amd64

package amx

// Pairs, Tiles, Pack and Mask have kernels for amd64 only.
func Pairs() *Kernels { return nil }

// PairsPay is false.
func PairsPay() bool { return false }

// Tiles gives nil.
func Tiles() *Kernels { return nil }

// Pack gives nothing.
func Pack() Packing { return Packing{} }

// Mask gives nothing.
func Mask() Masking { return Masking{} }
