// Package train is one rank of a fine-tuning run: the step, the loop around it, checkpoints and the report.
//
//	for each micro-batch of this rank's share of global batch k:
//	    Σloss, Σtokens, grads += model(micro-batch)           un-normalised sums, no communication
//	AllReduce(grads | Σloss, Σtokens, stop)                    the step's only collective
//	ĝ = grads/Σtokens · min(1, clip/‖grads/Σtokens‖)           AdamW(params, ĝ)
//
// Every rank holds the same numbers after the all-reduce, so all of them stop, save and fail at the same step without a
// further word.
package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/splora/splora/data"
	"github.com/splora/splora/dist"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
	"github.com/splora/splora/optim"
)

// ErrStopped ends a run that a signal stopped after a checkpoint was published.
var ErrStopped = errors.New("stopped on a signal; a checkpoint is published: run the same command again to go on")

// Env is what a rank is given: its place, its model, its rows and its device.
type Env struct {
	Arch    decoder.Config
	Weights decoder.Weights
	Backend compute.Backend
	Group   dist.Group
	Rows    *data.Set
	Eval    *data.Set // may be nil
	Tok     data.Tokenizer

	Process, Mapped int              // bytes: of the program without the model (Program), and of the model's mapped part
	Block           int              // bytes of the largest block of a streamed base; 0: it is not streamed
	LocalRanks      int              // ranks on this host; 0: 1
	OnDevice        bool             // Group takes vectors in the backend's memory; otherwise they travel by way of the host
	ModelID, DataID string           // identities of the model's content and of the rows
	Job             string           // the launcher's; kept in checkpoints
	Restarted       bool             // the launcher has started this job before: what it left there goes before --resume
	Signals         <-chan os.Signal // any signal asks for a checkpoint and a stop
	Reached         func(step int)   // told on every rank when a checkpoint of that step is due
	Log             *zap.Logger
	Err             io.Writer // progress, for people

	Health func() (launch.Health, bool) // of this rank's GPU, by the driver; nil: it has none
}

// trainer is a run of this rank.
type trainer struct {
	Config
	Env
	be      compute.Backend
	model   *decoder.Model
	ad      *lora.Adapters
	adam    optim.AdamW
	sched   optim.Schedule
	order   *data.Sampler
	state   State
	metrics *metrics // rank 0
	report  *reporter
	batch   data.Batch
	host    tensor.Tensor // where vectors of a device travel through
	stop    bool
	gc      func() // undoes steady
}

// Run trains until the last step, a signal (ErrStopped), an early stop, or an error that names the step.
func Run(ctx context.Context, c Config, env Env) error {
	t := &trainer{Config: c, Env: env, adam: optim.AdamW{Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.Eps, WeightDecay: c.WeightDecay},
		report: &reporter{w: env.Err, log: env.Log, json: c.LogFormat == "json", every: c.LogEvery}}
	t.gc = func() {}
	defer func() { t.gc() }()
	err := t.prepare(ctx)
	if err != nil {
		err = fmt.Errorf("train: %w", err)
	} else {
		err = t.loop(ctx)
	}
	if t.metrics != nil {
		err = errors.Join(err, t.metrics.Close())
	}
	return err
}

