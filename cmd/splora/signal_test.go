//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/splora/splora/launch"
)

// TestASignalStopsAllRanksAtOneStepAndTheSameCommandGoesOn sends each signal to the launcher and to either rank alone.
func TestASignalStopsAllRanksAtOneStepAndTheSameCommandGoesOn(t *testing.T) {
	const steps = 300 // enough for a signal to arrive in the middle
	w := newWorld(t)
	args := func(out string) []string {
		return w.train("--out", w.path(out), "--max-steps", fmt.Sprint(steps), "--log-every", "100")
	}
	if o := start(t, "launch", nil, args("whole")...).wait(); o.code != exitDone {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	signals, targets := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1}, []string{"rank 0", "rank 1", "launcher"}
	for i, sig := range signals {
		for target, name := range targets {
			if (testing.Short() || raceDetector) && target != i {
				continue
			}
			t.Run(fmt.Sprintf("%v to %s", sig, name), func(t *testing.T) {
				t.Parallel()
				out := strings.ReplaceAll(t.Name()[strings.Index(t.Name(), "/")+1:], "/", "")
				for try := 0; ; try++ {
					p := start(t, "launch", nil, args(out)...)
					stopAt := "run: " // before the first step
					if try == 0 {
						stopAt = "step   1/"
					}
					p.until(stopAt)
					pid := p.cmd.Process.Pid
					if target < 2 {
						pid = p.ranks()[target]
					}
					syscall.Kill(pid, sig)
					o := p.wait()
					if o.code == exitDone && try < 5 { // it was faster than the signal
						os.RemoveAll(w.path(out))
						continue
					}
					if o.code != exitStopped {
						t.Fatalf("exit code %d\n%s", o.code, o.stderr)
					}
					if codes := exitCodes(o.stderr); fmt.Sprint(codes) != "[75 75]" {
						t.Errorf("the ranks ended with %v", codes)
					}
					break
				}
				done := len(records(t, w.path(out)))
				if done >= steps || !exists(w.path(fmt.Sprintf("%s/checkpoint-%d", out, done))) {
					t.Errorf("%d steps in the metrics, and no checkpoint of that step", done)
				}
				o := start(t, "launch", nil, args(out)...).wait()
				if want := fmt.Sprintf("resuming from %s", w.path(fmt.Sprintf("%s/checkpoint-%d\n", out, done))); o.code != exitDone || !strings.Contains(o.stderr, want) {
					t.Fatalf("exit code %d, want 0 and %q\n%s", o.code, want, o.stderr)
				}
				w.sameRun(t, "whole", out)
			})
		}
	}
}

// exitCodes are the ranks', by the launcher's events.
func exitCodes(log string) (codes []int) {
	for line := range strings.Lines(log) {
		var e struct {
			Msg  string
			Code int
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "rank ended" {
			codes = append(codes, e.Code)
		}
	}
	return codes
}

func TestARankAloneStopsOnASignalAndGoesOn(t *testing.T) {
	w := newWorld(t)
	args := w.train("--max-steps", "1000", "--log-every", "100")
	p := start(t, "splora", nil, args...)
	p.until("run: ")
	p.cmd.Process.Signal(syscall.SIGTERM)
	o := p.wait()
	if o.code != exitStopped || !strings.Contains(o.stderr, "run the same command again to go on") {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	if ok(t, args...); len(records(t, w.path("out"))) != 1000 {
		t.Error("the run did not end with step 1000")
	}
}

func TestARankThatWaitsForTheOthersStopsOnASignal(t *testing.T) {
	w := newWorld(t)
	alone := launch.Contract{Job: "job", Key: make([]byte, 16), Bind: "127.0.0.1", Generation: 1, Attempt: 1, LocalSize: 1, WorldMin: 2, WorldMax: 2, Seeds: []string{"127.0.0.1:1"}}
	p := start(t, "splora", alone.Environ(), w.train()...)
	p.until("weights are kept") // the model is loaded; then it joins
	p.cmd.Process.Signal(syscall.SIGTERM)
	if o := p.wait(); o.code != exitStopped || !strings.Contains(o.stderr, "before the first step") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}

func TestOneRankUnderALauncherHasItsGeneration(t *testing.T) {
	w := newWorld(t)
	one := launch.Contract{Job: "job", Key: make([]byte, 16), Bind: "127.0.0.1", Generation: 7, Attempt: 1, LocalSize: 1, WorldMin: 1, WorldMax: 1}
	if o := start(t, "splora", one.Environ(), w.train("--max-steps", "1")...).wait(); o.code != exitDone {
		t.Fatal(o.stderr)
	}
	if r := records(t, w.path("out")); len(r) != 1 || r[0].Generation != 7 || r[0].World != 1 {
		t.Errorf("%+v", r)
	}
}
