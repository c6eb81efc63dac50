package decoder

import (
	"math"
	"slices"
	"testing"

	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// leases watches who holds which block.
type leases struct {
	Weights
	t       *testing.T
	held    int // −1: none
	fetched []int
	blocks  []int
}

func (l *leases) Acquire(i int) *Block {
	if l.held >= 0 {
		l.t.Errorf("block %d is leased while block %d is held", i, l.held)
	}
	l.held, l.blocks = i, append(l.blocks, i)
	return l.Weights.Acquire(i)
}

func (l *leases) Prefetch(i int) { l.fetched = append(l.fetched, i) }

func (l *leases) Release(i int) {
	if l.held != i {
		l.t.Errorf("block %d is released, block %d is held", i, l.held)
	}
	l.held = -1
}

func TestOneBlockIsLeasedAtATimeAndTheNextOneIsAnnounced(t *testing.T) {
	for _, o := range []Options{{}, {Recompute: RecomputeNone}} {
		g := load(t, "llama")
		m := g.model(t, lora.SPLoRA, nil, o)
		l := &leases{Weights: m.Weights, t: t, held: -1}
		m.Weights = l
		grads(t, m, g.batch())
		if !slices.Equal(l.blocks, []int{0, 1, 1, 0}) || !slices.Equal(l.fetched, []int{1, 0}) || l.held >= 0 {
			t.Errorf("leased %v, announced %v, still held %d", l.blocks, l.fetched, l.held)
		}
	}
}

func TestStorageInBF16IsWidenedAndNeverRoundedAgain(t *testing.T) {
	g := load(t, "qwen2")
	narrow := map[string]tensor.Tensor{}
	for name, w := range g.t { // every matrix in bfloat16, and the same numbers in float32
		if w.DType == tensor.F32 && w.Rows > 1 && len(name) > 7 && name[len(name)-7:] == ".weight" {
			h := tensor.New(tensor.BF16, w.Rows, w.Cols)
			for i, v := range w.Float32() {
				h.Uint16()[i] = uint16(math.Float32bits(v) >> 16)
				w.Float32()[i] = math.Float32frombits(uint32(h.Uint16()[i]) << 16)
			}
			narrow[name] = h
		}
	}
	wide := g.model(t, lora.SPLoRA, nil, Options{})
	want, wantLoss := grads(t, wide, g.batch()), losses(t, wide, g.batch())
	for name, h := range narrow {
		g.t[name] = h
	}
	half := g.model(t, lora.SPLoRA, nil, Options{})
	if half.Weights.Embed().DType != tensor.BF16 || half.Weights.Acquire(0).Linears[Q].W.Values.DType != tensor.BF16 {
		t.Fatal("nothing is stored in bfloat16")
	}
	// Products may sum in another order for another type; a second rounding would be off by 1e-3.
	if e := distance(grads(t, half, g.batch()), want); !(e <= 1e-6) {
		t.Errorf("the same numbers in another storage type give gradients that are %.1e off", e)
	}
	for i, l := range losses(t, half, g.batch()) {
		if !(math.Abs(l-wantLoss[i]) <= 1e-6*wantLoss[i]) {
			t.Errorf("sequence %d: loss %v, want %v", i, l, wantLoss[i])
		}
	}
}
