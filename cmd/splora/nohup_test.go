//go:build linux

package main

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

func TestARunStartedWithNohupOutlivesItsTerminal(t *testing.T) {
	w := newWorld(t)
	signal.Ignore(syscall.SIGHUP) // as nohup does; a child inherits it
	p := start(t, "splora", nil, w.train("--max-steps", "300", "--log-every", "1")...)
	signal.Reset(syscall.SIGHUP)
	p.until("step   1/")
	p.cmd.Process.Signal(syscall.SIGHUP)
	if o := p.wait(); o.code != exitDone || len(records(t, w.path("out"))) != 300 {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}

// TestASecondInterruptEndsAnything, here a command that waits for its standard input.
func TestASecondInterruptEndsAnything(t *testing.T) {
	w := newWorld(t)
	c := exec.Command(os.Args[0], "tokenize", "--model", w.path("model"))
	c.Env = append(os.Environ(), role+"=splora")
	if _, err := c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	hung := time.After(patience)
	for {
		select {
		case <-done:
			return
		case <-hung:
			c.Process.Kill()
			t.Fatal("it does not end")
		case <-time.After(20 * time.Millisecond):
			c.Process.Signal(syscall.SIGINT)
		}
	}
}
