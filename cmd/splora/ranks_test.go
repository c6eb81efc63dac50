package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/splora/splora/launch"
)

// place is what a launcher would tell local rank r of two, whose gossip is at port.
func place(t *testing.T, r, port int) launch.Contract {
	t.Helper()
	c := launch.Contract{Job: strings.ReplaceAll(t.Name(), "/", "."), Key: bytes.Repeat([]byte{7}, 32), Bind: "127.0.0.1", Generation: 1, Attempt: 1,
		Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Rank: r, LocalRank: r, LocalSize: 2, WorldMin: 2, WorldMax: 2}
	if r == 0 {
		c.GossipPort = port
	}
	return c
}

// freePort is one that nobody listens on just now.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// TestRanksThatDifferFailByNameBeforeTheFirstStep starts two ranks by hand, as a launcher would.
func TestRanksThatDifferFailByNameBeforeTheFirstStep(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w world, c *launch.Contract, args *[]string) // of rank 1
		want   []string                                          // of any rank
	}{
		"model folders": {func(w world, c *launch.Contract, args *[]string) {
			ok(t, "init", "--config", w.write(t, "c.json", tinyConfig), "--out", w.path("other"), "--pattern", "2:4", "--seed", "8")
			w.tokenizer(t, "other")
			*args = w.train("--model", w.path("other"))
		}, []string{"model", "differ"}},
		"rows": {func(w world, c *launch.Contract, args *[]string) {
			*args = w.train("--data", w.write(t, "other.jsonl", `{"text":"other rows"}`+"\n"))
		}, []string{"data", "differ"}},
		"settings": {func(w world, c *launch.Contract, args *[]string) {
			*args = w.train("--lr", "2e-2", "--clip", "0.5", "--dtype", "bfloat16")
		},
			[]string{"--clip differs: 0.5 on", "--lr differs: 0.01 on", "but 0.02 on", "--dtype differs: bfloat16 on"}},
		"evaluation rows": {func(w world, c *launch.Contract, args *[]string) {
			*args = w.train("--eval-data", w.write(t, "other.jsonl", `{"text":"other rows"}`+"\n"))
		}, []string{"eval data differs"}},
		"gossip keys": {func(w world, c *launch.Contract, args *[]string) {
			c.Key = bytes.Repeat([]byte{8}, 32)
		}, []string{"key differs"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			port := freePort(t)
			one, args := place(t, 1, port), w.train()
			c.change(w, &one, &args)
			first := w.train()
			if name == "gossip keys" {
				first = w.train("--join-timeout", "10") // when rank 0 gives up; rank 1 is told why by rank 0's address, if it is fast enough
				args = append(args, "--join-timeout", "60")
			}
			a, b := start(t, "splora", place(t, 0, port).Environ(), first...), start(t, "splora", one.Environ(), args...)
			said := ""
			for _, o := range []outcome{a.wait(), b.wait()} {
				w.clear(t, o, exitFailed)
				said += o.stderr
			}
			for _, s := range c.want {
				if !strings.Contains(said, s) {
					t.Errorf("want %q in\n%s", s, said)
				}
			}
			if list, err := os.ReadDir(w.path("out")); err == nil && len(list) > 0 {
				t.Errorf("out holds %v", list)
			}
		})
	}
}

func TestAPortInUseIsNamed(t *testing.T) {
	w := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	o := start(t, "splora", place(t, 0, port).Environ(), w.train()...).wait()
	w.clear(t, o, exitFailed, fmt.Sprint(port), "in use")
}

func TestARankThatIsAloneSaysWhomItMisses(t *testing.T) {
	w := newWorld(t)
	o := start(t, "splora", place(t, 0, freePort(t)).Environ(), w.train("--join-timeout", "2")...).wait()
	w.clear(t, o, exitFailed, "1 of 2")
}

// The launcher of a rank that has no place learns which generation to wait in; the run that stands goes on.
func TestARankThatComesTooLateTellsItsLauncherAndHarmsNobody(t *testing.T) {
	w, port := newWorld(t), freePort(t)
	args := w.train("--max-steps", "1000000")
	run := []*process{start(t, "splora", place(t, 0, port).Environ(), args...), start(t, "splora", place(t, 1, port).Environ(), args...)}
	run[0].until("group stands")
	late := place(t, 1, port)
	late.ErrorFile = w.path("status.json")
	o := start(t, "splora", late.Environ(), args...).wait()
	w.clear(t, o, exitFailed, "generation 1 already stands with 2 ranks")
	var s launch.Status
	if b, err := os.ReadFile(late.ErrorFile); err != nil || json.Unmarshal(b, &s) != nil || s.Late != 1 || s.Step != -1 {
		t.Errorf("status %+v, error %v", s, err)
	}
	for _, p := range run {
		p.cmd.Process.Signal(syscall.SIGTERM)
		if o := p.wait(); o.code != exitStopped {
			t.Errorf("a rank of the group ended with %d\n%s", o.code, o.stderr)
		}
	}
}

// A launcher more than the job has nodes leaves the run alone, however often it asks, and has a place when the run has lost a rank.
func TestASpareLauncherTakesPartWhenTheGroupFormsAnew(t *testing.T) {
	w, port := newWorld(t), freePort(t)
	args := w.train("--max-steps", "1000000", "--save-every", "1000")
	node := func(rank, generation int) launch.Contract {
		c := place(t, rank, port)
		c.Generation, c.NodeRank, c.LocalRank, c.LocalSize = generation, rank, 0, 1
		return c
	}
	first, lost := start(t, "splora", node(0, 1).Environ(), args...), start(t, "splora", node(1, 1).Environ(), args...)
	first.until("group stands")
	spare := start(t, "launch", append(node(1, 1).Environ(), maxRestarts+"=1"), args...)
	if !spare.until(`"attempt":4,`) { // it may restart once
		t.Fatal(spare.wait().stderr)
	}
	select {
	case <-first.done:
		t.Fatalf("the run ended\n%s", first.wait().stderr)
	default:
	}
	lost.cmd.Process.Kill()
	w.clear(t, first.wait(), exitFailed, "lost")
	next := start(t, "splora", node(0, 2).Environ(), args...)
	for _, p := range []*process{next, spare} {
		if !p.until("group stands") {
			t.Fatal(p.wait().stderr)
		}
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range []*process{next, spare} {
		if o := p.wait(); o.code != exitStopped || !strings.Contains(o.stderr, `"generation": 2`) {
			t.Errorf("exit code %d\n%s", o.code, o.stderr)
		}
	}
}

func TestAWrongContractIsWrongUsage(t *testing.T) {
	w := newWorld(t)
	o := start(t, "splora", append(place(t, 0, 0).Environ(), "SPLORA_WORLD=three"), w.train()...).wait()
	w.clear(t, o, exitUsage, "SPLORA_WORLD")
}

func TestTheLauncherPassesWrongUsageAndFailuresOn(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{w.train("--rank", "0"), exitUsage, []string{"--rank 0: at least 1", "not restarted: wrong usage or configuration"}},
		{w.train("--model", w.path("absent")), exitFailed, []string{"DIR/absent", "attempt 2 of 2"}},
	} {
		o := start(t, "launch", []string{maxRestarts + "=1"}, c.args...).wait()
		last := o.stderr[strings.LastIndex(o.stderr, "launcher: "):]
		if o.code != c.code {
			t.Errorf("exit code %d, want %d", o.code, c.code)
		}
		for _, s := range c.want {
			if s = strings.ReplaceAll(s, "DIR", w.dir); !strings.Contains(last, s) {
				t.Errorf("want %q in %s", s, last)
			}
		}
	}
}
