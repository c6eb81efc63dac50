package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/dist"
	"github.com/splora/splora/model/lora"
)

// apart is ‖a−b‖₂/‖b‖₂.
func apart(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		d += math.Pow(float64(a[i])-float64(b[i]), 2)
		n += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(d / n)
}

func mustRun(t *testing.T, j *job) {
	t.Helper()
	if err := j.run(t); err != nil {
		t.Fatalf("world %d: %v\n%s", j.world, err, j.progress.String())
	}
}

func TestAnyNumberOfRanksTrainsAsOneRankWithTheSameGlobalBatch(t *testing.T) {
	for _, b := range []int{4, 5} { // 5 is divided evenly by none of 2, 3
		one := newJob(t, 1)
		one.GlobalBatch = b
		mustRun(t, one)
		want, curve := adapter(t, one.Out), records(t, one.Out)
		for _, world := range []int{2, 3} {
			j := newJob(t, world)
			j.GlobalBatch, j.MicroBatch = b, 2
			mustRun(t, j)
			// float32 sums in another order, through 8 steps of AdamW, whose first steps are ±lr whatever the gradient's size.
			if d := apart(adapter(t, j.Out), want); !(d <= 1e-4) {
				t.Errorf("batch %d on %d ranks: adapters differ by %g", b, world, d)
			}
			for i, r := range records(t, j.Out) {
				if !(math.Abs(r.Loss-curve[i].Loss) <= 1e-5*curve[i].Loss) || r.Tokens != curve[i].Tokens {
					t.Errorf("batch %d on %d ranks, step %d: loss %v of %d tokens, want %v of %d", b, world, r.Step, r.Loss, r.Tokens, curve[i].Loss, curve[i].Tokens)
				}
				if !(math.Abs(r.GradNorm-curve[i].GradNorm) <= 1e-3*curve[i].GradNorm) {
					t.Errorf("batch %d on %d ranks, step %d: gradient norm %v, want %v", b, world, r.Step, r.GradNorm, curve[i].GradNorm)
				}
			}
		}
	}
}

func TestFusedAndAutoWalkTheKeptWeightsAndTrainAsReuseDoes(t *testing.T) {
	reuse, fused, auto := newJob(t, 1), newJob(t, 2), newJob(t, 2)
	reuse.Memory = "reuse"
	fused.Memory, fused.rows = "fused", reuse.rows
	auto.rows = reuse.rows
	mustRun(t, auto)
	mustRun(t, reuse)
	mustRun(t, fused)
	// As between numbers of ranks: float32 sums in another order, through 8 steps of AdamW.
	if d := apart(adapter(t, fused.Out), adapter(t, reuse.Out)); !(d <= 1e-4) {
		t.Errorf("adapters differ by %g", d)
	}
	if r, f, a := reuse.walks.Load(), fused.walks.Load(), auto.walks.Load(); r != 0 || f == 0 || a != f {
		t.Errorf("reuse walked %d linears, fused %d, auto %d", r, f, a)
	}
	if err := (&job{Config: func() Config { c := fused.Config; c.Memory = "less"; return c }()}).Validate(); err == nil || !IsUsage(err) {
		t.Errorf("--memory less: %v", err)
	}
}

func TestTheLossFalls(t *testing.T) {
	j := newJob(t, 1)
	j.MaxSteps, j.GlobalBatch, j.Schedule = 30, 11, "constant"
	mustRun(t, j)
	r := records(t, j.Out)
	if first, last := r[0].Loss, r[29].Loss; !(last < 0.8*first) {
		t.Errorf("loss %v → %v after 30 passes over the same rows", first, last)
	}
}

func TestStoppingAndResumingGivesTheSameBits(t *testing.T) {
	for i, dtype := range []string{"float32", "float32", "bfloat16", "bfloat16"} {
		world := 1 + i%2
		whole := newJob(t, world)
		whole.DType = dtype
		mustRun(t, whole)
		cut := newJob(t, world)
		cut.DType = dtype
		cut.rows, cut.stopAfter = whole.rows, 3
		if err := cut.run(t); !errors.Is(err, ErrStopped) {
			t.Fatalf("world %d: %v, want ErrStopped", world, err)
		}
		// The signal is sent after step 3 and rides on the all-reduce of the next step that its rank begins: 4, or 5.
		if n := len(records(t, cut.Out)); n != 4 && n != 5 {
			t.Fatalf("world %d: stopped after %d steps, want 4 or 5", world, n)
		}
		cut.stopAfter = 0
		mustRun(t, cut)
		for _, f := range []string{"adapter_model.safetensors", "checkpoint-8/optimizer.safetensors", "checkpoint-8/adapter_model.safetensors"} {
			a, err1 := os.ReadFile(filepath.Join(whole.Out, f))
			b, err2 := os.ReadFile(filepath.Join(cut.Out, f))
			if err1 != nil || err2 != nil || string(a) != string(b) {
				t.Errorf("world %d: %s differs after stop and resume (%v, %v)", world, f, err1, err2)
			}
		}
		a, b := records(t, whole.Out), records(t, cut.Out)
		for i := range a {
			if a[i].Loss != b[i].Loss || a[i].GradNorm != b[i].GradNorm || a[i].LR != b[i].LR {
				t.Errorf("world %d, step %d: %+v and %+v", world, i+1, a[i], b[i])
			}
		}
	}
}

