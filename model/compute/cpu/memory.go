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
	dst []float32
	v   float32
}

// Fill sets every element of dst to v.
func (b *Backend) Fill(dst tensor.Tensor, v float32) {
	wantLen("fill", "dst", dst, tensor.F32, dst.Len())
	b.tasks.fill = fillTask{dst.Float32(), v}
	b.pool.run(&b.tasks.fill, dst.Len(), 1<<16)
}

func (t *fillTask) do(_ *worker, i, j int) {
	for k := range t.dst[i:j] {
		t.dst[i+k] = t.v
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
		widen(t.dst.Float32()[i:j], t.src, i)
	case t.src.DType == tensor.F32:
		narrow(t.dst, i, t.src.Float32()[i:j])
	default:
		row := w.scratch(j - i)
		widen(row, t.src, i)
		narrow(t.dst, i, row)
	}
}

type gatherTask struct {
	dst   []float32
	table tensor.Tensor
	rows  []int32
}

// Gather sets dst[i,:] = table[rows[i],:]; a row < 0 gives zeros.
func (b *Backend) Gather(dst, table, rows tensor.Tensor) {
	wantFloat("gather", "table", table, table.Rows, table.Cols)
	want("gather", "dst", dst, tensor.F32, rows.Len(), table.Cols)
	wantLen("gather", "rows", rows, tensor.I32, rows.Len())
	b.tasks.gather = gatherTask{dst.Float32(), table, rows.Int32()}
	b.pool.run(&b.tasks.gather, rows.Len(), grain(table.Cols))
}

func (t *gatherTask) do(_ *worker, i, j int) {
	c := t.table.Cols
	for ; i < j; i++ {
		if row := t.dst[i*c : (i+1)*c]; t.rows[i] < 0 {
			clear(row)
		} else {
			widen(row, t.table, int(t.rows[i])*c)
		}
	}
}

type scatterTask struct {
	dst, src []float32
	rows     []int32
	c        int
}

// Scatter sets dst[rows[i],:] = src[i,:]; a row < 0 is skipped.
func (b *Backend) Scatter(dst, src, rows tensor.Tensor) {
	want("scatter", "dst", dst, tensor.F32, dst.Rows, src.Cols)
	want("scatter", "src", src, tensor.F32, rows.Len(), src.Cols)
	wantLen("scatter", "rows", rows, tensor.I32, rows.Len())
	b.tasks.scatter = scatterTask{dst.Float32(), src.Float32(), rows.Int32(), src.Cols}
	b.pool.run(&b.tasks.scatter, rows.Len(), grain(src.Cols))
}

func (t *scatterTask) do(_ *worker, i, j int) {
	for ; i < j; i++ {
		if r := int(t.rows[i]); r >= 0 {
			copy(t.dst[r*t.c:(r+1)*t.c], t.src[i*t.c:(i+1)*t.c])
		}
	}
}
