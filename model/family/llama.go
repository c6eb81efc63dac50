package family

import "github.com/splora/splora/model/decoder"

// llama is LLaMA 1, 2 and 3, and whatever is saved as one: attention_bias gives all four attention linears a bias, mlp_bias the
// three of the MLP.
func llama(f *fields, c *decoder.Config) {
	c.MaxPositions = 2048
	attention, mlp := f.flag("attention_bias", false), f.flag("mlp_bias", false)
	for k := range c.Bias {
		c.Bias[k] = k <= decoder.O && attention || k > decoder.O && mlp
	}
	f.only("full_attention")
}
