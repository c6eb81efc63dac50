package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/splora/splora/dist"
)

// names of what is in a folder.
func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestASecondRunInTheSameFolderIsKeptOutWhileTheFirstIsThere(t *testing.T) {
	j := newJob(t, 2)
	if err := os.MkdirAll(filepath.Join(j.Out, ".aside-checkpoint-3"), 0o755); err != nil { // the other one is just saving
		t.Fatal(err)
	}
	other, err := openMetrics(filepath.Join(j.Out, metricsFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	before := listing(t, j.Out)
	if err := j.run(t); err == nil || !strings.Contains(err.Error(), "another run is writing to "+j.Out) {
		t.Errorf("%v, want an error that says so", err)
	}
	if after := listing(t, j.Out); !slices.Equal(before, after) {
		t.Errorf("it changed %v to %v", before, after)
	}
	other.Close()
	mustRun(t, j)
}

func TestACheckpointThatTheRunBeforeSavesOnItsWayOutIsTheOneToGoOnFrom(t *testing.T) {
	j := newJob(t, 1)
	j.SaveEvery = 2
	mustRun(t, j)
	saving := filepath.Join(j.Out, ".aside-checkpoint-8")
	if err := os.Rename(filepath.Join(j.Out, "checkpoint-8"), saving); err != nil {
		t.Fatal(err)
	}
	other, err := openMetrics(filepath.Join(j.Out, metricsFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	saved := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		saved <- errors.Join(os.Rename(saving, filepath.Join(j.Out, "checkpoint-8")), other.Close())
	})
	mustRun(t, j)
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(j.Out, "abandoned-*")); left != nil {
		t.Errorf("the run began before what the other one had saved: %v", left)
	}
}

func TestARunThatIsRefusedLeavesNothing(t *testing.T) {
	j := newJob(t, 2)
	j.Adapter = "nowhere"
	if err := j.run(t); err == nil {
		t.Error("an adapter that does not exist was read")
	}
	if _, err := os.Stat(j.Out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--out holds %v, %v", listing(t, j.Out), err)
	}
}

// TestARestartGoesOnWithWhatTheJobHasSaved, though --resume says that the run begins anew, or elsewhere.
func TestARestartGoesOnWithWhatTheJobHasSaved(t *testing.T) {
	whole := newJob(t, 1)
	whole.SaveEvery = 1
	mustRun(t, whole)
	for _, resume := range []string{"none", filepath.Join(whole.Out, "checkpoint-2")} {
		j := newJob(t, 1)
		j.rows, j.Resume, j.stopAfter, j.SaveEvery = whole.rows, resume, 4, 1
		j.env = func(_ int, e *Env) { e.Job = "a" }
		if err := j.run(t); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "--resume auto") {
			t.Fatalf("%v, want to be told how to go on", err)
		}
		j.stopAfter = 0
		if err := j.run(t); resume == "none" && !IsUsage(err) {
			t.Errorf("begun by hand again: %v, want to be refused", err)
		}
		j.env = func(_ int, e *Env) { e.Job, e.Restarted = "b", true }
		if err := j.run(t); !IsUsage(err) {
			t.Errorf("restarted in another job's folder: %v, want to be refused", err)
		}
		j.env = func(_ int, e *Env) { e.Job, e.Restarted = "a", true }
		mustRun(t, j)
		if !strings.Contains(j.progress.String(), "resuming from "+filepath.Join(j.Out, "checkpoint-")) {
			t.Errorf("--resume %s: the restart did not go on:\n%s", resume, j.progress.String())
		}
		if d := apart(adapter(t, j.Out), adapter(t, whole.Out)); d != 0 {
			t.Errorf("--resume %s: adapters differ by %g", resume, d)
		}
	}
}

func TestACheckpointFromElsewhereIsNotMixedWithAnotherRuns(t *testing.T) {
	a, b := newJob(t, 1), newJob(t, 1)
	b.rows = a.rows
	mustRun(t, a)
	mustRun(t, b)
	b.Resume = filepath.Join(a.Out, "checkpoint-8")
	if err := b.run(t); !IsUsage(err) || !strings.Contains(err.Error(), "another run") {
		t.Error(err)
	}
	b.Resume, b.Out = b.Resume+"/", filepath.Join(t.TempDir(), "new")
	mustRun(t, b)
	b.Resume = a.Out
	if err := b.run(t); err == nil || !strings.Contains(err.Error(), "checkpoint-N") {
		t.Error(err)
	}
}

