package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/splora/splora/data"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/model/tensor"
	"github.com/splora/splora/optim"
)

// LoRA is the adapters' part of the configuration.
func (c *Config) LoRA() (lora.Config, error) {
	m, err := lora.ParseMethod(c.Method)
	if err != nil {
		return lora.Config{}, err
	}
	l := lora.Config{Method: m, Rank: c.Rank, Alpha: c.Alpha, RSLoRA: c.RSLoRA, Dropout: c.Dropout, Seed: c.Seed, Targets: c.Targets}
	if err := l.Validate(decoder.Linears[:]); err != nil {
		return l, usageError{err}
	}
	return l, nil
}

// Options is the model's part of the configuration, for rows of at most longest tokens.
func (c *Config) Options(longest int) decoder.Options {
	o := decoder.Options{Batch: c.MicroBatch, Seq: longest}
	if c.Recompute == "none" {
		o.Recompute = decoder.RecomputeNone
	}
	switch c.Memory {
	case "auto":
		o.Memory = decoder.MemoryAuto
	case "fused":
		o.Memory = decoder.MemoryFused
	}
	if c.DType == "bfloat16" {
		o.DType = tensor.BF16
	}
	return o
}

// build makes the model and its adapters, all zero.
func (t *trainer) build() error {
	if n := t.Group.Size(); n > lora.MaxRanks {
		return usageError{fmt.Errorf("%d ranks: at most %d add up exactly", n, lora.MaxRanks)}
	}
	lc, err := t.Config.LoRA()
	if err != nil {
		return err
	}
	shapes, err := decoder.Targets(t.Arch, t.Weights, lc)
	if err != nil {
		return err
	}
	longest := t.Rows.Longest()
	if t.Eval != nil {
		longest = max(longest, t.Eval.Longest())
	}
	options := t.Config.Options(longest)
	t.be = t.Backend
	if err := t.place(lc, options); err != nil {
		return err
	}
	t.ad = lora.New(t.be, lc, shapes, true)
	t.model, err = decoder.New(t.be, t.Arch, t.Weights, t.ad, options)
	if d, ok := t.be.(compute.Planned); ok {
		d.Seal()
	}
	return err
}

// place refuses what the memory cannot hold, before anything is allocated, and moves the weights to a device with memory of its own.
func (t *trainer) place(lc lora.Config, o decoder.Options) (err error) {
	if err := t.checkRoom(lc, o); err != nil {
		return err
	}
	d, ok := t.be.(compute.Planned)
	if !ok {
		return nil
	}
	p, err := decoder.Estimate(t.be, t.Arch, t.Weights, &lc, true, o)
	if err == nil {
		t.Weights, err = Place(t.be, d, t.Weights, p)
		debug.FreeOSMemory() // what was packed on the host has moved
	}
	return err
}

// Place reserves on a device what the weights and the plan need, and moves the weights there.
func Place(mem compute.Memory, d compute.Planned, w decoder.Weights, p decoder.Plan) (decoder.Weights, error) {
	host := w.(*decoder.Resident)
	const most = 64 // vectors and buffers that the plan counts, each rounded up
	pieces := most + 2*len(host.Blocks)
	if err := d.Reserve(host.Size(d.Align()) + p.Total() + pieces*d.Align()); err != nil {
		return nil, err
	}
	return host.On(mem), nil
}

// CheckRows refuses a micro-batch that no model has room for on this host, and whose estimate, which grows with it, would be large itself.
func CheckRows(o decoder.Options) error {
	if room := HostMemory(); room > 0 && o.Batch > room/64/o.Seq {
		return fmt.Errorf("--micro-batch %d of %d tokens: no model has room for them, this host has %s of memory; lower --micro-batch or --seq", o.Batch, o.Seq, humanize.Bytes(uint64(room)))
	}
	return nil
}

