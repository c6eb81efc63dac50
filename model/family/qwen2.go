package family

import "github.com/splora/splora/model/decoder"

// qwen2 is Qwen2 and Qwen2.5: q, k and v have a bias, always; the window belongs to the upper layers, if to any.
func qwen2(f *fields, c *decoder.Config) {
	c.KVHeads, c.MaxPositions = 32, 32768
	c.Bias = [7]bool{decoder.Q: true, decoder.K: true, decoder.V: true}
	c.Windows = f.qwenWindows()
}
