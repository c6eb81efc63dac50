package decoder

import (
	"slices"
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
)

// ledger counts what is allocated, in pieces of align.
type ledger struct {
	compute.Memory
	align, n int
}

func (l *ledger) Alloc(n int) tensor.Mem {
	l.n += max(1, (n+l.align-1)/l.align) * l.align
	return l.Memory.Alloc(n)
}

func TestWeightsInAnotherMemoryAreTheSameModelAndTheirSizeIsKnownBefore(t *testing.T) {
	for _, name := range []string{"llama_bias_packed", "qwen2", "qwen3"} { // biases, a tied head, qk-norm
		g := load(t, name)
		m := g.model(t, lora.SPLoRA, nil, Options{})
		want, wantLoss := grads(t, m, g.batch()), losses(t, m, g.batch())
		host := g.weights(t)
		be := cpu.New(cpu.Config{Threads: 1})
		defer be.Close()
		mem := &ledger{be, 256, 0}
		moved := host.On(mem)
		if size := host.Size(256); size != mem.n {
			t.Errorf("%s: the size is said to be %d, %d were allocated", name, size, mem.n)
		}
		if same(moved.Embed(), host.Embed()) || same(moved.Blocks[1].Linears[Down].W.Values, host.Blocks[1].Linears[Down].W.Values) {
			t.Errorf("%s: the memory is the same", name)
		}
		if same(moved.Embed(), moved.Head()) != same(host.Embed(), host.Head()) {
			t.Errorf("%s: the head is tied in one only", name)
		}
		clear(host.Norm.Mem.Host) // nobody reads the old ones
		for i := range host.Blocks {
			clear(host.Blocks[i].Linears[Q].W.Values.Mem.Host)
		}
		m.Weights = moved
		m.Adapters.ZeroGrads(m)
		if !slices.Equal(grads(t, m, g.batch()), want) || !slices.Equal(losses(t, m, g.batch()), wantLoss) {
			t.Errorf("%s: other results", name)
		}
	}
}
