package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/splora/splora/data"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/tensor"
)

// gather gives every rank's v.
func gather[T any](ctx context.Context, t *trainer, v T) ([]T, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	all, err := t.Group.AllGatherBytes(ctx, b)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(all))
	for i := range all {
		if err := json.Unmarshal(all[i], &out[i]); err != nil {
			return nil, fmt.Errorf("from rank %d: %w", i, err)
		}
	}
	return out, nil
}

// evaluate adds the evaluation loss to rec: Σ loss / Σ tokens over the evaluation rows, each rank taking its share.
func (t *trainer) evaluate(ctx context.Context, rec *Record) error {
	t.Group.SetProgress(t.state.Step, "evaluating")
	var own struct {
		Loss   float64
		Tokens int
	}
	rows := make([]int, t.Eval.Len())
	for i := range rows {
		rows[i] = i
	}
	var b data.Batch
	for chunk := range slices.Chunk(data.Share(rows, t.Group.Rank(), t.Group.Size()), t.MicroBatch) {
		t.Eval.Batch(&b, chunk, 1)
		loss, tokens, err := t.model.Loss(input(&b, 0))
		if err != nil {
			return fmt.Errorf("evaluation: %w", err)
		}
		own.Loss, own.Tokens = own.Loss+loss, own.Tokens+tokens
	}
	all, err := gather(ctx, t, own)
	if err != nil {
		return err
	}
	sum, n := 0.0, 0
	for _, r := range all {
		sum, n = sum+r.Loss, n+r.Tokens
	}
	loss := sum / float64(n)
	if !finite(loss) {
		return fmt.Errorf("the evaluation loss is %v after step %d", loss, t.state.Step)
	}
	rec.EvalLoss = &loss
	if t.rank0() {
		t.say("evaluation after step %d: loss %.4f over %d tokens", t.state.Step, loss, n)
	}
	t.stop, err = t.keepBest(loss)
	if t.stop && t.rank0() {
		t.say("no better evaluation since step %d: stopping early", t.state.BestStep)
	}
	return err
}

// compareReplicas checks that all ranks hold the same bits.
func (t *trainer) compareReplicas(ctx context.Context) error {
	h := sha256.New()
	for _, v := range []tensor.Tensor{t.ad.Params, t.ad.M, t.ad.V} {
		h.Write(t.onHost(v).Mem.Host)
	}
	sums, err := gather(ctx, t, hex.EncodeToString(h.Sum(nil)))
	if err != nil {
		return err
	}
	for r, s := range sums {
		if s != sums[0] {
			return fmt.Errorf("the replicas differ: rank %d holds other adapters than rank 0 (sha256 %.12s and %.12s); resume from the last checkpoint, and check the memory of that host", r, s, sums[0])
		}
	}
	return nil
}

// nonFinite says where the numbers of step k left the finite ones. The weights have not been touched.
func (t *trainer) nonFinite(k int, loss, norm float64) error {
	own, err := t.firstNonFinite(k)
	if err != nil {
		return err
	}
	all, err := gather(context.Background(), t, own)
	if err != nil {
		return err
	}
	found := strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), "; ")
	if found == "" {
		found = "a second pass over the same rows was finite: the fault may lie in the machine"
	}
	return fmt.Errorf("loss %v, gradient norm %v: %s; the weights are as they were before the step; lower --lr, or look at those rows", loss, norm, found)
}

// firstNonFinite runs this rank's rows of step k again, watching: "" when all is finite.
func (t *trainer) firstNonFinite(k int) (string, error) {
	for rows := range slices.Chunk(t.share(k), t.MicroBatch) {
		t.Rows.Batch(&t.batch, rows, 1)
		in := t.input(k)
		at, err := t.model.FindNonFinite(in)
		if err != nil {
			return "", err
		}
		if at != nil {
			return fmt.Sprintf("rows %v: the first layer that is not finite in forward is %s (row %d, token %d)", rows, at.Module, rows[at.Sequence], at.Pos), nil
		}
		t.ad.ZeroGrads(t.be)
		if _, _, err := t.model.LossGrad(in); err != nil {
			return "", err
		}
		if name := t.ad.FirstNonFinite(t.be, t.ad.Grads); name != "" {
			return fmt.Sprintf("rows %v: the first gradient that is not finite is that of %s", rows, name), nil
		}
	}
	return "", nil
}

// input is the current micro-batch of step k as the model takes it.
func (t *trainer) input(k int) decoder.Batch { return input(&t.batch, k) }

func input(b *data.Batch, step int) decoder.Batch {
	return decoder.Batch{B: b.B, T: b.T, Tokens: b.Tokens, Targets: b.Targets, Positions: b.Positions, Docs: b.Docs, Rows: b.Rows, Step: step}
}
