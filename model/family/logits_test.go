package family

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/tensor"
)

// logits runs a loaded folder.
func logits(t *testing.T, f *Folder, tokens tensor.Tensor) []float32 {
	t.Helper()
	w, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	be := cpu.New(cpu.Config{Threads: 2})
	t.Cleanup(func() { be.Close() })
	m, err := decoder.New(be, f.Config, w, nil, decoder.Options{Batch: tokens.Rows, Seq: tokens.Cols})
	if err != nil {
		t.Fatal(err)
	}
	y, err := m.Logits(decoder.Batch{B: tokens.Rows, T: tokens.Cols, Tokens: tokens.Int32()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// distance is ‖a−b‖₂/‖b‖₂.
func distance(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		d += math.Pow(float64(a[i])-float64(b[i]), 2)
		n += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(d / n)
}

// TestAFolderGivesTransformersLogits goes all the way from files to logits: names, shapes, windows, rotation and biases could not
// be wrong without being seen here.
func TestAFolderGivesTransformersLogits(t *testing.T) {
	golden, err := safetensors.Open("testdata/logits.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	get := func(name string) tensor.Tensor {
		x, ok := golden.Tensor(name)
		m, err := x.Matrix()
		if !ok || err != nil {
			t.Fatal(name, err)
		}
		return m
	}
	for name := range goldens(t) {
		hf := opened(t, filepath.Join("testdata", name))
		tokens, want := get(name+".tokens"), get(name+".logits")
		dir := filepath.Join(t.TempDir(), "packed")
		if err := WritePacked(t.Context(), hf, dir); err != nil {
			t.Fatal(err)
		}
		for form, f := range map[string]*Folder{"hf": hf, "packed": opened(t, dir)} {
			// Both sides rotate and normalise in float32; products are float64 there.
			if d := distance(logits(t, f, tokens), want.Float32()); !(d <= 1e-5) {
				t.Errorf("%s, %s: ‖Δlogits‖/‖logits‖ = %.2g", name, form, d)
			} else {
				t.Logf("%s, %s: %.2g", name, form, d)
			}
		}
		// The golden notices: the same files under a config without window and scaling are another model.
		if c := &hf.Config; c.Windows != nil || c.Rope.Scaling != "" {
			c.Windows, c.Rope.Scaling = nil, ""
			if d := distance(logits(t, hf, tokens), want.Float32()); !(d >= 1e-3) {
				t.Errorf("%s: without its window or rope scaling the logits differ by %.2g only", name, d)
			}
		}
	}
}
