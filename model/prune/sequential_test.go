package prune

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// chain is a model of linear blocks y = x·Wᵀ, so that everything can be worked out by hand.
type chain struct {
	w      []tensor.Tensor // of each block
	x      tensor.Tensor   // the hidden states
	log    []string
	poison bool
}

func (c *chain) Blocks() int { return len(c.w) }

func (c *chain) Run(_ context.Context, i int, observe func(int, tensor.Tensor)) error {
	if observe != nil {
		c.log = append(c.log, "observe")
		if c.poison {
			c.x.Float32()[1] = float32(math.NaN())
		}
		for r := range c.x.Rows { // row by row: the statistics add up over calls
			observe(0, c.x.Slice(r, r+1))
		}
		return nil
	}
	c.log = append(c.log, "run")
	y := tensor.New(tensor.F32, c.x.Rows, c.w[i].Rows)
	for r := range y.Rows {
		for o := range y.Cols {
			for j := range c.x.Cols {
				y.Float32()[r*y.Cols+o] += c.x.Float32()[r*c.x.Cols+j] * c.w[i].Float32()[o*c.x.Cols+j]
			}
		}
	}
	c.x = y
	return nil
}

func (c *chain) Linears(i int) ([]Linear, error) { return []Linear{{"w", c.w[i]}}, nil }

func (c *chain) Prune(i int, _ []Linear, masks [][]uint64) error {
	c.log = append(c.log, "prune")
	w := c.w[i]
	for k := range w.Float32() {
		if masks[0][k/w.Cols*sparse.Words(w.Cols)]>>(k%w.Cols)&1 == 0 {
			w.Float32()[k] = 0
		}
	}
	return nil
}

// Block 0, 1:2 over the inputs {0,1} and {2}, with ‖x‖ = (√2, 3, 1): row 0 keeps 3·√2 of (3·√2, 1·3), row 1 keeps 2·3 of (1·√2, 2·3),
// the last group stays. Its outputs are then (8, 4) and (3, 6): ‖x_0‖ = √73 = 8.544 and ‖x_1‖ = √52 = 7.211, so that in block 1 the
// 10 wins with 85.4 against 11.75·7.211 = 84.7. The dense outputs, (8, 5) and (6, 7), would let the second input win.
func TestABlockSeesThePrunedBlocksBefore(t *testing.T) {
	c := &chain{x: matrix([][]float32{{1, 0, 1}, {1, 3, 0}}),
		w: []tensor.Tensor{matrix([][]float32{{3, 1, 5}, {1, 2, 4}}), matrix([][]float32{{10, 11.7}, {10, -11.75}})}}
	var got []Layer
	err := Sequential(context.Background(), c, Wanda, Target{Pattern: sparse.Pattern{N: 1, M: 2}}, func(_ int, l []Layer) { got = append(got, l...) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []float32{3, 0, 5, 0, 2, 4}; !slices.Equal(c.w[0].Float32(), want) {
		t.Errorf("block 0 is %v, want %v", c.w[0].Float32(), want)
	}
	if want := []float32{10, 0, 10, 0}; !slices.Equal(c.w[1].Float32(), want) {
		t.Errorf("block 1 is %v, want %v", c.w[1].Float32(), want)
	}
	all := 2*100*73 + (11.7*11.7+11.75*11.75)*52
	if e := got[1].Energy; !(math.Abs(e-2*100*73/all) <= 1e-6) {
		t.Errorf("block 1 keeps %v of its scores, want %v", e, 2*100*73/all)
	}
	if got[0].Kept != 4 || got[0].Weights != 6 || got[1].Density != 0.5 {
		t.Errorf("the report says %+v", got)
	}
	if s := strings.Join(c.log, " "); s != "observe prune run observe prune run" {
		t.Errorf("the order was %s", s)
	}
}

func TestMagnitudeRunsNoBlock(t *testing.T) {
	c := &chain{w: []tensor.Tensor{matrix([][]float32{{3, -1}, {1, 2}})}}
	if err := Sequential(context.Background(), c, Magnitude, Target{Sparsity: 0.5}, func(int, []Layer) {}); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(c.log, " "); s != "prune" || !slices.Equal(c.w[0].Float32(), []float32{3, 0, 0, 2}) {
		t.Error(s, c.w[0].Float32())
	}
}

func TestInputsThatAreNotFiniteAreAnErrorThatNamesTheLinear(t *testing.T) {
	c := &chain{poison: true, x: matrix([][]float32{{1, 2}}), w: []tensor.Tensor{matrix([][]float32{{3, 1}})}}
	err := Sequential(context.Background(), c, Wanda, Target{Sparsity: 0.5}, func(int, []Layer) {})
	if err == nil || !strings.Contains(err.Error(), "prune: w: input 1 is not finite") {
		t.Error(err)
	}
}

type broken struct {
	*chain
	err error
}

func (b broken) Run(context.Context, int, func(int, tensor.Tensor)) error { return b.err }

func TestABlockThatFailsEndsThePruning(t *testing.T) {
	b := broken{&chain{w: []tensor.Tensor{matrix([][]float32{{3, 1}})}}, errors.New("no")}
	err := Sequential(context.Background(), b, Wanda, Target{Sparsity: 0.5}, func(int, []Layer) { t.Error("done") })
	if !errors.Is(err, b.err) {
		t.Error(err)
	}
}

func TestScoresBeyondFloat32AreMeasured(t *testing.T) {
	w, norm := matrix([][]float32{{3e38, -3e38, 1e38, 0}}), []float32{1e3, 1e3, 1e3, 1e3}
	r := measure(Linear{"w", w}, norm, []uint64{0b0011})
	if want := 18.0 / 19; !(math.Abs(r.Energy-want) <= 1e-6) || r.Kept != 2 {
		t.Errorf("%+v, want the share %.4f of the scores kept", r, want)
	}
}
