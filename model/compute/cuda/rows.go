//go:build cuda

package cuda

import (
	"fmt"

	"github.com/splora/splora/model/compute/cuda/kernels"
	"github.com/splora/splora/model/tensor"
)

// Gather sets dst[i,:] = table[rows[i],:]; a row < 0 gives zeros.
func (b *Backend) Gather(dst, table, rows tensor.Tensor) {
	wantFloat("gather", "table", table, table.Rows, table.Cols)
	wantAct("gather", "dst", dst)
	want("gather", "dst", dst, dst.DType, rows.Len(), table.Cols)
	wantLen("gather", "rows", rows, tensor.I32, rows.Len())
	b.rows("rows", op2("gather", dst, table), rows.Len(), kernels.Threads, ptr(dst), ptr(table), ptr(rows), num(rows.Len()), num(table.Cols))
}

// Scatter sets dst[rows[i],:] = src[i,:]; a row < 0 is skipped.
func (b *Backend) Scatter(dst, src, rows tensor.Tensor) {
	wantAct("scatter", "dst", dst)
	want("scatter", "dst", dst, dst.DType, dst.Rows, src.Cols)
	want("scatter", "src", src, dst.DType, rows.Len(), src.Cols)
	wantLen("scatter", "rows", rows, tensor.I32, rows.Len())
	b.rows("rows", op1("scatter", dst), rows.Len(), kernels.Threads, ptr(dst), ptr(src), ptr(rows), num(rows.Len()), num(src.Cols))
}

// RMSNorm sets y = x·rstd ⊙ w and rstd = 1/√(mean(x²)+eps) per row.
func (b *Backend) RMSNorm(y, rstd, x, w tensor.Tensor, eps float32) {
	wantAct("rmsnorm", "x", x)
	want("rmsnorm", "x", x, x.DType, x.Rows, w.Len())
	want("rmsnorm", "y", y, x.DType, x.Rows, w.Len())
	wantLen("rmsnorm", "w", w, tensor.F32, w.Len())
	wantLen("rmsnorm", "rstd", rstd, tensor.F32, x.Rows)
	b.rows("norm", op1("rmsnorm", x), x.Rows, kernels.Threads, ptr(y), ptr(rstd), ptr(x), ptr(w), num(x.Rows), num(x.Cols), f32(eps))
}

// RMSNormBackward sets dx = rstd·(g − x·rstd²·mean(g ⊙ x)) + β·dx, g = dy ⊙ w, β 0 or 1.
func (b *Backend) RMSNormBackward(dx, dy, x, w, rstd tensor.Tensor, beta float32) {
	c := w.Len()
	wantAct("rmsnormbackward", "x", x)
	want("rmsnormbackward", "x", x, x.DType, x.Rows, c)
	want("rmsnormbackward", "dx", dx, x.DType, x.Rows, c)
	want("rmsnormbackward", "dy", dy, x.DType, x.Rows, c)
	wantLen("rmsnormbackward", "w", w, tensor.F32, c)
	wantLen("rmsnormbackward", "rstd", rstd, tensor.F32, x.Rows)
	if beta != 0 && beta != 1 {
		panic(fmt.Sprintf("cuda: rmsnormbackward: beta %v, want 0 or 1", beta))
	}
	b.rows("norm", op1("rmsnorm_back", x), x.Rows, kernels.Threads, ptr(dx), ptr(dy), ptr(x), ptr(w), ptr(rstd), num(x.Rows), num(c), f32(beta))
}

// Rope rotates x [N, heads·D] in place: (x_j, x_{j+D/2}) by the angle of (pos, j).
func (b *Backend) Rope(x, cos, sin, pos tensor.Tensor, heads int, sign float32) {
	wantAct("rope", "x", x)
	want("rope", "x", x, x.DType, pos.Len(), heads*2*cos.Cols)
	want("rope", "cos", cos, tensor.F32, cos.Rows, cos.Cols)
	want("rope", "sin", sin, tensor.F32, cos.Rows, cos.Cols)
	wantLen("rope", "pos", pos, tensor.I32, x.Rows)
	b.rows("rows", op1("rope", x), x.Rows, kernels.Threads, ptr(x), ptr(cos), ptr(sin), ptr(pos), num(x.Rows), num(heads), num(cos.Cols), f32(sign))
}

// CrossEntropy sets loss_i = lse(logits_i) − logits_i[target_i] and, with grad, logits = softmax(logits) − onehot(target).
func (b *Backend) CrossEntropy(loss, logits, target tensor.Tensor, grad bool) {
	wantAct("crossentropy", "logits", logits)
	wantLen("crossentropy", "loss", loss, tensor.F32, logits.Rows)
	want("crossentropy", "logits", logits, logits.DType, logits.Rows, logits.Cols)
	wantLen("crossentropy", "target", target, tensor.I32, logits.Rows)
	g := 0
	if grad {
		g = 1
	}
	b.rows("loss", op1("crossentropy", logits), logits.Rows, kernels.LossThreads, ptr(loss), ptr(logits), ptr(target), num(logits.Rows), num(logits.Cols), num(g))
}
