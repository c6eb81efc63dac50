package decoder

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

func TestFrequenciesOfRealModelsAreThoseOfTransformers(t *testing.T) {
	var cases []struct {
		Config
		Frequencies []float64
	}
	raw, err := os.ReadFile("testdata/rope.json")
	if err == nil {
		err = json.Unmarshal(raw, &cases)
	}
	if err != nil || len(cases) == 0 {
		t.Fatal("no golden values: ", err)
	}
	for _, c := range cases {
		got := c.Rope.frequencies(c.HeadDim)
		if len(got) != len(c.Frequencies) {
			t.Fatalf("%d frequencies, want %d", len(got), len(c.Frequencies))
		}
		for j, want := range c.Frequencies {
			if !(math.Abs(got[j]-want) <= 5e-7*want) { // theirs are computed in float32
				t.Errorf("%+v: frequency %d is %v, want %v", c.Rope, j, got[j], want)
			}
		}
	}
}

func TestTheTablesAreCosAndSinAtEveryPosition(t *testing.T) {
	c := Config{HeadDim: 6, Rope: Rope{Theta: 100}}
	cos, sin := c.ropeTables(5000)
	for _, p := range []int{0, 1, 7, 4999} {
		for j := range 3 {
			w := float64(p) * math.Pow(100, -float64(j)/3)
			if !(math.Abs(float64(cos[p*3+j])-math.Cos(w)) < 1e-7 && math.Abs(float64(sin[p*3+j])-math.Sin(w)) < 1e-7) {
				t.Errorf("position %d, pair %d: (%v, %v)", p, j, cos[p*3+j], sin[p*3+j])
			}
		}
	}
}
