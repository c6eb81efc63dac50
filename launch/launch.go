package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"time"

	"go.uber.org/zap"
)

// noProgress attempts that reach no further step end a crash loop.
const noProgress = 3

// Run starts the ranks, watches them, restarts them, and returns when none is left. Its error is nil when all
// ranks ended with 0, ErrStopped when they stopped on a signal with a checkpoint, a *Failure when a rank
// failed, and otherwise says what is wrong with c. Report.ExitCode is what the launcher should exit with. A
// cancelled ctx stops the ranks: SIGTERM, after Grace SIGKILL.
func Run(ctx context.Context, c Config) (Report, error) {
	c, err := c.validate()
	if err == nil {
		c.Program, err = findProgram(c.Program)
	}
	if err != nil {
		return Report{ExitCode: ExitUsage, Reason: err.Error()}, err
	}
	l, err := newLauncher(ctx, c)
	if err != nil {
		return Report{ExitCode: ExitFailed, Reason: err.Error()}, err
	}
	defer l.close()
	if err := l.place(); err != nil {
		return l.refuse(err)
	}
	l.attempts()
	return l.conclude()
}

// refuse ends a run that could not begin.
func (l *launcher) refuse(err error) (Report, error) {
	r := &l.report
	r.End, r.ExitCode, r.Reason, r.Attempts = time.Now(), ExitFailed, err.Error(), []Attempt{}
	return *r, errors.Join(err, l.publish())
}

func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("launch: program: %w", err)
	}
	return filepath.Abs(path)
}

// launcher is one Run.
type launcher struct {
	Config
	ctx      context.Context
	dir      string // of this launcher's files
	scratch  string // removed at the end; empty when there is a LogDir
	fork     *forker
	cpus     [][]int
	sigs     <-chan os.Signal
	unsub    func()
	out, err *sink
	report   Report
	elders   []int // children that were there before the first rank

	seated   []seat            // of the ranks; nil: none has a GPU
	policy   bool              // ranks take their memory from their GPU's NUMA node
	ras      string            // host:port of NCCL's status service
	watching *gpuWatch         // nil without GPUs
	faults   <-chan Event      // of the ranks' GPUs
	broken   map[string]*Event // GPUs that are not to be used again, by UUID

	stopped os.Signal // the first signal that was forwarded: no restart any more
	idle    os.Signal // one that would have been, had a rank run
	why     string    // why there was no further attempt
}

func newLauncher(ctx context.Context, c Config) (*launcher, error) {
	l := &launcher{Config: c, ctx: ctx, sigs: c.Signals, unsub: func() {}, out: &sink{w: c.Stdout}, err: &sink{w: c.Stderr}, broken: map[string]*Event{}}
	if reflect.TypeOf(c.Stdout).Comparable() && c.Stderr == c.Stdout {
		l.err = l.out
	}
	if err := l.makeDir(); err != nil {
		return nil, err
	}
	l.elders = children()
	if err := adopt(); err != nil {
		c.Logger.Warn("orphans of ranks will not be found", zap.Error(err))
	}
	if l.sigs == nil {
		l.sigs, l.unsub = subscribe()
	}
	l.fork = newForker()
	host, _ := os.Hostname()
	l.report = Report{Job: c.Job, Host: host, NodeRank: c.NodeRank, Program: c.Program, Args: c.Args, Start: time.Now()}
	return l, nil
}

