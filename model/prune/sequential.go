package prune

import (
	"context"
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

// Linear is one frozen linear of a block: its name and its dense weight F32 [out,in].
type Linear struct {
	Name string
	W    tensor.Tensor
}

// Model is what a sequential pruner needs: blocks that can be run, looked at, and pruned in place.
type Model interface {
	// Blocks is the number of transformer blocks.
	Blocks() int
	// Run takes every calibration sample's hidden states through block i with its present weights. With observe it is told
	// the input x [N,in] of each linear (an index of Linears) and the hidden states stay as they were; without, they are
	// replaced by the block's output.
	Run(ctx context.Context, i int, observe func(linear int, x tensor.Tensor)) error
	// Linears are block i's, dense.
	Linears(i int) ([]Linear, error)
	// Prune drops from block i, whose dense linears are given, the weights whose bits are 0, one mask a linear.
	Prune(i int, linears []Linear, masks [][]uint64) error
}

// Layer reports what became of one linear.
type Layer struct {
	Name    string  `json:"name"`
	Kept    int     `json:"kept"`
	Weights int     `json:"weights"`
	Density float64 `json:"density"`
	// Energy is Σ of squared scores of the kept weights over that of all: 1 means that nothing was lost.
	Energy float64 `json:"energy"`
}

// Sequential prunes all blocks of m in order. done is called after each block with its layers.
func Sequential(ctx context.Context, m Model, method Method, t Target, done func(block int, layers []Layer)) error {
	for i := range m.Blocks() {
		linears, err := m.Linears(i)
		if err != nil {
			return err
		}
		norms := make([]*norm, len(linears))
		for k, l := range linears {
			norms[k] = &norm{sq: make([]float64, l.W.Cols)}
		}
		if method == Wanda {
			if err := m.Run(ctx, i, func(k int, x tensor.Tensor) { norms[k].add(x) }); err != nil {
				return err
			}
		}
		masks, layers := make([][]uint64, len(linears)), make([]Layer, len(linears))
		for k, l := range linears {
			var n []float32
			if method == Wanda {
				if n, err = norms[k].value(); err != nil {
					return fmt.Errorf("prune: %s: %w", l.Name, err)
				}
			}
			masks[k] = Mask(l.W, n, t)
			layers[k] = measure(l, n, masks[k])
		}
		if err := m.Prune(i, linears, masks); err != nil {
			return err
		}
		if method == Wanda {
			if err := m.Run(ctx, i, nil); err != nil {
				return err
			}
		}
		done(i, layers)
	}
	return nil
}

// norm gathers ‖x_j‖₂ over calibration inputs.
type norm struct {
	sq   []float64
	rows int
}

// add adds the rows of x [N,in].
func (n *norm) add(x tensor.Tensor) {
	v := x.Float32()
	parallel(x.Cols, func(lo, hi int) {
		for i := range x.Rows {
			row := v[i*x.Cols : (i+1)*x.Cols]
			for j := lo; j < hi; j++ {
				n.sq[j] += float64(row[j]) * float64(row[j])
			}
		}
	})
	n.rows += x.Rows
}

// value is √(Σ x_j²); a common factor does not change which weights go.
func (n *norm) value() ([]float32, error) {
	out := make([]float32, len(n.sq))
	for j, s := range n.sq {
		if s-s != 0 {
			return nil, fmt.Errorf("input %d is not finite on the calibration data; is the model damaged?", j)
		}
		out[j] = float32(math.Sqrt(s / float64(max(1, n.rows))))
	}
	return out, nil
}

// measure sums s_ij² in float64, which holds the square of any product of two float32.
func measure(l Linear, norm []float32, mask []uint64) Layer {
	r := Layer{Name: l.Name, Weights: l.W.Len()}
	words, v := (l.W.Cols+63)/64, l.W.Float32()
	all, kept := 0.0, 0.0
	for i := range l.W.Rows {
		for j, w := range v[i*l.W.Cols : (i+1)*l.W.Cols] {
			s := float64(w)
			if norm != nil {
				s *= float64(norm[j])
			}
			e := s * s
			all += e
			if mask[i*words+j/64]>>(j%64)&1 == 1 {
				r.Kept++
				kept += e
			}
		}
	}
	r.Density, r.Energy = float64(r.Kept)/float64(r.Weights), 1
	if all > 0 {
		r.Energy = kept / all
	}
	return r
}
