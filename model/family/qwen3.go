package family

import "github.com/splora/splora/model/decoder"

// qwen3 normalises every head of q and k; head_dim is 128 unless it is given, whatever the hidden size.
func qwen3(f *fields, c *decoder.Config) {
	c.KVHeads, c.MaxPositions, c.HeadDim = 32, 32768, 128
	c.QKNorm = true
	if f.flag("attention_bias", false) {
		c.Bias = [7]bool{decoder.Q: true, decoder.K: true, decoder.V: true, decoder.O: true}
	}
	c.Windows = f.qwenWindows()
}
