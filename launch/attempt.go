package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// attempt starts all ranks under a generation and returns when all have ended.
func (l *launcher) attempt(n, generation int) Attempt {
	a := Attempt{Number: n, Generation: generation, Start: time.Now(), Step: -1}
	oom := oomNow()
	ranks, err := l.startAll(n, generation)
	w := watch{launcher: l, ranks: ranks}
	if err != nil {
		w.stop()
	}
	w.all()
	if l.Alone {
		killOrphans(func(pid int) bool { return !slices.Contains(l.elders, pid) })
	}
	a.End = time.Now()
	for _, r := range ranks {
		s, _ := readStatus(r.ErrorFile)
		a.Step, a.Late = max(a.Step, s.Step), max(a.Late, s.Late)
		a.Ranks = append(a.Ranks, r.exit)
	}
	if slices.ContainsFunc(a.Ranks, Exit.failed) {
		w.lateFaults()
	}
	a.First, a.Events = w.first(oom), w.events
	if err != nil {
		a.First = &Failure{Exit: Exit{Rank: -1, LocalRank: l.LocalBase + len(ranks), Code: -1, When: a.Start}, Step: -1, Reason: err.Error()}
	}
	return a
}

// startAll starts the ranks. With an error it gives those that were started.
func (l *launcher) startAll(n, generation int) ([]*rank, error) {
	dir := filepath.Join(l.dir, fmt.Sprintf("attempt-%d", n))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	port, held := l.GossipPort, (*hold)(nil)
	if l.LocalBase == 0 {
		var err error
		if held, err = reserve(l.Bind, l.GossipPort); err != nil {
			return nil, err
		}
		port = held.port
	}
	defer held.release()
	var ranks []*rank
	for i := range l.NProc {
		r, err := l.newRank(i, l.contract(i, n, generation, port), dir)
		if err != nil {
			r.finish()
			return ranks, err
		}
		if i == 0 {
			held.release()
		}
		if err := r.start(l.fork); err != nil {
			r.finish()
			return ranks, err
		}
		l.Logger.Info("rank started", zap.String("rank", r.label()), zap.Int("pid", r.cmd.Process.Pid),
			zap.Int("attempt", n), zap.Int("generation", r.Generation), zap.Ints("cpus", r.cpus), zap.String("gpu", r.GPU))
		ranks = append(ranks, r)
	}
	return ranks, nil
}

// newRank prepares rank i of this launcher.
func (l *launcher) newRank(i int, c Contract, dir string) (*rank, error) {
	r := &rank{Contract: c, node: l.memoryNode(i)}
	r.ErrorFile = filepath.Join(dir, r.fileName()+".status.json")
	if err := os.Remove(r.ErrorFile); err != nil && !os.IsNotExist(err) {
		return r, err // of an earlier run in the same LogDir
	}
	if l.cpus != nil {
		r.cpus = l.cpus[i]
	}
	r.cmd = exec.Command(l.Program, l.Args...)
	r.cmd.Dir = l.Dir
	r.cmd.Env = append(slices.Clone(l.Env), r.Environ()...)
	if l.Threads > 0 || !slices.ContainsFunc(l.Env, func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") }) {
		r.cmd.Env = append(r.cmd.Env, fmt.Sprintf("GOMAXPROCS=%d", l.threads(r.cpus)))
	}
	if l.seated != nil {
		r.cmd.Env = append(r.cmd.Env, l.gpuEnviron(r, l.seated[i], dir)...)
	}
	return r, l.streams(r, dir)
}