// prepare does all that comes before the first step.
func (t *trainer) prepare(ctx context.Context) error {
	debug.FreeOSMemory() // what reading tokenizer and rows has left
	if err := t.build(); err != nil {
		return err
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	t.gc = steady()
	t.report.begin(t.state)
	if t.rank0() {
		return t.announce()
	}
	return nil
}

func (t *trainer) rank0() bool { return t.Group.Rank() == 0 }

// loop runs the steps that are left. Its errors name the step.
func (t *trainer) loop(ctx context.Context) error {
	for t.state.Step < t.state.TotalSteps && !t.stop {
		k := t.state.Step
		rec, stop, err := t.step(k)
		if err == nil {
			err = t.after(ctx, rec, stop)
		}
		if errors.Is(err, ErrStopped) {
			return err
		}
		if err != nil {
			return fmt.Errorf("train: step %d: %w", k+1, err)
		}
	}
	if err := t.finish(ctx); err != nil {
		return fmt.Errorf("train: after the last step: %w", err)
	}
	return nil
}

// step is optimizer step k, from 0. stop tells that some rank was signalled.
func (t *trainer) step(k int) (rec Record, stop bool, err error) {
	began, sent := time.Now(), communicated(t.Group)
	t.Group.SetProgress(k+1, "forward and backward")
	own, err := t.gradients(k)
	if err != nil {
		return rec, false, err
	}
	t.ad.PutScalars(t.be, own)
	t.Group.SetProgress(k+1, "all-reduce")
	if err := t.allReduce(t.ad.Wire()); err != nil {
		return rec, false, err
	}
	all := t.ad.Scalars(t.be)
	if all.Tokens == 0 {
		return rec, false, errors.New("the global batch has no trained token; look at the rows with splora tokenize, or raise --seq")
	}
	norm := optim.Norm(t.be, t.ad.Grads, 1/float64(all.Tokens))
	loss := all.Loss / float64(all.Tokens)
	if !finite(loss) || !finite(norm) {
		return rec, false, t.nonFinite(k, loss, norm)
	}
	lr := t.sched.At(k + 1)
	t.adam.Step(t.be, t.ad.Params, t.ad.Grads, t.ad.M, t.ad.V, k+1, lr, optim.Clip(norm, t.Config.Clip)/float64(all.Tokens))
	t.ad.Refresh(t.be)
	if err := t.be.Sync(); err != nil {
		return rec, false, err
	}
	t.state.Step, t.state.Tokens = k+1, t.state.Tokens+all.Tokens
	t.state.Row = int64(k+1) * int64(t.state.GlobalBatch)
	s, first := time.Since(began).Seconds(), 0.0
	if k == t.report.first {
		first = sinceStart().Seconds()
	}
	return Record{
		Step: k + 1, Loss: loss, GradNorm: norm, LR: lr, Tokens: all.Tokens, StepS: s, TokensPerS: float64(all.Tokens) / max(s, 1e-9),
		PeakRSSBytes: PeakRSS(), CommBytes: communicated(t.Group) - sent,
		Epoch: t.order.Epoch(k+1, t.state.GlobalBatch), World: t.Group.Size(), Generation: t.Group.Generation(), FirstStepS: first, GPU: t.gpu(),
	}, all.Stop > 0, nil
}

// communicated is what this rank has written to its data connections, and the vectors that it has given to NCCL.
func communicated(g dist.Group) int64 {
	t := g.Traffic()
	return t.DataWritten + t.DeviceBytes
}

// gradients sets the gradients to the sums over this rank's share of global batch k.
func (t *trainer) gradients(k int) (own lora.Scalars, err error) {
	t.ad.ZeroGrads(t.be)
	if t.signalled() {
		own.Stop = 1
	}
	for rows := range slices.Chunk(t.share(k), t.MicroBatch) {
		t.Rows.Batch(&t.batch, rows, 1)
		loss, tokens, err := t.model.LossGrad(t.input(k))
		if err != nil {
			return own, err
		}
		own.Loss, own.Tokens = own.Loss+loss, own.Tokens+int64(tokens)
	}
	return own, nil
}

func (t *trainer) share(k int) []int {
	return data.Share(t.order.GlobalBatch(k, t.state.GlobalBatch), t.Group.Rank(), t.Group.Size())
}

func (t *trainer) signalled() bool {
	select {
	case s := <-t.Signals:
		t.Log.Info("signal: saving and stopping after this step", zap.Stringer("signal", s))
		return true
	default:
		return false
	}
}

// after does what is due when a step is done: evaluate, report, check, save.
func (t *trainer) after(ctx context.Context, rec Record, stop bool) error {
	last := rec.Step == t.state.TotalSteps
	if t.Eval != nil && (last || due(rec.Step, t.EvalEvery)) {
		if err := t.evaluate(ctx, &rec); err != nil {
			return err
		}
	}
	if t.rank0() {
		if err := t.metrics.append(rec); err != nil {
			return err
		}
		t.report.step(rec)
	}
	if due(rec.Step, t.ChecksumEvery) || last && t.ChecksumEvery > 0 {
		if err := t.compareReplicas(ctx); err != nil {
			return err
		}
	}
	if stop || last || t.stop || due(rec.Step, t.SaveEvery) {
		if err := t.save(); err != nil {
			return err
		}
	}
	if !stop || last {
		return nil
	}
	if err := t.Group.Barrier(ctx); err != nil { // no rank says that a checkpoint stands before it does
		return err
	}
	if t.Resume != "auto" {
		return fmt.Errorf("%w, with --resume auto", ErrStopped)
	}
	return ErrStopped
}

// finite is false for NaN and the infinities.
func finite(x float64) bool { return x-x == 0 }

func due(step, every int) bool { return every > 0 && step%every == 0 }
