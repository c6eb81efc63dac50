//go:build linux

package launch

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// end is how a rank of a made-up attempt ended: seconds after the attempt's start; 0 = never.
type end struct {
	code           int
	signal         string
	exit, asked    int
	said           int // when it wrote its error
	lost           bool
	stderr, reason string
}

func failureOf(t *testing.T, before oom, ends ...end) *Failure {
	start := time.Now().Add(-time.Hour)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	w := watch{launcher: &launcher{Config: Config{Key: randomBytes(32), Grace: time.Second}}}
	for i, e := range ends {
		r := &rank{err: &lines{}}
		r.ErrorFile = filepath.Join(t.TempDir(), "status.json")
		r.exit = Exit{Rank: i, Code: e.code, Signal: e.signal, When: at(e.exit)}
		if e.asked > 0 {
			r.asked = at(e.asked)
			r.exit.ByUs = e.asked < e.exit
		}
		if e.said > 0 {
			writeStatus(r.ErrorFile, Status{Rank: i, Step: 3, Error: e.reason, Lost: e.lost, Time: at(e.said)})
		}
		r.err.Write([]byte(e.stderr))
		w.ranks = append(w.ranks, r)
	}
	return w.first(before)
}

func TestTheFirstFailureIsTheCauseAndNotAConsequence(t *testing.T) {
	unknown := oom{-1, -1}
	for name, c := range map[string]struct {
		ends []end
		rank int
	}{
		"the earlier exit":                    {[]end{{code: 1, exit: 9}, {code: 1, exit: 8}}, 1},
		"not the one that was told to end":    {[]end{{code: 1, exit: 9, asked: 5}, {code: 3, exit: 5}}, 1},
		"not the one that lost a rank":        {[]end{{code: 1, exit: 5, said: 5, lost: true}, {code: 1, exit: 6, asked: 0}}, 1},
		"said before it was told to end":      {[]end{{code: 1, exit: 5, said: 5, lost: true}, {code: 1, exit: 8, asked: 6, said: 4}}, 1},
		"a crash while it was told to end":    {[]end{{code: 1, exit: 5, said: 5, lost: true}, {code: -1, signal: "SIGSEGV", exit: 8, asked: 6}}, 1},
		"not a crash that is our own SIGTERM": {[]end{{code: -1, signal: "SIGTERM", exit: 8, asked: 6}, {code: 1, exit: 6}}, 1},
		"its own word on the time":            {[]end{{code: 1, exit: 5}, {code: 1, exit: 9, said: 4, reason: "x"}}, 1},
		"all were lost":                       {[]end{{code: 1, exit: 6, said: 6, lost: true}, {code: 1, exit: 5, said: 5, lost: true}}, 1},
		"a frozen one that others lost":       {[]end{{code: 1, exit: 5, said: 5, lost: true}, {code: -1, signal: "SIGKILL", exit: 40, asked: 6}, {code: 1, exit: 5, said: 5, lost: true}}, 1},
		"not one that was slow to end":        {[]end{{code: 1, exit: 5, said: 5}, {code: -1, signal: "SIGKILL", exit: 40, asked: 6}}, 0},
		"which of two that froze":             {[]end{{code: -1, signal: "SIGKILL", exit: 40, asked: 6}, {code: -1, signal: "SIGKILL", exit: 40, asked: 6}, {code: 1, exit: 5, said: 5, lost: true}}, 2},
		"stopped ranks did not fail":          {[]end{{code: 75, exit: 5}, {code: 1, exit: 9, asked: 0}}, 1},
	} {
		for i := range c.ends {
			if c.ends[i].said > 0 {
				c.ends[i].reason = "because"
			}
		}
		if f := failureOf(t, unknown, c.ends...); f == nil || f.Rank != c.rank {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := failureOf(t, unknown, end{code: 0}, end{code: 75}); f != nil {
		t.Errorf("no rank failed: %+v", f)
	}
}

func TestASIGKILLIsExplainedByWhatTheKernelCounted(t *testing.T) {
	for _, c := range []struct {
		before, after oom
		want          string
	}{
		{oom{1, 5}, oom{2, 6}, "OOM killer ended a process of this cgroup"},
		{oom{-1, 5}, oom{-1, 6}, "probably the OOM killer: the kernel ended a process of this host"},
		{oom{1, 5}, oom{1, 5}, "counted no OOM kill"},
		{oom{-1, -1}, oom{-1, -1}, "counted no OOM kill"},
	} {
		if got := killed(c.before, c.after, 3<<29); !strings.Contains(got, c.want) || !strings.Contains(got, "1.6 GB") {
			t.Errorf("%v → %v: %q", c.before, c.after, got)
		}
	}
}

func TestCountersAreFoundByTheirWholeName(t *testing.T) {
	for in, want := range map[string]int64{
		"low 0\noom 3\noom_kill 2\noom_group_kill 0\n":  2, // cgroup v2
		"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n": 7, // cgroup v1
		"oom_kill_disable 1\n":                          -1,
		"":                                              -1,
		"oom_kill x\n":                                  -1,
	} {
		if got := counter([]byte(in), "oom_kill"); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
	if _, host := oomCounts(); host < 0 {
		t.Error("/proc/vmstat of this kernel counts no OOM kills")
	}
}

func TestWithoutAnErrorFileTheReasonIsTheLastLineOrTheSignal(t *testing.T) {
	for want, e := range map[string]end{
		"last line on stderr: boom":    {code: 1, exit: 1, stderr: "x\nboom\n"},
		"it printed nothing on stderr": {code: 1, exit: 1},
		"panic: boom":                  {code: 2, exit: 1, stderr: "panic: boom\n\ngoroutine 1:\nmain.main\n"},
		"SIGSEGV: segmentation":        {code: 2, exit: 1, stderr: "SIGSEGV: segmentation violation\nPC=0x7f m=0\n\ngs     0x0\n"},
		"a mapped file was truncated":  {code: -1, signal: "SIGBUS", exit: 1},
		"killed by the launcher 1s":    {code: -1, signal: "SIGKILL", exit: 9, asked: 2},
		"fatal error: out of memory":   {code: 2, exit: 1, stderr: "fatal error: out of memory\n"},
	} {
		if f := failureOf(t, oom{-1, -1}, e); !strings.HasPrefix(f.Reason, want) || usage(f) {
			t.Errorf("%+v: %q, want %q; wrong usage: %v", e, f.Reason, want, usage(f))
		}
	}
}