func TestWhatAnInterruptedReplacementMovedAwayComesBack(t *testing.T) {
	j := newJob(t, 1)
	j.eval, j.EvalData, j.KeepBest = rowFile(t, 5), List{"eval"}, true
	mustRun(t, j)
	best := filepath.Join(j.Out, "best")
	if err := os.Rename(best, filepath.Join(j.Out, aside+"old-best")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(j.Out, aside+"best"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.Out, ".adapter_model.safetensors.tmp-123"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, j)
	if _, err := readState(best); err != nil {
		t.Error(err)
	}
	for _, n := range listing(t, j.Out) {
		if strings.HasPrefix(n, ".") {
			t.Errorf("%s is left", n)
		}
	}
}

func TestLatestNeverNamesWhatIsNotThere(t *testing.T) {
	j := newJob(t, 1)
	j.SaveEvery = 2
	mustRun(t, j)
	for _, c := range []struct {
		step   int
		latest string
		left   string
	}{{9, "checkpoint-8\n", "[2 4 6 8]"}, {8, "checkpoint-8\n", "[2 4 6 8]"}, {5, "checkpoint-4\n", "[2 4]"}, {2, "checkpoint-2\n", "[2]"}, {0, "", "[]"}} {
		if err := setAsideAfter(j.Out, c.step); err != nil {
			t.Fatal(err)
		}
		latest, _ := os.ReadFile(filepath.Join(j.Out, latestFile))
		steps, err := checkpoints(j.Out)
		if string(latest) != c.latest || fmt.Sprint(steps) != c.left || err != nil {
			t.Errorf("after step %d: latest %q, checkpoints %v, %v", c.step, latest, steps, err)
		}
	}
}

func TestNoAbandonedCheckpointIsReplaced(t *testing.T) {
	j := newJob(t, 1)
	j.SaveEvery = 4
	mustRun(t, j)
	j.Resume = filepath.Join(j.Out, "checkpoint-4")
	for range 2 {
		mustRun(t, j)
	}
	for _, name := range []string{"abandoned-checkpoint-8", "abandoned-checkpoint-8-2", "checkpoint-8"} {
		if s, err := readState(filepath.Join(j.Out, name)); err != nil || s.Step != 8 {
			t.Errorf("%s: step %d, %v", name, s.Step, err)
		}
	}
}

func TestABadLineAmongTheMetricsCostsNoRecord(t *testing.T) {
	const line = `{"step":%d,"loss":1}` + "\n"
	var text string
	for step := 1; step <= 5; step++ {
		text += fmt.Sprintf(line, step)
		if step == 2 {
			text += "{\"step\":9,\"lo\x00\n"
		}
	}
	path := filepath.Join(t.TempDir(), metricsFile)
	for step, want := range map[int]int{0: 0, 2: 2, 3: 3, 4: 4, 5: 5, 7: 5} {
		if err := os.WriteFile(path, []byte(text+`{"step":6`), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := openMetrics(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.cut(step), m.append(Record{Step: step + 1}), m.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := ReadMetrics(path)
		if err != nil || len(r) != want+1 || r[want].Step != step+1 {
			t.Errorf("cut to step %d and gone on: %+v, %v", step, r, err)
		}
	}
}

func TestEpochsAreRoundedUpToSteps(t *testing.T) {
	for _, c := range []struct {
		rows, batch int
		epochs      float64
		steps       int
	}{{10, 1, 1.1, 11}, {10, 4, 1, 3}, {10, 5, 3, 6}, {11, 4, 0.01, 1}} {
		j := newJob(t, 2)
		j.rows, j.GlobalBatch, j.Epochs, j.MaxSteps = rowFile(t, c.rows), c.batch, c.epochs, 0
		mustRun(t, j)
		if n := len(records(t, j.Out)); n != c.steps {
			t.Errorf("%v epochs of %d rows, %d a step: %d steps, want %d", c.epochs, c.rows, c.batch, n, c.steps)
		}
	}
	j := newJob(t, 1)
	j.MaxSteps, j.Epochs = 0, 1e300
	if err := j.run(t); !IsUsage(err) || !strings.Contains(err.Error(), "--epochs") {
		t.Errorf("1e300 epochs: %v", err)
	}
}

func TestAConstantScheduleMayBeMadeLongerUnlessItsWarmUpWouldChange(t *testing.T) {
	for _, c := range []struct {
		warmup float64
		steps  int
		want   string
	}{{0, 12, ""}, {0, 5, "--max-steps"}, {0.25, 12, "--warmup-ratio"}} {
		j := newJob(t, 1)
		j.Schedule, j.WarmupRatio = "constant", c.warmup
		mustRun(t, j)
		j.MaxSteps = c.steps
		err := j.run(t)
		if c.want == "" && err != nil || c.want != "" && (!IsUsage(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("8 steps, then %d, warm-up %v: %v, want %q", c.steps, c.warmup, err, c.want)
		}
	}
}

func TestABestLossOnOtherEvaluationRowsIsForgotten(t *testing.T) {
	loss := 1.5
	s := State{Step: 3, Eval: "a", Best: &loss, BestStep: 2, SinceBest: 1}
	if got := s.follow(State{Eval: "b"}); got.Best != nil || got.BestStep != 0 || got.SinceBest != 0 || got.Eval != "b" || got.Step != 3 {
		t.Errorf("other rows: %+v", got)
	}
	for _, eval := range []string{"a", ""} {
		if got := s.follow(State{Eval: eval}); got.Best != &loss || got.BestStep != 2 || got.SinceBest != 1 || got.Eval != "a" {
			t.Errorf("%q: %+v", eval, got)
		}
	}
}

func TestNoRankSaysThatACheckpointStandsWhenItDoesNot(t *testing.T) {
	j := newJob(t, 3)
	j.stopAfter = 2
	if err := os.MkdirAll(filepath.Join(j.Out, latestFile, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	j.run(t)
	for r, err := range j.errs {
		if err == nil || errors.Is(err, ErrStopped) {
			t.Errorf("rank %d ended with %v", r, err)
		}
	}
}

func TestEveryRankTellsItsLauncherHowFarItCame(t *testing.T) {
	j := newJob(t, 3)
	j.SaveEvery = 3
	var mu sync.Mutex
	told := map[int][]int{}
	j.env = func(r int, e *Env) {
		e.Reached = func(step int) {
			mu.Lock()
			defer mu.Unlock()
			told[r] = append(told[r], step)
		}
	}
	mustRun(t, j)
	for r := range 3 {
		if fmt.Sprint(told[r]) != "[3 6 8]" {
			t.Errorf("rank %d told %v", r, told[r])
		}
	}
}

func TestReplicasAreComparedBeforeARunIsDone(t *testing.T) {
	j := newJob(t, 2)
	j.ChecksumEvery = 100
	j.group = func(r int, g dist.Group) dist.Group {
		if r == 1 {
			return flipping{g}
		}
		return g
	}
	if err := j.run(t); err == nil || !strings.Contains(err.Error(), "rank 1") {
		t.Errorf("%v, want an error that names rank 1", err)
	}
	if steps, _ := checkpoints(j.Out); len(steps) > 0 {
		t.Errorf("checkpoints %v were written", steps)
	}
}

func TestAStateThatCannotBeIsDamaged(t *testing.T) {
	j := newJob(t, 1)
	j.MaxSteps, j.SaveEvery = 2, 1
	if err := j.run(t); err != nil {
		t.Fatal(err)
	}
	dir := checkpointDir(j.Out, 2)
	whole, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*State){
		"another step":   func(s *State) { s.Step = 1 },
		"beyond the end": func(s *State) { s.TotalSteps = 1 },
		"no rows a step": func(s *State) { s.GlobalBatch = -5 },
		"a negative row": func(s *State) { s.Row = -1 },
		"no files":       func(s *State) { s.Files = nil },
	} {
		s := whole
		change(&s)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, stateFile), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readState(dir); err == nil || !strings.Contains(err.Error(), "state.json is damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The world of a job's last checkpoint is what its next generation must have at least half of.
func TestTheLastWorldIsThatOfTheJobsOwnNewestCheckpoint(t *testing.T) {
	j := newJob(t, 2)
	j.MaxSteps, j.SaveEvery = 2, 1
	j.env = func(_ int, e *Env) { e.Job = "this" }
	if err := j.run(t); err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string]int{"this": 2, "another": 0, "": 0} {
		if got := LastWorld(j.Out, job); got != want {
			t.Errorf("job %q: %d, want %d", job, got, want)
		}
	}
	if got := LastWorld(filepath.Join(j.Out, "nowhere"), "this"); got != 0 {
		t.Errorf("of no run: %d", got)
	}
	if err := os.WriteFile(filepath.Join(checkpointDir(j.Out, 2), stateFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := LastWorld(j.Out, "this"); got != 0 {
		t.Errorf("of a damaged one: %d", got)
	}
}
