package cpu

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

type lossTask struct {
	loss   []float32
	logits act
	target []int32
	v      int
	grad   bool
}

// CrossEntropy sets loss_i = lse(logits_i) − logits_i[target_i] and, with grad, logits = softmax(logits) − onehot(target).
func (b *Backend) CrossEntropy(loss, logits, target tensor.Tensor, grad bool) {
	wantLen("crossentropy", "loss", loss, tensor.F32, logits.Rows)
	l := wantAct("crossentropy", "logits", logits, like("crossentropy", "logits", logits), logits.Rows, logits.Cols)
	wantLen("crossentropy", "target", target, tensor.I32, logits.Rows)
	for i, k := range target.Int32() {
		if k < 0 || int(k) >= logits.Cols {
			panic(fmt.Sprintf("cpu: crossentropy: target %d of row %d, vocabulary %d", k, i, logits.Cols))
		}
	}
	b.tasks.loss = lossTask{loss.Float32(), l, target.Int32(), logits.Cols, grad}
	b.pool.run(&b.tasks.loss, logits.Rows, grain(8*logits.Cols))
}

func (t *lossTask) do(w *worker, i, j int) {
	for ; i < j; i++ {
		x := w.in(0, t.logits, i*t.v, t.v)
		k := t.target[i]
		m, at := w.max(x), x[k]
		sum := w.expSum(x, m)
		t.loss[i] = float32(math.Log(sum)) + (m - at)
		if t.grad {
			w.scale(x, float32(1/sum))
			x[k]--
			w.put(t.logits, i*t.v, x)
		}
	}
}
