package family

import "github.com/splora/splora/model/decoder"

// mistral is Mistral 7B and its kin: LLaMA with one sliding window for all layers; sliding_window null means full attention,
// and a config that does not mention it has 4096.
func mistral(f *fields, c *decoder.Config) {
	c.KVHeads, c.MaxPositions = 8, 4096*32
	layers := f.count("num_hidden_layers", 0)
	w := f.window(4096)
	if w == 0 {
		f.only("full_attention")
		return
	}
	f.only("sliding_attention")
	for range min(max(layers, 0), maxLayers) {
		c.Windows = append(c.Windows, w)
	}
}