func TestAnotherNumberOfRanksGoesOnWithTheRun(t *testing.T) {
	whole := newJob(t, 1)
	mustRun(t, whole)
	j := newJob(t, 2)
	j.rows, j.stopAfter = whole.rows, 2
	if err := j.run(t); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	j.stopAfter, j.world = 0, 3
	mustRun(t, j)
	if d := apart(adapter(t, j.Out), adapter(t, whole.Out)); !(d <= 1e-4) {
		t.Errorf("2 ranks, then 3: adapters differ from one rank's by %g", d)
	}
	if r := records(t, j.Out); r[0].World != 2 || r[7].World != 3 {
		t.Errorf("world %d and %d in the metrics, want 2 and 3", r[0].World, r[7].World)
	}
}

func TestAGlobalBatchIsKeptWhenTheWorldChanges(t *testing.T) {
	j := newJob(t, 2)
	j.GlobalBatch, j.Accum, j.MicroBatch, j.stopAfter = 0, 3, 1, 2 // 2 ranks × 3 × 1 = 6 rows
	if err := j.run(t); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	j.world, j.stopAfter = 1, 0
	mustRun(t, j)
	for _, r := range records(t, j.Out) {
		if want := float64(r.Step) * 6 / 11; math.Abs(r.Epoch-want) > 1e-9 {
			t.Errorf("step %d is at epoch %v, want %v", r.Step, r.Epoch, want)
		}
	}
}

func TestASettingThatWouldFalsifyTheRunIsRefusedByName(t *testing.T) {
	j := newJob(t, 1)
	j.stopAfter = 2
	if err := j.run(t); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	for flag, change := range map[string]func(c *Config){
		"--rank":         func(c *Config) { c.Rank = 4 },
		"--alpha":        func(c *Config) { c.Alpha = 6 },
		"--method":       func(c *Config) { c.Method = "lora" },
		"--targets":      func(c *Config) { c.Targets = List{"q_proj"} },
		"--lr":           func(c *Config) { c.LR = 2e-2 },
		"--schedule":     func(c *Config) { c.Schedule = "linear" },
		"--seed":         func(c *Config) { c.Seed = 1 },
		"--clip":         func(c *Config) { c.Clip = 2 },
		"--shuffle":      func(c *Config) { c.Shuffle = false },
		"--dtype":        func(c *Config) { c.DType = "bfloat16" },
		"--global-batch": func(c *Config) { c.GlobalBatch = 5 },
		"--max-steps":    func(c *Config) { c.MaxSteps = 9 },
	} {
		other := *j
		change(&other.Config)
		other.stopAfter = 0
		if err := other.run(t); err == nil || !strings.Contains(err.Error(), flag) || !IsUsage(err) {
			t.Errorf("%s changed: %v, want an error that names it", flag, err)
		}
	}
	other := *j
	other.rows = rowFile(t, 12)
	if err := other.run(t); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("other rows: %v", err)
	}
	harmless := *j
	harmless.Recompute, harmless.Memory, harmless.Threads, harmless.SaveEvery, harmless.stopAfter = "none", "fused", 2, 1, 0
	if err := harmless.run(t); err != nil {
		t.Errorf("settings that do not change the result: %v", err)
	}
}

