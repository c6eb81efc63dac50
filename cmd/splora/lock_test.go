package main

import (
	"strings"
	"testing"
)

func TestASecondRunIsKeptOutWhileTheFirstWritesToOut(t *testing.T) {
	w := newWorld(t)
	args := w.train("--max-steps", "100000", "--schedule", "constant")
	first := start(t, "splora", nil, args...)
	if !first.until("run: ") {
		t.Fatal(first.wait().stderr)
	}
	o := splora(t, args...)
	w.clear(t, o, exitFailed, "another run is writing to DIR/out")
	if strings.Contains(o.stderr, "resuming") {
		t.Errorf("it began:\n%s", o.stderr)
	}
	first.cmd.Process.Kill()
	first.wait()
	ok(t, w.train("--max-steps", "3", "--schedule", "constant")...) // nothing has to be cleared away
}