func (l *launcher) contract(i, attempt, generation, port int) Contract {
	c := Contract{
		Job: l.Job, Key: l.Key, Seeds: l.seedsOf(port), Bind: l.Bind,
		Generation: generation, Attempt: attempt,
		Rank: -1, LocalRank: l.LocalBase + i, LocalSize: l.LocalSize, NodeRank: l.NodeRank,
		WorldMin: l.MinNodes * l.LocalSize, WorldMax: l.MaxNodes * l.LocalSize,
	}
	if c.LocalRank == 0 {
		c.GossipPort = port
	}
	if l.seated != nil {
		c.GPU = l.seated[i].UUID
	}
	switch {
	case l.World > 0:
		c.Rank, c.WorldMin, c.WorldMax = l.RankBase+i, l.World, l.World
	case l.NodeRank >= 0:
		c.Rank = l.NodeRank*l.NProc + i
	}
	return c
}

// streams sets up where the rank's output goes.
func (l *launcher) streams(r *rank, dir string) error {
	prefix := ""
	if l.PrefixLogs {
		prefix = "[" + r.label() + "] "
	}
	r.out = &lines{sink: l.out, prefix: prefix, period: time.Second}
	r.err = &lines{sink: l.err, prefix: prefix, period: time.Second}
	if l.OnlyRank0Stdout {
		r.out.prefix = ""
		if r.Rank > 0 || r.Rank < 0 && r.LocalRank > 0 {
			r.out.sink = nil
		}
	}
	if l.LogDir == "" {
		return nil
	}
	var err error
	if r.out.file, err = r.logFile(dir, ".out"); err != nil {
		return err
	}
	r.err.file, err = r.logFile(dir, ".err")
	return err
}

// watch sees one attempt through.
type watch struct {
	*launcher
	ranks   []*rank
	stopAt  time.Time        // when the ranks were told to end; zero = not
	grace   <-chan time.Time // then they are killed
	insists int              // SIGTERM and SIGINT that came from outside
	events  []Event          // faults of GPUs
	fatal   *Event           // the first of them that ended the attempt
}

// all returns when every rank has ended.
func (w *watch) all() {
	ended := make(chan *rank)
	for _, r := range w.ranks {
		go func() { r.wait(); ended <- r }()
	}
	cancelled := w.ctx.Done()
	for left := len(w.ranks); left > 0; {
		select {
		case r := <-ended:
			left--
			w.ended(r)
		case s := <-w.sigs:
			w.forward(s)
		case e := <-w.faults:
			w.fault(e)
		case <-cancelled:
			cancelled = nil
			w.stop()
		case <-w.grace:
			w.Logger.Warn("ranks did not end in time: SIGKILL", zap.Duration("grace", w.Grace))
			w.kill()
		}
	}
}

func (w *watch) ended(r *rank) {
	e := r.exit
	w.Logger.Info("rank ended", zap.String("rank", r.label()), zap.Int("pid", e.PID), zap.Int("code", e.Code),
		zap.String("signal", e.Signal), zap.Int64("max_rss_bytes", e.MaxRSS), zap.Int("orphans", e.Orphans))
	if e.failed() {
		w.stop()
	}
}

// stop asks all ranks to end, once.
func (w *watch) stop() {
	if !w.stopAt.IsZero() {
		return
	}
	w.stopAt = time.Now()
	w.grace = time.After(w.Grace)
	for _, r := range w.ranks {
		r.ask(syscall.SIGTERM)
	}
}

func (w *watch) kill() {
	for _, r := range w.ranks {
		r.kill()
	}
}

// forward passes a signal on to every rank: they publish a checkpoint and end. No clock runs meanwhile, but
// whoever sends a second SIGTERM or SIGINT gets SIGKILL.
func (w *watch) forward(s os.Signal) {
	if !forwarded(s) {
		return
	}
	if w.stopped == nil {
		w.stopped = s
	}
	if insists(s) {
		w.insists++
	}
	if w.insists > 1 {
		w.Logger.Warn("second signal: SIGKILL", zap.String("signal", signalText(s)))
		w.kill()
		return
	}
	w.Logger.Info("signal forwarded", zap.String("signal", signalText(s)))
	for _, r := range w.ranks {
		r.signal(s)
	}
}