// makeDir makes the directory of this launcher's files: LogDir, or below it one per node and task of a job
// that has several, or a temporary one.
func (l *launcher) makeDir() (err error) {
	if l.LogDir == "" {
		l.scratch, err = os.MkdirTemp("", "splora-launch-")
		l.dir = l.scratch
	} else {
		l.dir = filepath.Join(l.LogDir, l.nodeDir())
		if l.dir, err = filepath.Abs(l.dir); err == nil {
			err = os.MkdirAll(l.dir, 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("launch: log directory: %w", err)
	}
	return nil
}

func (c Config) nodeDir() string {
	if !c.shared() {
		return ""
	}
	name := fmt.Sprintf("node-%d", c.NodeRank)
	if c.NodeRank < 0 {
		host, _ := os.Hostname()
		name = "node-" + host
	}
	if c.World > 0 {
		name += fmt.Sprintf("-task-%d", c.LocalBase)
	}
	return name
}

func (l *launcher) close() {
	l.unsub()
	l.watching.stop()
	l.fork.close()
	if l.scratch != "" {
		os.RemoveAll(l.scratch)
	}
}

// attempts runs attempt after attempt until one needs no other. One that came too late for a group of its job counts for
// nothing: its launcher asks again, under the generation of that group, until the group ends.
func (l *launcher) attempts() {
	best, stale, failed, generation := -2, 0, 0, 1
	for n := 1; ; n++ {
		a := l.attempt(n, generation)
		l.report.Attempts = append(l.report.Attempts, a)
		if a.First == nil {
			return
		}
		generation = a.next()
		if a.Late == 0 {
			failed++
			if stale++; a.Step > best {
				best, stale = a.Step, 1
			}
		}
		if l.why = l.giveUp(a, failed, stale); l.why != "" {
			return
		}
		pause := min(l.Pause<<min(n-1, 10), max(30*time.Second, l.Pause))
		l.Logger.Warn("restart", zap.Error(a.First), zap.Int("attempt", n+1), zap.Int("generation", generation),
			zap.Int("restarts_left", l.MaxRestarts-failed), zap.Duration("pause", pause))
		if l.why = l.rest(pause); l.why != "" {
			return
		}
		if l.why = l.again(); l.why != "" {
			return
		}
	}
}

// next is the generation of the attempt after a.
func (a Attempt) next() int {
	if a.Late > 0 {
		return a.Late
	}
	return a.Generation + 1
}

// giveUp says why there is no attempt after a, where failed attempts have failed and stale of them reached no further step;
// empty: there is.
func (l *launcher) giveUp(a Attempt, failed, stale int) string {
	switch {
	case l.ctx.Err() != nil:
		return "cancelled"
	case l.stopped != nil:
		return "not restarted after " + signalText(l.stopped)
	case usage(a.First):
		return "not restarted: wrong usage or configuration"
	case a.Late > 0 && l.MaxRestarts == 0:
		return "the job's group stands without this launcher: give --max-restarts to wait for a place in it"
	case failed > l.MaxRestarts:
		return fmt.Sprintf("attempt %d of %d", failed, l.MaxRestarts+1)
	case stale >= noProgress && a.Step >= 0:
		return fmt.Sprintf("no progress: %d attempts did not get past step %d", stale, a.Step)
	case stale >= noProgress:
		return fmt.Sprintf("no progress: %d attempts did not get to a step", stale)
	}
	return ""
}

// rest waits before a restart; the result says what ended the waiting early.
func (l *launcher) rest(d time.Duration) string {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return ""
		case <-l.ctx.Done():
			return "cancelled"
		case s := <-l.sigs:
			if forwarded(s) {
				l.idle = s
				return "not restarted after " + signalText(s)
			}
		}
	}
}

// conclude fills in the report, publishes it, and gives Run's result.
func (l *launcher) conclude() (Report, error) {
	r := &l.report
	last := r.Attempts[len(r.Attempts)-1]
	r.End, r.First = time.Now(), last.First
	var err error
	switch {
	case r.First != nil && l.idle != nil && last.Late > 0:
		err = ErrStopped
		r.ExitCode, r.Reason = ExitStopped, fmt.Sprintf("stopped on %s while it waited for a place: %v", signalText(l.idle), r.First)
	case r.First != nil && l.idle != nil && r.step() > 0:
		err = ErrStopped
		r.ExitCode, r.Reason = ExitStopped, fmt.Sprintf("stopped on %s before a restart, checkpoint published; before that: %v", signalText(l.idle), r.First)
	case r.First != nil:
		err = r.First
		r.ExitCode, r.Reason = ExitFailed, fmt.Sprintf("%v (%s)", err, l.why)
		if usage(r.First) {
			r.ExitCode = ExitUsage
		}
	case last.stopped():
		err = ErrStopped
		r.ExitCode, r.Reason = ExitStopped, "stopped on a signal, checkpoint published"
		if r.step() < 1 {
			r.Reason = "stopped on a signal; no rank reported a checkpoint"
		}
	default:
		r.Reason = "done"
	}
	if werr := l.publish(); werr != nil {
		l.Logger.Error("exit report not written", zap.Error(werr))
		err = errors.Join(err, werr)
		if r.ExitCode == ExitDone {
			r.ExitCode = ExitFailed
		}
	}
	return *r, err
}
