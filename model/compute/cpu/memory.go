package cpu

import (
	"fmt"

	"github.com/splora/splora/model/tensor"
)

// Upload sets dst from host memory.
func (b *Backend) Upload(dst tensor.Tensor, src []byte) {
	if len(src) != dst.Bytes() {
		panic(fmt.Sprintf("cpu: upload of %d bytes to %s", len(src), dst))
	}
	copy(dst.Mem.Host, src)
}

// Download sets host memory from src.
func (b *Backend) Download(dst []byte, src tensor.Tensor) {
	if len(dst) != src.Bytes() {
		panic(fmt.Sprintf("cpu: download of %s to %d bytes", src, len(dst)))
	}
	copy(dst, src.Mem.Host)
}

type fillTask struct {
	dst act
	v   float32
}

// Fill sets every element of dst to v.
func (b *Backend) Fill(dst tensor.Tensor, v float32) {
	b.tasks.fill = fillTask{wantFlat("fill", "dst", dst, like("fill", "dst", dst), dst.Len()), v}
	b.pool.run(&b.tasks.fill, dst.Len(), 1<<16)
}

func (t *fillTask) do(_ *worker, i, j int) {
	if t.dst.half() {
		v := toBF16(t.v)
		for ; i < j; i++ {
			t.dst.h[i] = v
		}
		return
	}
	for ; i < j; i++ {
		t.dst.f[i] = t.v
	}
}

type copyTask struct{ dst, src tensor.Tensor }

// Copy sets dst = src, converting between F32, BF16 and F16.
func (b *Backend) Copy(dst, src tensor.Tensor) {
	if dst.Len() != src.Len() {
		panic(fmt.Sprintf("cpu: copy of %s to %s", src, dst))
	}
	if dst.DType != src.DType {
		wantFloat("copy", "dst", dst, dst.Rows, dst.Cols)
		wantFloat("copy", "src", src, src.Rows, src.Cols)
	}
	b.tasks.copyTask = copyTask{dst, src}
	b.pool.run(&b.tasks.copyTask, dst.Len(), 1<<15)
}

func (t *copyTask) do(w *worker, i, j int) {
	switch size := t.dst.DType.Size(); {
	case t.dst.DType == t.src.DType:
		copy(t.dst.Mem.Host[i*size:j*size], t.src.Mem.Host[i*size:j*size])
	case t.dst.DType == tensor.F32:
		w.widen(t.dst.Float32()[i:j], t.src, i)
	case t.src.DType == tensor.F32:
		w.narrow(t.dst, i, t.src.Float32()[i:j])
	default:
		row := w.scratch(j - i)
		w.widen(row, t.src, i)
		w.narrow(t.dst, i, row)
	}
}

type gatherTask struct {
	dst   act
	table tensor.Tensor
	rows  []int32
}

// Gather sets dst[i,:] = table[rows[i],:]; a row < 0 gives zeros.
func (b *Backend) Gather(dst, table, rows tensor.Tensor) {
	wantFloat("gather", "table", table, table.Rows, table.Cols)
	wantLen("gather", "rows", rows, tensor.I32, rows.Len())
	b.tasks.gather = gatherTask{wantAct("gather", "dst", dst, like("gather", "dst", dst), rows.Len(), table.Cols), table, rows.Int32()}
	b.pool.run(&b.tasks.gather, rows.Len(), grain(table.Cols))
}

func (t *gatherTask) do(w *worker, i, j int) {
	c := t.table.Cols
	for ; i < j; i++ {
		r := int(t.rows[i])
		switch {
		case r < 0:
			t.dst.zero(i*c, c)
		case t.dst.half() && t.table.DType == tensor.BF16:
			copy(t.dst.h[i*c:(i+1)*c], t.table.Uint16()[r*c:])
		default:
			row := w.out(0, t.dst, i*c, c)
			w.widen(row, t.table, r*c)
			if t.dst.half() {
				w.narrowBF16(t.dst.h[i*c:(i+1)*c], row)
			}
		}
	}
}

type scatterTask struct {
	dst, src []byte
	rows     []int32
	row      int // bytes
}

// Scatter sets dst[rows[i],:] = src[i,:]; a row < 0 is skipped.
func (b *Backend) Scatter(dst, src, rows tensor.Tensor) {
	dt := like("scatter", "dst", dst)
	want("scatter", "dst", dst, dt, dst.Rows, src.Cols)
	want("scatter", "src", src, dt, rows.Len(), src.Cols)
	wantLen("scatter", "rows", rows, tensor.I32, rows.Len())
	b.tasks.scatter = scatterTask{dst.Mem.Host, src.Mem.Host, rows.Int32(), src.Cols * dt.Size()}
	b.pool.run(&b.tasks.scatter, rows.Len(), grain(src.Cols))
}

func (t *scatterTask) do(_ *worker, i, j int) {
	for ; i < j; i++ {
		if r := int(t.rows[i]); r >= 0 {
			copy(t.dst[r*t.row:(r+1)*t.row], t.src[i*t.row:(i+1)*t.row])
		}
	}
}
