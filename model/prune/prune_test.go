package prune

import (
	"encoding/json"
	"math/bits"
	"os"
	"testing"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// golden is testdata/golden.json, made by testdata/generate.py with PyTorch.
type golden struct {
	Name  string
	W     [][]float32
	Norm  []float32
	Cases []struct {
		Method, Pattern string
		Keep            []string
	}
}

func readGolden(t *testing.T) (all []golden) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// matrix is rows as F32.
func matrix(rows [][]float32) tensor.Tensor {
	w := tensor.New(tensor.F32, len(rows), len(rows[0]))
	for i, r := range rows {
		copy(w.Float32()[i*w.Cols:], r)
	}
	return w
}

func target(t *testing.T, pattern string) (x Target) {
	t.Helper()
	var err error
	if x.Pattern, x.Sparsity, err = sparse.ParsePattern(pattern); err != nil {
		t.Fatal(err)
	}
	return x
}

// text is a mask as rows of 0 and 1.
func text(mask []uint64, out, in int) []string {
	rows := make([]string, out)
	for i := range rows {
		for j := range in {
			rows[i] += string('0' + byte(mask[i*sparse.Words(in)+j/64]>>(j%64)&1))
		}
	}
	return rows
}

func TestTheSameWeightsAreKeptAsInPyTorch(t *testing.T) {
	for _, g := range readGolden(t) {
		w := matrix(g.W)
		for _, c := range g.Cases {
			norm := g.Norm
			if c.Method == "magnitude" {
				norm = nil
			}
			mask := Mask(w, norm, target(t, c.Pattern))
			for i, got := range text(mask, w.Rows, w.Cols) {
				if got != c.Keep[i] {
					t.Errorf("%s, %s %s, row %d: kept %s, PyTorch keeps %s", g.Name, c.Method, c.Pattern, i, got, c.Keep[i])
				}
			}
		}
	}
}

func TestAPatternKeepsNOfMAndAFractionIsWhatGoes(t *testing.T) {
	for _, g := range readGolden(t) {
		w := matrix(g.W)
		for _, norm := range [][]float32{nil, g.Norm} {
			for _, pattern := range []string{"1:2", "1:4", "3:4", "2:8", "5:7"} {
				x := target(t, pattern)
				mask := Mask(w, norm, x)
				if err := x.Pattern.Check(mask, w.Rows, w.Cols); err != nil {
					t.Errorf("%s: %v", g.Name, err)
				}
				if want := w.Rows * x.Pattern.Keep(w.Cols); sparse.Count(mask) != want {
					t.Errorf("%s %s: %d kept, want %d", g.Name, pattern, sparse.Count(mask), want)
				}
			}
		}
		mask := Mask(w, g.Norm, target(t, "0.9"))
		for i := range w.Rows {
			n := 0
			for _, x := range mask[i*sparse.Words(w.Cols):][:sparse.Words(w.Cols)] {
				n += bits.OnesCount64(x)
			}
			if want := w.Cols - w.Cols*9/10; n != want {
				t.Errorf("%s row %d: %d of %d kept at 0.9, want %d", g.Name, i, n, w.Cols, want)
			}
		}
		if mask := Mask(w, nil, target(t, "0.9")); sparse.Count(mask) != w.Len()-w.Len()*9/10 {
			t.Errorf("%s: %d of %d kept of the matrix at 0.9", g.Name, sparse.Count(mask), w.Len())
		}
	}
}

func TestNothingGoesAtSparsityZero(t *testing.T) {
	w := matrix([][]float32{{0, 1, -2}, {3, 0, 0}})
	for _, norm := range [][]float32{nil, {1, 0, 2}} {
		if n := sparse.Count(Mask(w, norm, Target{})); n != 6 {
			t.Errorf("%d of 6 kept", n)
		}
	}
}

func TestAnUnknownPrunerIsNamedWithTheKnownOnes(t *testing.T) {
	if _, err := ParseMethod("sparsegpt"); err == nil || err.Error() != `prune: unknown pruner "sparsegpt"; use wanda or magnitude` {
		t.Error(err)
	}
	for _, m := range []Method{Wanda, Magnitude} {
		if got, err := ParseMethod(string(m)); err != nil || got != m {
			t.Error(got, err)
		}
	}
}

func TestNormsOfAnotherWidthPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Mask(tensor.New(tensor.F32, 2, 4), []float32{1, 2, 3}, Target{Sparsity: 0.5})
}
