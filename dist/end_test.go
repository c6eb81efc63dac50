package dist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a Logger that remembers.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) log(msg string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, msg+" "+fmt.Sprint(args...))
}
func (l *lines) Debug(msg string, args ...any) { l.log(msg, args...) }
func (l *lines) Info(msg string, args ...any)  { l.log(msg, args...) }
func (l *lines) Warn(msg string, args ...any)  { l.log("WARN "+msg, args...) }

func (l *lines) find(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if strings.Contains(s, text) {
			return s
		}
	}
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("never: " + what)
}

func TestAFinishedRankIsNotReportedAsLost(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 3))
	errs := onAll(gs, func(g Group) error {
		for range 3 {
			if err := g.AllReduce(make(Floats, 1000)); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(g.Rank()) * 200 * time.Millisecond) // they finish at different times
		if err := g.Close(); err != nil {
			return err
		}
		if a := g.(*group).err; a.Cause != "this rank has closed it" {
			return a
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := gs[1].AllReduce(Floats{1}); err == nil {
		t.Error("a closed group reduces")
	}
}

func TestACollectiveAfterARankHasClosedFailsAndSaysWho(t *testing.T) {
	t.Parallel()
	for _, early := range []int{0, 2} {
		t.Run(fmt.Sprint(early), func(t *testing.T) {
			gs := mustJoin(t, configs(t, 3))
			errs := onAll(gs, func(g Group) error {
				if err := g.Barrier(context.Background()); err != nil {
					return nil
				}
				if g.Rank() == early {
					return g.Close()
				}
				time.Sleep(100 * time.Millisecond)
				return g.AllReduce(make(Floats, 1000))
			})
			for r, err := range errs {
				if r != early && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("host/%d closed the group after collective 2", early))) {
					t.Errorf("rank %d: %v", r, err)
				}
			}
		})
	}
}

func TestDifferentCollectivesAreFoundOutInsteadOfHanging(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 2))
	var errs []error
	within(t, 15*time.Second, func() {
		errs = onAll(gs, func(g Group) error {
			if err := g.AllReduce(make(Floats, 100+g.Rank())); err != nil {
				return err
			}
			return g.Barrier(context.Background())
		})
	})
	for r, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "all-reduce of 100 floats") || !strings.Contains(err.Error(), "all-reduce of 101 floats") {
			t.Errorf("rank %d: %v", r, err)
		}
	}
}

func TestAStalledCollectiveIsReportedWithTheMissingRanksPlace(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	var log lines
	cs[0].Logger, cs[0].Stall = &log, 300*time.Millisecond
	gs := mustJoin(t, cs)
	gs[1].SetProgress(406, "forward layer 17")
	done := make(chan error)
	go func() { done <- gs[0].AllReduce(Floats{1}) }()
	eventually(t, "a stall report", func() bool {
		s := log.find("not there yet: host/1 at step 406, forward layer 17")
		return strings.Contains(s, "all-reduce of 1 floats")
	})
	if err := gs[1].AllReduce(Floats{1}); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestASilentRankIsLostEvenIfItsConnectionsStand(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	for i := range cs {
		cs[i].Silence = 1500 * time.Millisecond
	}
	gs := mustJoin(t, cs)
	thaw := freeze(gs[1])
	defer thaw()
	var err error
	within(t, 15*time.Second, func() { err = gs[0].AllReduce(Floats{1}) })
	wantErrors(t, []error{err}, "dist: group aborted: lost host/1: no heartbeat for")
}

// freeze stops a rank's loop, as SIGSTOP would.
func freeze(g Group) (thaw func()) {
	stuck := make(chan struct{})
	g.(*group).n.events.put(inLoop(func() { <-stuck }))
	return func() { close(stuck) }
}

func TestGossipsWordAloneDoesNotAbortAGroupWhoseHeartIsBeating(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	for i := range cs {
		cs[i].Heartbeat = 500 * time.Millisecond
	}
	gs := mustJoin(t, cs)
	name := gs[1].(*group).n.name
	gs[0].(*group).n.events.put(gossipLeft{name})
	time.Sleep(1200 * time.Millisecond)
	in := vectors(2, 2, 50)
	checkSum(t, in, reduceAll(t, gs, in))

	thaw := freeze(gs[1]) // now the heartbeat stops, too
	defer thaw()
	var err error
	within(t, 15*time.Second, func() { err = gs[0].AllReduce(Floats{1}) })
	wantErrors(t, []error{err}, "lost host/1: gossip has declared it dead and its heartbeat has stopped")
}

func TestACallThatEndsItsContextAbortsTheGroup(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 2))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := gs[1].Barrier(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	wantErrors(t, []error{gs[0].AllReduce(Floats{1})}, "host/1: barrier: context deadline exceeded")
}

func TestARestartUnderTheNextGenerationIsNotDisturbedByTheOldOne(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	old := mustJoin(t, cs)
	kill(old[1])
	if err := old[0].Barrier(context.Background()); err == nil {
		t.Fatal("the old group lives")
	}
	old[0].Close()
	old[1].Close()
	for i := range cs {
		cs[i].Generation, cs[i].Previous = 4, 2
	}
	in := vectors(3, 2, 77)
	checkSum(t, in, reduceAll(t, mustJoin(t, cs), in))
}

func TestABrokenDataConnectionAloneAbortsTheGroup(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 3))
	g := gs[1].(*group)
	g.mu.Lock()
	g.out.Close() // to rank 2
	g.mu.Unlock()
	var errs []error
	within(t, 15*time.Second, func() {
		errs = onAll(gs, func(g Group) error { return g.AllReduce(make(Floats, 1000)) })
	})
	wantErrors(t, errs, "dist: group aborted: lost host/", "data connection")
	for _, err := range errs[1:] {
		if err.Error() != errs[0].Error() {
			t.Errorf("two causes: %v and %v", errs[0], err)
		}
	}
}

func TestAMuteRankZeroIsBlamedForWhatItDoesNotAnswer(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 3))
	thaw := freeze(gs[0])
	defer thaw()
	g := gs[1].(*group)
	g.mu.Lock()
	g.out.Close() // as if rank 1 had failed of rank 0 and left
	g.mu.Unlock()
	var errs []error
	within(t, 15*time.Second, func() {
		errs = onAll(gs[1:], func(g Group) error { return g.AllReduce(make(Floats, 1000)) })
	})
	wantErrors(t, errs, "dist: group aborted: lost host/0: it does not answer", "data connection")
}

func TestASmallWorldOfLoopbackAndSoloAnswersLikeAnyGroup(t *testing.T) {
	for _, g := range append(Loopback(2), Solo()) {
		g.SetProgress(1, "forward")
		if g.Generation() != 0 || g.Traffic() != (Traffic{}) || g.Rank() >= g.Size() {
			t.Errorf("rank %d of %d, generation %d, %+v", g.Rank(), g.Size(), g.Generation(), g.Traffic())
		}
	}
	parts, err := Solo().AllGatherBytes(context.Background(), []byte{7})
	if err != nil || len(parts) != 1 || parts[0][0] != 7 {
		t.Error(parts, err)
	}
}

func TestMisuseOfACollectivePanicsWithItsReason(t *testing.T) {
	for want, f := range map[string]func(Group){
		"broadcast from root 1 in a group of 1": func(g Group) { g.Broadcast(Floats{1}, 1) },
		"gather of 1048577 bytes":               func(g Group) { g.AllGatherBytes(context.Background(), make([]byte, 1<<20+1)) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
			}()
			f(Solo())
		}()
	}
}