func TestADamagedCheckpointIsPassedOver(t *testing.T) {
	j := newJob(t, 1)
	j.SaveEvery = 2
	mustRun(t, j)
	want := adapter(t, j.Out)
	path := filepath.Join(j.Out, "checkpoint-8", "optimizer.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, j)
	if !strings.Contains(j.progress.String(), "checkpoint-6") {
		t.Errorf("the run did not go on from checkpoint-6:\n%s", j.progress.String())
	}
	if d := apart(adapter(t, j.Out), want); d != 0 {
		t.Errorf("adapters differ by %g", d)
	}
}

func TestKeepLastKeepsTheNewestAndKeepBestTheBest(t *testing.T) {
	j := newJob(t, 2)
	j.eval, j.EvalData, j.EvalEvery, j.SaveEvery, j.KeepLast, j.KeepBest = rowFile(t, 5), List{"eval"}, 1, 1, 2, true
	mustRun(t, j)
	steps, err := checkpoints(j.Out)
	if err != nil || fmt.Sprint(steps) != "[7 8]" {
		t.Errorf("checkpoints %v, %v; want the last two", steps, err)
	}
	best, at := math.Inf(1), 0
	for _, r := range records(t, j.Out) {
		if *r.EvalLoss < best {
			best, at = *r.EvalLoss, r.Step
		}
	}
	s, err := readState(filepath.Join(j.Out, "best"))
	if err != nil || s.Step != at || *s.Best != best {
		t.Errorf("best holds step %d with %v (%v); the best was step %d with %v", s.Step, s.Best, err, at, best)
	}
}

func TestPatienceStopsARunThatGetsNoBetter(t *testing.T) {
	j := newJob(t, 2)
	j.eval, j.EvalData, j.EvalEvery, j.Patience, j.MaxSteps, j.LR, j.Clip, j.Schedule = rowFile(t, 5), List{"eval"}, 1, 2, 100, 0.5, 0, "constant"
	mustRun(t, j)
	r := records(t, j.Out)
	n := len(r)
	if n >= 100 || n < 3 {
		t.Fatalf("%d steps", n)
	}
	best := n - 2
	for i := range r {
		if *r[i].EvalLoss < *r[best-1].EvalLoss {
			t.Errorf("step %d has a better evaluation than step %d, after which the run should have stopped two evaluations later", i+1, best)
		}
	}
	mustRun(t, j)
	if again := len(records(t, j.Out)); again != n {
		t.Errorf("the same command again went on to step %d, though the run had stopped early at step %d", again, n)
	}
}

func TestANonFiniteLossStopsTheRunBeforeTheWeightsAreTouched(t *testing.T) {
	j := newJob(t, 2)
	j.model.Blocks[1].MLPNorm.Float32()[1] = 3e38 // of an input that the mask keeps
	j.model.Blocks[1].AttnNorm.Float32()[1] = 3e38
	err := j.run(t)
	if err == nil {
		t.Fatal("the run went on")
	}
	for _, want := range []string{"step 1", "rows [", "model.layers.1."} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if steps, _ := checkpoints(j.Out); len(steps) > 0 {
		t.Errorf("checkpoints %v were written", steps)
	}
}

// flipping is a rank whose memory is bad: one bit of the sum flips.
type flipping struct{ dist.Group }

func (f flipping) AllReduce(v dist.Vector) error {
	err := f.Group.AllReduce(v)
	x := v.Float32()
	x[0] = math.Float32frombits(math.Float32bits(x[0]) ^ 1<<20)
	return err
}

func TestReplicasThatDifferAreFound(t *testing.T) {
	j := newJob(t, 3)
	j.ChecksumEvery = 2
	j.group = func(r int, g dist.Group) dist.Group {
		if r == 1 {
			return flipping{g}
		}
		return g
	}
	err := j.run(t)
	if err == nil || !strings.Contains(err.Error(), "rank 1") || !strings.Contains(err.Error(), "step 2") {
		t.Errorf("%v, want an error that names rank 1 after step 2", err)
	}
}

func TestAStepSendsTheGradientsAndTheScalarsAndNothingElse(t *testing.T) {
	sent := 0
	j := newJob(t, 2)
	j.group = func(r int, g dist.Group) dist.Group {
		if r == 0 {
			return counting{g, &sent}
		}
		return g
	}
	mustRun(t, j)
	p := len(adapter(t, j.Out))
	if want := 8 * (p + lora.Tail); sent != want {
		t.Errorf("8 steps all-reduced %d values, want 8·(%d gradients + %d scalars) = %d", sent, p, lora.Tail, want)
	}
}

// counting counts the values that are all-reduced.
type counting struct {
	dist.Group
	n *int
}

func (c counting) AllReduce(v dist.Vector) error {
	*c.n += len(v.Float32())
	return c.Group.AllReduce(v)
}

func TestGoingOnFromAnAdapterBeginsWithItsWeights(t *testing.T) {
	a := newJob(t, 1)
	mustRun(t, a)
	b := newJob(t, 1)
	b.rows, b.Adapter, b.MaxSteps, b.WarmupSteps = a.rows, a.Out, 1, 1 // step 1 of a warm-up has learning rate 0
	mustRun(t, b)
	if d := apart(adapter(t, b.Out), adapter(t, a.Out)); d != 0 {
		t.Errorf("after a step of learning rate 0 the adapter differs from the one begun with by %g", d)
	}
	b.SaveEvery, b.MaxSteps, b.stopAfter, b.Out = 1, 8, 3, filepath.Join(t.TempDir(), "out")
	if err := b.run(t); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	b.stopAfter = 0
	if mustRun(t, b); !strings.Contains(b.progress.String(), "--adapter "+a.Out+" is not read") {
		t.Errorf("the same command again says:\n%s", b.progress.String())
	}
	c := newJob(t, 1)
	c.Adapter, c.Rank = a.Out, 4
	if err := c.run(t); err == nil || !strings.Contains(err.Error(), "--rank") {
		t.Errorf("another rank: %v", err)
	}
}

func TestACancelledContextDoesNotHang(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g := dist.Loopback(2)
	if _, err := g[0].AllGatherBytes(ctx, nil); err == nil {
		t.Error("a gather with a cancelled context and an absent rank returned without an error")
	}
}