// checkRoom refuses what this host cannot hold, before anything is allocated. A device refuses for itself.
func (t *trainer) checkRoom(lc lora.Config, o decoder.Options) error {
	if err := CheckRows(o); err != nil {
		return err
	}
	room := HostMemory()
	if room == 0 {
		return nil
	}
	if _, own := t.be.(compute.Planned); own {
		return nil
	}
	p, err := decoder.Estimate(t.be, t.Arch, t.Weights, &lc, true, o)
	if err != nil {
		return err
	}
	f := Measure(t.Weights, t.Arch, p)
	f.Mapped, f.Process = t.Mapped, t.Process
	ranks := max(1, t.LocalRanks)
	if f.Anonymous() <= room/ranks {
		return nil
	}
	return fmt.Errorf("a rank would need %s beside the mapped model (activations %s, adapters with gradients and moments %s), %d on this host %s, and the host has %s; lower --micro-batch, --seq, --rank or the number of ranks: splora plan tells what a run needs",
		humanize.Bytes(uint64(f.Anonymous())), humanize.Bytes(uint64(p.Stack)), humanize.Bytes(uint64(p.Adapters+p.Gradients+p.Moments)), ranks, humanize.Bytes(uint64(ranks*f.Anonymous())), humanize.Bytes(uint64(room)))
}

// begin sets the state, the adapters and the schedule to where the run starts: at a checkpoint, at --adapter, or anew. Rank 0
// reads, the others are told, so that no other rank needs its files.
func (t *trainer) begin(ctx context.Context) error {
	var start struct {
		State State
		Err   string
		Usage bool
	}
	if t.rank0() {
		s, err := t.read()
		start.State = s
		if err != nil {
			start.Err, start.Usage = err.Error(), IsUsage(err)
		}
	}
	if err := t.tell(ctx, &start); err != nil {
		return err
	}
	if start.Err != "" {
		err := errors.New(start.Err)
		if start.Usage {
			return usageError{err}
		}
		return err
	}
	t.state = start.State
	t.stop = t.Patience > 0 && t.state.SinceBest >= t.Patience
	for _, v := range []tensor.Tensor{t.ad.Params, t.ad.M, t.ad.V} {
		if err := t.broadcast(v); err != nil {
			return err
		}
	}
	t.ad.Refresh(t.be)
	t.order = data.NewSampler(t.Rows.Len(), t.Seed, t.Shuffle)
	t.sched = t.rate()
	return errors.Join(t.sched.Validate(), t.adam.Validate())
}

// tell gives rank 0's v to all ranks.
func (t *trainer) tell(ctx context.Context, v any) error {
	var mine []byte
	if t.rank0() {
		var err error
		if mine, err = json.Marshal(v); err != nil {
			return err
		}
	}
	all, err := t.Group.AllGatherBytes(ctx, mine)
	if err != nil {
		return err
	}
	return json.Unmarshal(all[0], v)
}

// read is rank 0's: it finds the checkpoint, checks that this run may follow it, and reads the adapters. A run that is refused
// has changed nothing in OUT.
func (t *trainer) read() (State, error) {
	if err := t.hold(); err != nil {
		return State{}, err
	}
	dir, s, err := t.find()
	if err != nil {
		return s, err
	}
	now, err := t.fresh(s.GlobalBatch)
	if err != nil {
		return s, err
	}
	if err := t.checkOut(dir); err != nil {
		return s, err
	}
	if dir == "" {
		if err := t.readAnew(); err != nil {
			return s, err
		}
		return now, t.enter(0)
	}
	if err := s.mayFollow(now); err != nil {
		return s, usageError{fmt.Errorf("resume %s: %w", dir, err)}
	}
	s = s.follow(now)
	if err := t.readCheckpoint(dir); err != nil {
		return s, fmt.Errorf("resume %s: %w", dir, err)
	}
	if err := t.enter(s.Step); err != nil {
		return s, err
	}
	if s.Step < s.TotalSteps {
		t.say("resuming from %s", dir)
		if t.Adapter != "" {
			t.say("--adapter %s is not read: the checkpoint has this run's adapters", t.Adapter)
		}
	}
	return s, nil
}

