package cpu

import (
	"fmt"
	"math"

	"github.com/splora/splora/model/tensor"
)

type lossTask struct {
	loss, logits []float32
	target       []int32
	v            int
	grad         bool
}

// CrossEntropy sets loss_i = lse(logits_i) − logits_i[target_i] and, with grad, logits = softmax(logits) − onehot(target).
func (b *Backend) CrossEntropy(loss, logits, target tensor.Tensor, grad bool) {
	wantLen("crossentropy", "loss", loss, tensor.F32, logits.Rows)
	want("crossentropy", "logits", logits, tensor.F32, logits.Rows, logits.Cols)
	wantLen("crossentropy", "target", target, tensor.I32, logits.Rows)
	for i, k := range target.Int32() {
		if k < 0 || int(k) >= logits.Cols {
			panic(fmt.Sprintf("cpu: crossentropy: target %d of row %d, vocabulary %d", k, i, logits.Cols))
		}
	}
	b.tasks.loss = lossTask{loss.Float32(), logits.Float32(), target.Int32(), logits.Cols, grad}
	b.pool.run(&b.tasks.loss, logits.Rows, grain(8*logits.Cols))
}

func (t *lossTask) do(_ *worker, i, j int) {
	for ; i < j; i++ {
		x := t.logits[i*t.v : (i+1)*t.v]
		k := t.target[i]
		m, at := maxOf(x), x[k]
		sum := expSum(x, m)
		t.loss[i] = float32(math.Log(sum)) + (m - at)
		if t.grad {
			scale(x, float32(1/sum))
			x[k]--
		}
	}
}

// maxOf is the greatest element; NaNs do not count here, they come back through exp.
func maxOf(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

// expSum sets x = exp(x − m) and returns Σ x.
func expSum(x []float32, m float32) float64 {
	var sum float64
	for k, v := range x {
		x[k] = exp(v - m)
		sum += float64(x[k])
	}
	return sum
}

func scale(x []float32, a float32) {
	for k := range x {
		x[k] *= a
	}
}
