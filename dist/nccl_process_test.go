//go:build cuda

package dist

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

var ncclRank = flag.String("nccl-rank", "", "used by the tests: be a rank, as this JSON says")

// rankOf says what a child process is.
type rankOf struct {
	Local, World, Port int
	Library            string
	Stuck              int           // at this step it computes for ever
	Timeout            time.Duration // of collectives
	Budget             time.Duration
}

// TestBeARankOverNCCL is a rank in a process of its own: it reduces until it fails, prints why and leaves.
func TestBeARankOverNCCL(t *testing.T) {
	if *ncclRank == "" {
		return // only as a child of the tests below
	}
	var o rankOf
	if err := json.Unmarshal([]byte(*ncclRank), &o); err != nil {
		t.Fatal(err)
	}
	c := Config{Job: "processes over NCCL", Key: testKey, Host: "host", LocalRank: o.Local, WorldMax: o.World, Timeout: 30 * time.Second,
		Seeds: []string{fmt.Sprintf("127.0.0.1:%d", o.Port)}, Silence: 5 * time.Second,
		NCCL: &NCCL{Library: o.Library, Done: done, Timeout: o.Timeout, Budget: o.Budget}}
	if o.Local == 0 {
		c.GossipPort = o.Port
	}
	g, err := Join(context.Background(), c)
	if err != nil {
		fmt.Println("ERROR", err)
		return
	}
	defer g.Close()
	v := newRemote(t, 0, 0, 0)
	for step := 1; ; step++ {
		g.SetProgress(step, "forward")
		if step == o.Stuck {
			time.Sleep(time.Hour)
		}
		copy(v.v, []float32{1, float32(step), float32(g.Rank())})
		if err := g.AllReduce(v); err != nil {
			fmt.Println("ERROR", err)
			return
		}
		if n := float32(o.World); v.v[0] != n || v.v[1] != n*float32(step) || v.v[2] != n*(n-1)/2 {
			fmt.Println("ERROR sum", v.v)
			return
		}
		if step == 3 {
			fmt.Println("READY")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type ncclProcess struct {
	process
	exit chan error
	err  *strings.Builder
}

// end waits for the process, reading whatever it still says.
func (p *ncclProcess) end(t *testing.T) (err error) {
	t.Helper()
	go io.Copy(io.Discard, p.out)
	within(t, 30*time.Second, func() { err = <-p.exit })
	return err
}

// startRanks starts one process per rank, each with its environment, and waits until they train.
func startRanks(t *testing.T, each func(r int, o *rankOf) (env []string)) []*ncclProcess {
	port := freePort(t)
	ps := make([]*ncclProcess, 3)
	for i := range ps {
		o := rankOf{Local: i, World: len(ps), Port: port, Library: library(t)}
		env := each(i, &o)
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestBeARankOverNCCL$", "-nccl-rank="+string(b))
		cmd.Env = append(os.Environ(), env...)
		r, w := io.Pipe()
		p := &ncclProcess{process{cmd, bufio.NewReader(r)}, make(chan error, 1), new(strings.Builder)}
		cmd.Stdout, cmd.Stderr = w, p.err
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() { err := cmd.Wait(); w.Close(); p.exit <- err; close(gone) }()
		t.Cleanup(func() { cmd.Process.Kill(); go io.Copy(io.Discard, r); <-gone })
		ps[i] = p
	}
	for i, p := range ps {
		if s := p.line("READY"); s != "READY" {
			t.Fatalf("rank %d: %q %s", i, s, p.err)
		}
	}
	return ps
}

func TestProcessesOverNCCLNameAKilledAndAFrozenRankAlthoughTheTransportNoticesNothing(t *testing.T) {
	t.Parallel()
	library(t)
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		for _, victim := range []int{0, 2} {
			t.Run(fmt.Sprint(name, victim), func(t *testing.T) {
				t.Parallel()
				ps := startRanks(t, func(int, *rankOf) []string { return []string{"HOSTNCCL_TRANSPORT=p2p"} })
				time.Sleep(1500 * time.Millisecond) // a heartbeat, so that rank 0's place is known
				start := time.Now()
				if err := ps[victim].cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				for r, p := range ps {
					if r == victim {
						continue
					}
					var s string
					within(t, 40*time.Second, func() { s = p.line("ERROR") })
					if !strings.HasPrefix(s, fmt.Sprintf("ERROR dist: group aborted: lost host/%d: ", victim)) || !strings.Contains(s, "forward") {
						t.Error(s)
					}
					t.Logf("rank %d after %.1f s: %s", r, time.Since(start).Seconds(), s)
					p.end(t)
				}
			})
		}
	}
}

func TestAProcessWhoseAbortHangsEndsItselfNamingTheLostRank(t *testing.T) {
	t.Parallel()
	ps := startRanks(t, func(r int, o *rankOf) []string {
		if o.Budget = 300 * time.Millisecond; r == 1 {
			return []string{"HOSTNCCL_TRANSPORT=p2p", "HOSTNCCL_FAULT=hang-abort"}
		}
		return []string{"HOSTNCCL_TRANSPORT=p2p"}
	})
	if err := ps[2].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err := ps[1].end(t)
	said := ps[1].err.String()
	if err == nil || err.Error() != "exit status 1" || !strings.Contains(said, "dist: group aborted: lost host/2: ") ||
		!strings.Contains(said, "NCCL's abort has not returned within 300ms: ending the process") {
		t.Errorf("%v: %s", err, said)
	}
	var s string
	within(t, 30*time.Second, func() { s = ps[0].line("ERROR") })
	if !strings.Contains(s, "lost host/2: ") {
		t.Error(s)
	}
}

func TestAProcessThatComputesForEverIsFoundAtTheTimeoutOfTheOthers(t *testing.T) {
	t.Parallel()
	ps := startRanks(t, func(r int, o *rankOf) []string {
		if o.Timeout = 2 * time.Second; r == 1 {
			o.Stuck = 5
		}
		return nil
	})
	for _, r := range []int{0, 2} {
		var s string
		within(t, 30*time.Second, func() { s = ps[r].line("ERROR") })
		if !strings.Contains(s, "time-out of 2s: ") || !strings.Contains(s, "not there yet: host/1 at step 5, forward, ") {
			t.Error(s)
		}
	}
}

func TestARankThatDiesInsideACollectiveIsNamed(t *testing.T) {
	t.Parallel()
	ps := startRanks(t, func(r int, o *rankOf) []string {
		if r == 1 {
			return []string{"HOSTNCCL_FAULT=die@30"}
		}
		return nil
	})
	for _, r := range []int{0, 2} {
		var s string
		within(t, 30*time.Second, func() { s = ps[r].line("ERROR") })
		if !strings.HasPrefix(s, "ERROR dist: group aborted: lost host/1: ") {
			t.Error(s)
		}
	}
}
