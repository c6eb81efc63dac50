//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// killSteps is the length of the runs that are killed, with a checkpoint after every step.
const killSteps = 30

func killArgs(w world, out string) []string {
	return w.train("--out", w.path(out), "--max-steps", fmt.Sprint(killSteps), "--save-every", "1", "--eval-data", w.path("rows.jsonl"),
		"--eval-every", "2", "--keep-best")
}

// TestFiftyKillsAnywhereLeaveTheSameBits is N steps = k + kill -9 + resume + (N-k), over and over: two ranks that find each
// other through gossip and reduce over TCP, of which one, the other, both, or their launcher is killed, at random moments and
// in the middle of publishing a checkpoint.
func TestFiftyKillsAnywhereLeaveTheSameBits(t *testing.T) {
	chains, each := 5, 10
	if testing.Short() || raceDetector {
		chains, each = 3, 3
	}
	w := newWorld(t)
	began := time.Now()
	if o := start(t, "launch", nil, killArgs(w, "whole")...).wait(); o.code != exitDone {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	took := time.Since(began)
	var kills, resumed, publishing atomic.Int64
	t.Run("chains", func(t *testing.T) {
		for c := range chains {
			t.Run(fmt.Sprint(c), func(t *testing.T) {
				t.Parallel()
				k := &killer{world: w, rng: rand.New(rand.NewPCG(42, uint64(c))), took: took, out: fmt.Sprintf("chain-%d-0", c)}
				for n := 1; k.kills < each; n++ {
					if k.attempt(t) {
						w.sameRun(t, "whole", k.out)
						k.out = fmt.Sprintf("chain-%d-%d", c, n)
					}
				}
				k.finish(t)
				kills.Add(int64(k.kills))
				resumed.Add(int64(k.resumed))
				publishing.Add(int64(k.publishing))
			})
		}
	})
	t.Logf("%d kills, %d of them in the middle of a publication; %d runs went on from a checkpoint", kills.Load(), publishing.Load(), resumed.Load())
	if chains*each < 50 {
		return
	}
	if publishing.Load() == 0 || resumed.Load() < kills.Load()/4 {
		t.Error("too few kills met a publication, or too few runs a checkpoint, for this test to mean anything")
	}
}

// TestTheLauncherGoesOnAfterAKillByItself, under a new generation each time.
func TestTheLauncherGoesOnAfterAKillByItself(t *testing.T) {
	w := newWorld(t)
	const steps = 200
	args := func(out string) []string {
		return w.train("--out", w.path(out), "--max-steps", fmt.Sprint(steps), "--save-every", "1")
	}
	if o := start(t, "launch", nil, args("whole")...).wait(); o.code != exitDone {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	p := start(t, "launch", []string{maxRestarts + "=9"}, args("killed")...)
	k := &killer{world: w, out: "killed"}
	for generation := 1; generation <= 2; generation++ {
		p.until(fmt.Sprintf("(generation %d,", generation))
		for last := k.newest(); k.newest() < last+2; { // past the point that it went on from
			select {
			case <-p.done:
				t.Fatalf("generation %d ended before it was killed", generation)
			case <-time.After(time.Millisecond):
			}
		}
		pids := p.ranks()
		if pid := pids[len(pids)-generation]; isChild(pid, p.cmd.Process.Pid) { // rank 1, then rank 0
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if o := p.wait(); o.code != exitDone || strings.Count(o.stderr, "resuming from") != 2 {
		t.Fatalf("exit code %d, want 0 after two restarts\n%s", o.code, o.stderr)
	}
	w.sameRun(t, "whole", "killed")
	r := records(t, w.path("killed"))
	if r[0].Generation != 1 || r[steps-1].Generation != 3 {
		t.Errorf("generations %d … %d in the metrics, want 1 … 3", r[0].Generation, r[steps-1].Generation)
	}
}

// killer kills one run again and again.
type killer struct {
	world
	rng  *rand.Rand
	took time.Duration // of a run that is left alone
	out  string        // name of the run's folder

	kills, resumed, publishing int
}

// attempt starts the run and kills it somewhere; true: the run was faster and is complete.
func (k *killer) attempt(t *testing.T) (complete bool) {
	t.Helper()
	p := start(t, "launch", nil, killArgs(k.world, k.out)...)
	moment, victim := k.moment(p), k.rng.IntN(4)
	moment()
	what := k.kill(t, p, victim)
	o := p.wait()
	if strings.Contains(o.stderr, "resuming from") {
		k.resumed++
	}
	if o.code == exitDone {
		return true
	}
	k.kills++
	if o.code != exitFailed && o.code != -1 || strings.Contains(o.stderr, "trying the one before") || strings.Contains(o.stderr, "goroutine ") {
		t.Fatalf("%s, kill %d, %s: exit code %d\n%s", k.out, k.kills, what, o.code, o.stderr)
	}
	if k.whole(t) {
		k.publishing++
	}
	return false
}

// finish lets the run end and compares it with the one that was left alone.
func (k *killer) finish(t *testing.T) {
	t.Helper()
	o := start(t, "launch", nil, killArgs(k.world, k.out)...).wait()
	if o.code != exitDone {
		t.Fatalf("%s after %d kills: exit code %d\n%s", k.out, k.kills, o.code, o.stderr)
	}
	k.sameRun(t, "whole", k.out)
}

// moment draws when to kill: any time between start and end, or a point in a publication.
func (k *killer) moment(p *process) func() {
	if k.rng.IntN(3) == 0 {
		d := time.Duration(k.rng.Float64() * 1.1 * float64(k.took))
		return func() {
			select {
			case <-time.After(d):
			case <-p.done:
			}
		}
	}
	points := []string{".aside-checkpoint-%d", ".aside-checkpoint-%d/adapter_model.safetensors", ".aside-checkpoint-%d/optimizer.safetensors",
		".aside-checkpoint-%d/config.yaml", ".aside-checkpoint-%d/state.json", "checkpoint-%d", "latest", ".aside-best", ".aside-old-best", "metrics.jsonl", "adapter_model.safetensors"}
	point, later := points[k.rng.IntN(len(points))], k.rng.IntN(12)
	return func() {
		if !p.until("run: ") { // what an earlier kill left behind has been removed by now
			return
		}
		last := k.newest()
		for {
			select {
			case <-p.done:
				return
			case <-time.After(50 * time.Microsecond):
			}
			// Polling misses some of it, so any later checkpoint will do as well.
			for step := k.newest(); step <= k.newest()+1; step++ {
				name := point
				if strings.Contains(point, "%") {
					name = fmt.Sprintf(point, step)
				}
				if step > last+later && exists(filepath.Join(k.path(k.out), name)) {
					return
				}
			}
		}
	}
}

// newest is the step of the newest checkpoint.
func (k *killer) newest() (last int) {
	list, _ := os.ReadDir(k.path(k.out))
	for _, e := range list {
		if n, found := strings.CutPrefix(e.Name(), "checkpoint-"); found {
			if step, err := strconv.Atoi(n); err == nil {
				last = max(last, step)
			}
		}
	}
	return last
}

// kill ends rank 0, rank 1, both, or the launcher, whose death takes its ranks along.
func (k *killer) kill(t *testing.T, p *process, victim int) string {
	t.Helper()
	if victim == 3 {
		p.cmd.Process.Kill()
		return "launcher"
	}
	for local, pid := range p.ranks() {
		if (victim == 2 || victim == local) && isChild(pid, p.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if p.ranks() == nil {
		p.cmd.Process.Kill() // it has not come as far as having ranks
	}
	return []string{"rank 0", "rank 1", "both ranks"}[victim]
}

// isChild guards against a pid that has become another process's.
func isChild(pid, parent int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", parent))
}

// whole checks that every checkpoint that stands is complete and that latest names one; true: a publication was cut short.
func (k *killer) whole(t *testing.T) (cut bool) {
	t.Helper()
	out := k.path(k.out)
	list, err := os.ReadDir(out)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range list {
		cut = cut || strings.HasPrefix(e.Name(), ".")
		if !strings.HasPrefix(e.Name(), "checkpoint-") {
			continue
		}
		var s struct{ Files map[string]string }
		b, err := os.ReadFile(filepath.Join(out, e.Name(), "state.json"))
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil || len(s.Files) != 4 {
			t.Errorf("%s: %v, %d files", e.Name(), err, len(s.Files))
		}
		for name, want := range s.Files {
			b, err := os.ReadFile(filepath.Join(out, e.Name(), name))
			if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != want {
				t.Errorf("%s/%s is not what state.json says (%v)", e.Name(), name, err)
			}
		}
	}
	if latest, err := os.ReadFile(filepath.Join(out, "latest")); err == nil && !exists(filepath.Join(out, strings.TrimSpace(string(latest)))) {
		t.Errorf("latest names %s, which is not there", latest)
	}
	return cut
}

// sameRun compares two finished runs: adapters and moments bit for bit, and the metrics that are numbers of the training.
func (w world) sameRun(t *testing.T, want, got string) {
	t.Helper()
	a, b := records(t, w.path(want)), records(t, w.path(got))
	if len(a) != len(b) {
		t.Fatalf("%s has %d steps in its metrics, %s %d", want, len(a), got, len(b))
	}
	for i := range a {
		x, y := a[i], b[i]
		if (x.EvalLoss == nil) != (y.EvalLoss == nil) || x.EvalLoss != nil && *x.EvalLoss != *y.EvalLoss {
			t.Errorf("%s, step %d: another evaluation", got, i+1)
		}
		if x.Step != y.Step || x.Loss != y.Loss || x.GradNorm != y.GradNorm || x.LR != y.LR || x.Tokens != y.Tokens || x.Epoch != y.Epoch {
			t.Errorf("%s, step %d: %+v, want %+v", got, i+1, y, x)
		}
	}
	last := fmt.Sprintf("checkpoint-%d/", len(a))
	files := []string{"adapter_model.safetensors", "adapter_config.json", last + "adapter_model.safetensors", last + "optimizer.safetensors"}
	if exists(w.path(want + "/best")) {
		files = append(files, "best/adapter_model.safetensors", "best/optimizer.safetensors")
	}
	for _, f := range files {
		x, err1 := os.ReadFile(filepath.Join(w.path(want), f))
		y, err2 := os.ReadFile(filepath.Join(w.path(got), f))
		if err1 != nil || err2 != nil || string(x) != string(y) {
			t.Errorf("%s/%s differs from that of the run that was left alone (%v, %v)", got, f, err1, err2)
		}
	}
}
