package family

import (
	"path/filepath"
	"testing"

	"github.com/splora/splora/model/sparse"
)

// What Load makes is the oracle: a sketch has its sizes, and none of its numbers.
func TestASketchHasTheSizesOfWhatIsLoaded(t *testing.T) {
	for _, pattern := range []string{"", "2:4", "3:7", "0.6"} {
		for _, packed := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "model")
			config := []byte(`{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","hidden_act":"silu","hidden_size":48,"intermediate_size":100,
				"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":14,"vocab_size":70,"max_position_embeddings":64,
				"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":true,"attention_bias":false}`)
			if err := Init(t.Context(), dir, InitConfig{Config: config, Pattern: pattern, Packed: packed, Seed: 3}); err != nil {
				t.Fatal(err)
			}
			f, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s, err := f.Sketch()
			if err != nil {
				t.Fatal(err)
			}
			r, err := f.Load()
			if err != nil {
				t.Fatal(err)
			}
			for i := range r.Blocks {
				for k := range r.Blocks[i].Linears {
					got, want := s.Blocks[i].Linears[k].W, r.Blocks[i].Linears[k].W
					if got.Bytes() != want.Bytes() || got.NNZ() != want.NNZ() || got.Dense() != want.Dense() || got.Pattern != want.Pattern || got.Values.DType != want.Values.DType {
						t.Errorf("%q, packed %v, block %d, linear %d: sketched %d bytes, %d kept, %v, loaded %d, %d, %v", pattern, packed, i, k,
							got.Bytes(), got.NNZ(), got.Pattern, want.Bytes(), want.NNZ(), want.Pattern)
					}
				}
			}
			if s.EmbedTable.Bytes() != r.EmbedTable.Bytes() || s.Blocks[1].QNorm.Bytes() != r.Blocks[1].QNorm.Bytes() || s.Norm.Bytes() != r.Norm.Bytes() {
				t.Errorf("%q, packed %v: tables or norms differ", pattern, packed)
			}
			if f.Mapped(s) != f.Mapped(r) || packed && f.Mapped(r) < r.Blocks[0].Linears[0].W.Bytes() {
				t.Errorf("%q, packed %v: %d bytes are mapped of the sketch, %d of the model", pattern, packed, f.Mapped(s), f.Mapped(r))
			}
		}
	}
}

func TestASketchOfADerivedMaskCountsTheZeros(t *testing.T) {
	w := sparse.Sketch(8, 100, 0, sparse.Pattern{}, 0.5)
	if w.NNZ() != 400 || w.Dense() || w.Bytes() != 4*400+8*2*8+4*(8+1) {
		t.Errorf("half of [8,100]: %d kept, %d bytes", w.NNZ(), w.Bytes())
	}
	if d := sparse.Sketch(8, 100, 0, sparse.Pattern{}, 0); !d.Dense() || d.Bytes() != 3200 {
		t.Errorf("dense: %d bytes", d.Bytes())
	}
}
