package lora

// stream is the key of a counter-based generator: value i is mix(key + i·γ), so every value can be made alone, in any order,
// on any rank (SplitMix64: Steele, Lea, Flood 2014).
func stream(seed uint64, name string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return mix(mix(seed+gamma) ^ h)
}

const gamma = 0x9E3779B97F4A7C15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// uniform gives n values of U(−bound, bound), on a grid of 2⁻²³·bound.
func uniform(key uint64, n int, bound float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		u := float64(mix(key+uint64(i+1)*gamma)>>40) / (1 << 24)
		v[i] = float32((2*u - 1) * bound)
	}
	return v
}