// find gives the checkpoint to go on from. A restart by the launcher goes on with what the job has saved, whatever --resume
// said at its beginning.
func (t *trainer) find() (dir string, s State, err error) {
	warn := func(w string) { t.Log.Warn(w) }
	if t.Restarted {
		if dir, s, err = findCheckpoint("auto", t.Out, warn); err == nil && dir != "" && s.Job == t.Job {
			return dir, s, nil
		}
	}
	return findCheckpoint(t.Resume, t.Out, warn)
}

// checkOut refuses to mix a run that begins anew, or from a checkpoint elsewhere, with another one's checkpoints.
func (t *trainer) checkOut(resume string) error {
	steps, err := checkpoints(t.Out)
	if err != nil || len(steps) == 0 {
		return err
	}
	here, err1 := os.Stat(t.Out)
	from, err2 := os.Stat(filepath.Dir(filepath.Clean(resume)))
	if resume != "" && err1 == nil && err2 == nil && os.SameFile(here, from) {
		return nil
	}
	return usageError{fmt.Errorf("%s holds checkpoints of another run, and --resume %s would mix them with this one's: choose another --out, or remove them", t.Out, t.Resume)}
}

// hold waits for a run that is on its way out of OUT before the checkpoints there are looked at: it may be saving its last one.
func (t *trainer) hold() error {
	if _, err := os.Stat(filepath.Join(t.Out, metricsFile)); err != nil { // no run has been here
		return nil
	}
	return t.lock()
}

func (t *trainer) lock() (err error) {
	patience := 2 * time.Second // a run that was killed a moment ago may still be on its way out
	if t.Restarted {
		patience = lockLease
	}
	t.metrics, err = openMetrics(filepath.Join(t.Out, metricsFile), patience)
	return err
}

// enter makes OUT this run's: nobody else writes there, and nothing is left of later steps than the one it goes on from.
func (t *trainer) enter(step int) error {
	if err := os.MkdirAll(t.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", explain(err))
	}
	if t.metrics == nil {
		if err := t.lock(); err != nil {
			return err
		}
	}
	if err := removeLeftovers(t.Out); err != nil {
		return err
	}
	if err := setAsideAfter(t.Out, step); err != nil {
		return err
	}
	return t.metrics.cut(step)
}

// fresh is the state of a run that has not begun. The global batch is what the configuration says, else what the checkpoint
// that is resumed from says, else world × accum × micro-batch.
func (t *trainer) fresh(resumed int) (State, error) {
	b := t.GlobalBatch
	if b == 0 {
		b = resumed
	}
	if b == 0 {
		b = t.Group.Size() * t.Accum * t.MicroBatch
	}
	steps := t.MaxSteps
	if steps == 0 {
		n := t.Epochs * float64(t.Rows.Len()) / float64(b)
		if n > most {
			return State{}, usageError{fmt.Errorf("--epochs %v: %.3g steps of %d rows are more than %d", t.Epochs, n, b, most)}
		}
		steps = max(1, int(math.Ceil(n-1e-9*n))) // 1.1 epochs of 10 rows are 11, not 11.000000000000002
	}
	s := State{TotalSteps: steps, GlobalBatch: b, World: t.Group.Size(), Job: t.Job, Model: t.ModelID, Data: t.DataID, Settings: t.Config.settings()}
	if t.Eval != nil {
		s.Eval = t.Eval.Key()
	}
	return s, nil
}

// readAnew sets the adapters to --adapter's, or to their random beginning.
func (t *trainer) readAnew() error {
	if t.Adapter == "" {
		t.ad.Init(t.be, t.Seed)
		return nil
	}
	return t.readAdapter(t.Adapter)
}

func (t *trainer) rate() optim.Schedule {
	warmup := t.WarmupSteps
	if t.WarmupRatio > 0 {
		warmup = int(math.Ceil(t.WarmupRatio * float64(t.state.TotalSteps)))
	}
	return optim.Schedule{Kind: optim.Kind(t.Schedule), LR: t.LR, MinLR: t.MinLR, Warmup: warmup, Total: t.state.TotalSteps}
}
