package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// child starts a program that measures itself and reads the last line that it prints. It is told when it was started.
func child(ctx context.Context, program string, stdin io.Reader, env []string, args ...string) (m Measurement, err error) {
	c := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = stdin, &out, &errs
	c.Env = append(os.Environ(), env...)
	c.Args = append(c.Args, "--began", fmt.Sprint(time.Now().UnixNano()))
	before, at := busy(), time.Now()
	if err := c.Run(); err != nil {
		return m, fmt.Errorf("%w: %s", err, lastLine(errs.String()))
	}
	wall, own := time.Since(at), c.ProcessState.UserTime()+c.ProcessState.SystemTime()
	others := max(0, (busy()-before-own).Seconds()/wall.Seconds())
	if err := json.Unmarshal([]byte(lastLine(out.String())), &m); err != nil {
		return m, fmt.Errorf("its last line is no measurement: %w: %.200s", err, lastLine(out.String()))
	}
	if len(m.Steps) == 0 {
		return m, fmt.Errorf("it timed no step")
	}
	m.Others = others
	return m, nil
}

// busy is the time that all processors of the machine have worked so far, where /proc/stat tells it.
func busy() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	var sum, n int64
	for i, f := range strings.Fields(string(text[:max(0, bytes.IndexByte(text, '\n'))])) {
		if i == 4 || i == 5 || i > 8 { // idle, waiting for disks, guests (already in user)
			continue
		}
		if k, _ := fmt.Sscan(f, &n); k == 1 {
			sum += n
		}
	}
	return time.Duration(sum) * tick
}

// waitForCalm returns when the machine's processors were busy for less than cores over two seconds, or after most.
func waitForCalm(ctx context.Context, cores float64, most time.Duration) {
	const look = 2 * time.Second
	for end := time.Now().Add(most); time.Now().Before(end); {
		before := busy()
		select {
		case <-ctx.Done():
			return
		case <-time.After(look):
		}
		if (busy() - before).Seconds() < cores*look.Seconds() {
			return
		}
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
