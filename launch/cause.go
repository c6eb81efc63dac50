package launch

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// oom counts the kernel's out-of-memory kills; −1 = unknown.
type oom struct{ cgroup, host int64 }

func oomNow() oom {
	c, h := oomCounts()
	return oom{c, h}
}

// suspect is a rank that failed, and since when.
type suspect struct {
	*rank
	status Status
	when   time.Time
	guilty bool // it failed before, or otherwise than because, the launcher told it to end
}

// first finds the failure that came first: of a rank that did not fail because it was told to, nor because
// another one was lost, if there is one, or else of the one that stood still; a rank's own account of the time
// counts more than its exit, which a core dump or a slow teardown delays. nil when no rank failed.
func (w *watch) first(before oom) *Failure {
	if w.fatal != nil && slices.ContainsFunc(w.ranks, func(r *rank) bool { return r.exit.Code != ExitDone }) {
		return w.blame(before)
	}
	var list []suspect
	for _, r := range w.ranks {
		if r.exit.failed() {
			list = append(list, w.suspect(r))
		}
	}
	if len(list) == 0 {
		return nil
	}
	s := slices.MinFunc(list, func(a, b suspect) int {
		return cmp.Or(compareBool(b.guilty, a.guilty), compareBool(a.status.Lost, b.status.Lost), a.when.Compare(b.when))
	})
	if f := frozen(list); f != nil && s.status.Lost {
		return w.failure(*f, before)
	}
	return w.failure(s, before)
}

// frozen is the one rank that said nothing and did not end when it was told to, if there is just one: where the others only say that they lost
// a rank, it is this.
func frozen(list []suspect) (f *suspect) {
	for i, s := range list {
		if s.status.Error != "" || s.exit.Signal != "SIGKILL" || !s.exit.ByUs {
			continue
		}
		if f != nil {
			return nil
		}
		f = &list[i]
	}
	return f
}

func (w *watch) suspect(r *rank) suspect {
	s := suspect{rank: r, when: r.exit.When}
	s.status, _ = readStatus(r.ErrorFile)
	if s.status.Error != "" && s.status.Time.Before(s.when) {
		s.when = s.status.Time
	}
	bySignal := r.exit.Signal != "" && r.exit.Signal != "SIGTERM" && r.exit.Signal != "SIGKILL"
	s.guilty = r.asked.IsZero() || s.when.Before(r.asked) || bySignal
	return s
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (w *watch) failure(s suspect, before oom) *Failure {
	f := &Failure{Exit: s.exit, Step: s.status.Step, Stderr: w.redact(s.err.tail), crash: s.err.crash != ""}
	if s.status.Error != "" && s.status.Rank >= 0 {
		f.Rank = s.status.Rank
	}
	f.Reason = strings.Join(w.redact([]string{w.reason(s, before) + w.hint(s.rank)}), "")
	return f
}

// redact takes the key out of what a rank said.
func (w *watch) redact(said []string) []string {
	key := base64.StdEncoding.EncodeToString(w.Key)
	out := make([]string, len(said))
	for i, s := range said {
		out[i] = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), key, "[key]")
	}
	return out
}

// reason is the best account of a failure that there is.
func (w *watch) reason(s suspect, before oom) string {
	e := s.exit
	last := "it printed nothing on stderr"
	if n := len(s.err.tail); n > 0 {
		last = "last line on stderr: " + s.err.tail[n-1]
	}
	switch {
	case s.status.Error != "":
		return s.status.Error
	case s.err.crash != "":
		return s.err.crash
	case e.Signal == "SIGKILL" && w.insists > 1:
		return "killed by the launcher on a second signal"
	case e.Signal == "SIGKILL" && e.ByUs:
		return fmt.Sprintf("killed by the launcher %v after SIGTERM", w.Grace)
	case e.Signal == "SIGKILL":
		return killed(before, oomNow(), e.MaxRSS)
	case e.Signal == "SIGBUS":
		return "a mapped file was truncated, or the disk or /dev/shm is full; " + last
	case e.Signal != "" && w.stopped != nil && signalText(w.stopped) == e.Signal:
		return "the signal came before the rank could publish a checkpoint"
	}
	return last
}

// killed explains a SIGKILL that the launcher did not send.
func killed(before, after oom, rss int64) string {
	use := "its peak memory was " + humanize.Bytes(uint64(max(rss, 0)))
	switch {
	case before.cgroup >= 0 && after.cgroup > before.cgroup:
		return "the kernel's OOM killer ended a process of this cgroup meanwhile: out of memory; " + use
	case before.host >= 0 && after.host > before.host:
		return "probably the OOM killer: the kernel ended a process of this host for want of memory meanwhile; " + use
	}
	return "probably the OOM killer of another cgroup, the scheduler, or kill -9: the kernel counted no OOM kill here; " + use
}
