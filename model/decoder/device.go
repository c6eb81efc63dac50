package decoder

import (
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// On is the same weights in another memory: each tensor is allocated and uploaded there, once. r may be dropped afterwards.
func (r *Resident) On(mem compute.Memory) *Resident {
	return r.moved(func(m tensor.Mem) tensor.Mem {
		d := mem.Alloc(len(m.Host))
		mem.Upload(tensor.Tensor{DType: tensor.U8, Rows: 1, Cols: len(m.Host), Mem: d}, m.Host)
		return d
	})
}

// Size is what On allocates, in bytes, with every piece rounded up to align.
func (r *Resident) Size(align int) (n int) {
	r.moved(func(m tensor.Mem) tensor.Mem {
		n += max(1, (len(m.Host)+align-1)/align) * align
		return m
	})
	return n
}

// moved is a copy of r whose memory is f of r's. Absent tensors stay absent, and a tied head is the embedding.
func (r *Resident) moved(f func(tensor.Mem) tensor.Mem) *Resident {
	to := func(t tensor.Tensor) tensor.Tensor {
		if t.Mem.Host != nil {
			t.Mem = f(t.Mem)
		}
		return t
	}
	d := &Resident{EmbedTable: to(r.EmbedTable), Norm: to(r.Norm), Blocks: make([]Block, len(r.Blocks))}
	d.HeadTable = d.EmbedTable
	if !same(r.HeadTable, r.EmbedTable) {
		d.HeadTable = to(r.HeadTable)
	}
	for i, b := range r.Blocks {
		b.AttnNorm, b.MLPNorm, b.QNorm, b.KNorm = to(b.AttnNorm), to(b.MLPNorm), to(b.QNorm), to(b.KNorm)
		for j := range b.Linears {
			l := &b.Linears[j]
			l.Bias, l.W = to(l.Bias), movedWeight(l.W, f)
		}
		d.Blocks[i] = b
	}
	return d
}

func movedWeight(w *sparse.Weight, f func(tensor.Mem) tensor.Mem) *sparse.Weight {
	d := *w
	for _, m := range []*tensor.Mem{&d.Values.Mem, &d.Bits, &d.Starts} {
		if m.Host != nil {
			*m = f(*m)
		}
	}
	return &d
}
