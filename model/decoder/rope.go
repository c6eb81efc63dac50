package decoder

import (
	"fmt"
	"math"
)

// ropeTables are cos and sin of p·f_j for positions p < rows and j < D/2, computed in float64.
func (c *Config) ropeTables(rows int) (cos, sin []float32) {
	f := c.Rope.frequencies(c.HeadDim)
	for p := range rows {
		for _, w := range f {
			s, c := math.Sincos(float64(p) * w)
			cos, sin = append(cos, float32(c)), append(sin, float32(s))
		}
	}
	return cos, sin
}

// frequencies are f_j = θ^(−2j/D), scaled.
func (r Rope) frequencies(d int) []float64 {
	f := make([]float64, d/2)
	for j := range f {
		f[j] = math.Pow(r.Theta, -2*float64(j)/float64(d))
		switch r.Scaling {
		case "linear":
			f[j] /= r.Factor
		case "llama3":
			f[j] = r.llama3(f[j])
		}
	}
	return f
}

// llama3 keeps short wavelengths, divides long ones by Factor and blends between (Grattafiori et al. 2024).
func (r Rope) llama3(f float64) float64 {
	turns := float64(r.OriginalMaxPositions) * f / (2 * math.Pi) // the wavelength fits that often into the original context
	switch {
	case turns < r.LowFreqFactor:
		return f / r.Factor
	case turns > r.HighFreqFactor:
		return f
	}
	t := (turns - r.LowFreqFactor) / (r.HighFreqFactor - r.LowFreqFactor)
	return (1-t)*f/r.Factor + t*f
}

func (r Rope) check() error {
	switch {
	case !(r.Theta > 0):
		return fmt.Errorf("decoder: config: rope_theta %v must be greater than 0", r.Theta)
	case r.Scaling != "" && r.Scaling != "default" && r.Scaling != "linear" && r.Scaling != "llama3":
		return fmt.Errorf("decoder: config: rope scaling %q is not supported; there are default, linear and llama3", r.Scaling)
	case (r.Scaling == "linear" || r.Scaling == "llama3") && !(r.Factor > 0):
		return fmt.Errorf("decoder: config: rope scaling %s: factor %v must be greater than 0", r.Scaling, r.Factor)
	case r.Scaling == "llama3" && !(r.HighFreqFactor > r.LowFreqFactor && r.OriginalMaxPositions > 0):
		return fmt.Errorf("decoder: config: rope scaling llama3: low_freq_factor %v, high_freq_factor %v, original_max_position_embeddings %d", r.LowFreqFactor, r.HighFreqFactor, r.OriginalMaxPositions)
	}
	return nil
}
