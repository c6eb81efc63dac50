package dist

import (
	"bufio"
	"context"
	"errors"
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

var child = flag.String("child", "", "used by the tests: be rank LOCAL:PORT of a job of three")

// TestBeAChild is a rank of its own process: it reduces until it fails, prints why and leaves.
func TestBeAChild(t *testing.T) {
	if *child == "" {
		return // only as a child of the tests below
	}
	var local, port int
	if _, err := fmt.Sscanf(*child, "%d:%d", &local, &port); err != nil {
		t.Fatal(err)
	}
	c := Config{Job: "processes", Key: testKey, Host: "host", LocalRank: local, WorldMax: 3, Timeout: 30 * time.Second,
		Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}}
	if local == 0 {
		c.GossipPort = port
	}
	g, err := Join(context.Background(), c)
	if err != nil {
		fmt.Println("ERROR", err)
		return
	}
	defer g.Close()
	for step := 1; ; step++ {
		g.SetProgress(step, "forward")
		v := Floats{1, 2, float32(g.Rank())}
		if err := g.AllReduce(v); err != nil {
			fmt.Println("ERROR", err)
			return
		}
		if v[0] != 3 || v[1] != 6 || v[2] != 3 {
			fmt.Println("ERROR sum", v)
			return
		}
		if step == 3 {
			fmt.Println("READY")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// line that begins with the mark, or the end of the output.
func (p *process) line(mark string) string {
	for {
		s, err := p.out.ReadString('\n')
		if strings.HasPrefix(s, mark) || err != nil {
			return strings.TrimSpace(s)
		}
	}
}

func startProcesses(t *testing.T) []*process {
	port := freePort(t)
	ps := make([]*process, 3)
	for i := range ps {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBeAChild$", fmt.Sprintf("-child=%d:%d", i, port))
		r, w := io.Pipe()
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { cmd.Wait(); w.Close(); close(done) }()
		t.Cleanup(func() { cmd.Process.Kill(); go io.Copy(io.Discard, r); <-done })
		ps[i] = &process{cmd, bufio.NewReader(r)}
	}
	for i, p := range ps {
		if s := p.line("READY"); s != "READY" {
			t.Fatalf("rank %d: %q", i, s)
		}
	}
	return ps
}

func TestRanksOfOtherProcessesReportAKilledAndAFrozenOne(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		for _, victim := range []int{0, 1} {
			t.Run(fmt.Sprint(name, victim), func(t *testing.T) {
				t.Parallel()
				ps := startProcesses(t)
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
						t.Error(errors.New(s))
					}
					t.Logf("rank %d after %.1f s: %s", r, time.Since(start).Seconds(), s)
				}
			})
		}
	}
}
