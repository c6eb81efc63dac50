//go:build linux

package launch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

func TestAllRanksDoneIsDone(t *testing.T) {
	defer goleak.VerifyNone(t)
	c, _ := job(t, "done", 3)
	var out bytes.Buffer
	c.Stdout, c.PrefixLogs = &out, true
	r, err := Run(t.Context(), c)
	if err != nil || r.ExitCode != ExitDone || r.First != nil || len(r.Attempts) != 1 || len(r.Attempts[0].Ranks) != 3 {
		t.Fatalf("report %+v, error %v", r, err)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(got)
	want := []string{"[0] rank 0 of 3", "[1] rank 1 of 3", "[2] rank 2 of 3"}
	if !slices.Equal(got, want) {
		t.Errorf("stdout %q, want %q", got, want)
	}
}

func TestAFailedRankStopsItsSiblingsAndIsNamedWithItsCause(t *testing.T) {
	c, _ := job(t, "fails", 3)
	c.LogDir = t.TempDir()
	r, err := Run(t.Context(), c)
	var f *Failure
	if !errors.As(err, &f) || r.ExitCode != ExitFailed {
		t.Fatalf("error %v, exit code %d", err, r.ExitCode)
	}
	if f.Rank != 1 || f.Code != 3 || f.Step != 41 || f.Reason != "gradient is NaN" || f.ByUs {
		t.Errorf("first failure %+v", f)
	}
	want := fmt.Sprintf("launch: rank 1 (pid %d) failed at step 41: exit code 3: gradient is NaN", f.PID)
	if err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if n := len(f.Stderr); n != 20 || f.Stderr[n-2] != "line 29" || f.Stderr[n-1] != "the key is [key]" {
		t.Errorf("stderr's last lines %q", f.Stderr)
	}
	for _, e := range r.Attempts[0].Ranks {
		if e.Rank != 1 && !(e.ByUs && e.Code == 1) {
			t.Errorf("sibling %+v was not asked to end", e)
		}
	}
	var onDisk Report
	b, err := os.ReadFile(filepath.Join(c.LogDir, "exit-report.json"))
	if err != nil || json.Unmarshal(b, &onDisk) != nil || onDisk.First.Reason != f.Reason || onDisk.ExitCode != 1 {
		t.Errorf("exit report %s, error %v", b, err)
	}
}

func TestARestartHasANewGenerationAndCanSucceed(t *testing.T) {
	c, dir := job(t, "fails once", 2)
	c.MaxRestarts = 3
	r, err := Run(t.Context(), c)
	if err != nil || len(r.Attempts) != 2 || r.Attempts[0].First == nil || r.Attempts[1].First != nil {
		t.Fatalf("report %+v, error %v", r, err)
	}
	for _, name := range []string{"generation-2-rank-0", "generation-2-rank-1"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestRestartsEndAfterMaxRestarts(t *testing.T) {
	c, _ := job(t, "stuck", 1)
	c.MaxRestarts = 1
	r, err := Run(t.Context(), c)
	if err == nil || len(r.Attempts) != 2 || r.ExitCode != ExitFailed || !strings.Contains(r.Reason, "attempt 2 of 2") {
		t.Fatalf("%d attempts, exit code %d, reason %q, error %v", len(r.Attempts), r.ExitCode, r.Reason, err)
	}
}

func TestACrashLoopWithoutProgressEndsEarly(t *testing.T) {
	c, _ := job(t, "stuck", 2)
	c.MaxRestarts = 100
	r, _ := Run(t.Context(), c) // steps 5, 10, 10, 10
	if len(r.Attempts) != 4 || !strings.Contains(r.Reason, "no progress: 3 attempts did not get past step 10") {
		t.Fatalf("%d attempts, reason %q", len(r.Attempts), r.Reason)
	}
}

// A launcher that has no place in a group, or was replaced, leaves the group alone: it waits, under the group's generation.
func TestALauncherThatComesTooLateAsksAgainUnderTheGenerationThatStands(t *testing.T) {
	c, _ := job(t, "late", 1)
	c.MaxRestarts = 1
	r, err := Run(t.Context(), c)
	var generations []int
	for _, a := range r.Attempts {
		generations = append(generations, a.Generation)
	}
	if err != nil || !slices.Equal(generations, []int{1, 7, 7, 7, 7, 8}) {
		t.Fatalf("generations %v, reason %q, error %v", generations, r.Reason, err)
	}
}

func TestWithoutRestartsALauncherAsksOnce(t *testing.T) {
	c, _ := job(t, "late", 1)
	r, err := Run(t.Context(), c)
	if len(r.Attempts) != 1 || r.ExitCode != ExitFailed || !strings.Contains(err.Error(), "generation 7 already stands") ||
		!strings.Contains(r.Reason, "give --max-restarts to wait for a place") {
		t.Fatalf("%d attempts, exit code %d, reason %q, error %v", len(r.Attempts), r.ExitCode, r.Reason, err)
	}
}

func TestWrongUsageIsNotTriedAgain(t *testing.T) {
	c, _ := job(t, "usage", 2)
	c.MaxRestarts = 5
	r, err := Run(t.Context(), c)
	if len(r.Attempts) != 1 || r.ExitCode != ExitUsage || !strings.Contains(err.Error(), "--lr: not a number") {
		t.Fatalf("%d attempts, exit code %d, error %v", len(r.Attempts), r.ExitCode, err)
	}
}

// A Go panic ends with exit code 2, too.
func TestAPanicIsNoWrongUsage(t *testing.T) {
	c, _ := job(t, "panics", 1)
	c.MaxRestarts = 1
	r, err := Run(t.Context(), c)
	if err != nil || len(r.Attempts) != 2 || r.Attempts[0].First.Code != 2 ||
		r.Attempts[0].First.Reason != "panic: q_proj leases the weight slot" {
		t.Fatalf("error %v, attempts %+v", err, r.Attempts)
	}
}

func TestEachSignalReachesEveryRankOnceAndEndsWith75(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		t.Run(signalName(s), func(t *testing.T) {
			c, dir := job(t, "stops", 2)
			sigs := make(chan os.Signal)
			c.Signals, c.MaxRestarts = sigs, 3
			done := launched(c)
			waitFor("ready-0")
			waitFor("ready-1")
			times := 20 // a signal that is sent twice at once often arrives once
			if insists(s) {
				times = 1
			}
			for n := range times {
				sigs <- s
				waitFor(fmt.Sprintf("signal-%d-0", n+1))
				waitFor(fmt.Sprintf("signal-%d-1", n+1))
			}
			sigs <- syscall.SIGPIPE // is not passed on
			os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
			r := <-done
			if r.ExitCode != ExitStopped || len(r.Attempts) != 1 || r.First != nil || !strings.Contains(r.Reason, "no rank reported a checkpoint") {
				t.Fatalf("report %+v", r)
			}
			for _, name := range []string{"signals-0", "signals-1"} {
				want := strings.TrimSuffix(strings.Repeat(signalName(s)+" ", times), " ")
				if got := waitFor(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestASecondSIGTERMKills(t *testing.T) {
	c, _ := job(t, "deaf", 2)
	sigs := make(chan os.Signal)
	c.Signals, c.MaxRestarts = sigs, 3
	done := launched(c)
	waitFor("ready-0")
	waitFor("ready-1")
	sigs <- syscall.SIGTERM
	sigs <- syscall.SIGTERM
	r := <-done
	if r.ExitCode != ExitFailed || len(r.Attempts) != 1 || r.First.Signal != "SIGKILL" || !strings.Contains(r.First.Reason, "second signal") {
		t.Fatalf("report %+v, first %+v", r, r.First)
	}
}

func TestASiblingDeafToSIGTERMIsKilledAfterGrace(t *testing.T) {
	c, _ := job(t, "deaf", 2)
	c.Env = append(c.Env, "LAUNCH_TEST_FAIL=1")
	c.Grace = 20 * time.Millisecond
	r, err := Run(t.Context(), c)
	if err == nil || r.First.Rank != 1 {
		t.Fatalf("first %+v, error %v", r.First, err)
	}
	if e := r.Attempts[0].Ranks[0]; e.Signal != "SIGKILL" || !e.ByUs {
		t.Errorf("sibling %+v", e)
	}
}

func TestACancelledContextEndsTheRanks(t *testing.T) {
	c, _ := job(t, "deaf", 2)
	c.Grace, c.MaxRestarts = 20*time.Millisecond, 3
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		waitFor("ready-0")
		waitFor("ready-1")
		cancel()
	}()
	r, err := Run(ctx, c)
	if err == nil || len(r.Attempts) != 1 || !strings.Contains(r.Reason, "cancelled") {
		t.Fatalf("error %v, reason %q", err, r.Reason)
	}
}

func TestASIGKILLedRankIsExplained(t *testing.T) {
	c, _ := job(t, "killed", 2)
	r, err := Run(t.Context(), c)
	if err == nil || r.First.Rank != 1 || r.First.Signal != "SIGKILL" || r.First.Code != -1 || r.First.ByUs {
		t.Fatalf("first %+v, error %v", r.First, err)
	}
	if !strings.Contains(err.Error(), "SIGKILL") || !strings.Contains(err.Error(), "OOM killer") || r.First.MaxRSS < 1<<20 {
		t.Errorf("error %v, peak memory %d bytes", err, r.First.MaxRSS)
	}
}

func TestGrandchildrenAreEndedEvenInTheirOwnSession(t *testing.T) {
	c, _ := job(t, "parent", 2)
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for local := range 2 {
		files := []string{fmt.Sprintf("pid-group%d-0", local), fmt.Sprintf("pid-session-%d", local), fmt.Sprintf("pid-daemon-%d", local)}
		for _, file := range files {
			if pid, _ := strconv.Atoi(waitFor(file)); exists(pid) {
				t.Errorf("%s: pid %d is alive or was not reaped", file, pid)
			}
		}
		if n := r.Attempts[0].Ranks[local].Orphans; n != 2 {
			t.Errorf("local rank %d: %d orphans, want those of two sessions", local, n)
		}
	}
}

func TestALauncherThatIsAloneEndsUnmarkedOrphansToo(t *testing.T) {
	c, _ := job(t, "secret parent", 1)
	c.Alone = true
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if pid, _ := strconv.Atoi(waitFor("pid-secret-0")); alive(pid) {
		t.Errorf("pid %d is alive", pid)
	}
}

func TestOtherChildrenOfTheProcessAreLeftAlone(t *testing.T) {
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	for _, alone := range []bool{false, true} {
		c, _ := job(t, "parent", 1)
		c.Alone = alone
		if _, err := Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if !alive(other.Process.Pid) {
			t.Fatalf("alone %v: a child that is no rank's was ended", alone)
		}
	}
}

func TestASignalBeforeARestartStopsAJobThatHasACheckpointOrWaitsForAPlace(t *testing.T) {
	for _, c := range []struct{ step, late, want int }{{40, 0, ExitStopped}, {-1, 0, ExitFailed}, {-1, 3, ExitStopped}} {
		sigs := make(chan os.Signal, 1)
		sigs <- syscall.SIGUSR1
		l := &launcher{ctx: t.Context(), sigs: sigs, report: Report{Attempts: []Attempt{{Step: c.step}, {Step: -1, Late: c.late, First: &Failure{Reason: "boom"}}}}}
		l.why = l.rest(time.Hour)
		if r, err := l.conclude(); r.ExitCode != c.want || errors.Is(err, ErrStopped) != (c.want == ExitStopped) || !strings.Contains(r.Reason, "SIGUSR1") || !strings.Contains(r.Reason, "boom") {
			t.Errorf("%+v: code %d, %q, %v", c, r.ExitCode, r.Reason, err)
		}
	}
}

// launcherOf starts a process that only launches two ranks.
func launcherOf(t *testing.T, ranks string) (cmd *exec.Cmd, dir string) {
	dir = t.TempDir()
	t.Setenv("LAUNCH_TEST_DIR", dir)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "LAUNCH_TEST_ROLE=launcher", "LAUNCH_TEST_RANKS="+ranks, "LAUNCH_TEST_WHO=rank")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, dir
}

func TestASignalToTheLauncherProcessReachesTheRanks(t *testing.T) {
	cmd, dir := launcherOf(t, "stops")
	waitFor("ready-0")
	waitFor("ready-1")
	cmd.Process.Signal(syscall.SIGPIPE) // must not end it
	cmd.Process.Signal(syscall.SIGTERM)
	waitFor("signal-1-0")
	waitFor("signal-1-1")
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != ExitStopped {
		t.Errorf("exit code %d, %v", code, cmd.ProcessState)
	}
}

func TestRanksEndWhenTheLauncherIsKilled(t *testing.T) {
	cmd, _ := launcherOf(t, "sleeper")
	var pids [2]int
	for i := range pids {
		pids[i], _ = strconv.Atoi(waitFor(fmt.Sprintf("pid-rank-%d", i)))
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range pids {
		for i := 0; alive(pid); i++ {
			if i == 10000 {
				t.Fatalf("rank with pid %d outlives its launcher", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func exists(pid int) bool { return unix.Kill(pid, 0) == nil }

// alive tells a running process from one that is gone or only waits to be reaped.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

func TestLinesOfRanksNeverMix(t *testing.T) {
	c, _ := job(t, "talks", 3)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr, c.PrefixLogs, c.OnlyRank0Stdout = &out, &errs, true, true
	c.LogDir = t.TempDir()
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	next := [3]int{}
	for line := range strings.Lines(errs.String()) {
		r := int(line[1] - '0')
		want := fmt.Sprintf("[%d] rank %d line %d %s\n", r, r, next[r], strings.Repeat("x", next[r]%97))
		if next[r] == 500 {
			want = fmt.Sprintf("[%d] no newline\n", r)
		}
		if line != want {
			t.Fatalf("got %q, want %q", line, want)
		}
		next[r]++
	}
	if next != [3]int{501, 501, 501} {
		t.Errorf("lines per rank %v", next)
	}
	if out.String() != `{"rank":0}` {
		t.Errorf("stdout %q", out.String())
	}
	b, err := os.ReadFile(filepath.Join(c.LogDir, "attempt-1", "rank-2.out"))
	if err != nil || string(b) != `{"rank":2}` {
		t.Errorf("rank-2.out %q, error %v", b, err)
	}
	b, _ = os.ReadFile(filepath.Join(c.LogDir, "attempt-1", "rank-1.err"))
	if !bytes.HasPrefix(b, []byte("rank 1 line 0 \nrank 1 line 1 x\n")) || !bytes.HasSuffix(b, []byte("\nno newline")) {
		t.Errorf("rank-1.err begins %q", b[:min(len(b), 100)])
	}
}

func TestEveryThreadOfARankHasItsShareOfTheCores(t *testing.T) {
	c, _ := job(t, "affinity", 2)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	allowed := allowedCPUs()
	seen := map[int]bool{}
	for i := range 2 {
		var mine []int
		for mask := range strings.Lines(waitFor(fmt.Sprintf("masks-%d", i))) {
			cpus := cpuList(strings.TrimSpace(mask))
			if mine != nil && !slices.Equal(mine, cpus) {
				t.Errorf("rank %d: threads on %v and %v", i, mine, cpus)
			}
			mine = cpus
		}
		if len(allowed) < 2 {
			continue // one CPU cannot be split
		}
		if len(mine) != len(allowed)/2 && len(mine) != len(allowed)-len(allowed)/2 {
			t.Errorf("rank %d has CPUs %v of %v", i, mine, allowed)
		}
		for _, id := range mine {
			if seen[id] || !slices.Contains(allowed, id) {
				t.Errorf("rank %d: CPU %d is another's or not allowed", i, id)
			}
			seen[id] = true
		}
	}
	if !slices.Equal(allowedCPUs(), allowed) {
		t.Error("the launcher's own affinity has changed")
	}
}

func TestTheForkingThreadKeepsItsOwnAffinity(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, within, after unix.CPUSet
	unix.SchedGetaffinity(0, &before)
	first := allowedCPUs()[0]
	err := withAffinity([]int{first}, func() error { return unix.SchedGetaffinity(0, &within) })
	unix.SchedGetaffinity(0, &after)
	if err != nil || within.Count() != 1 || !within.IsSet(first) || after != before {
		t.Errorf("before %v, within %v, after %v, error %v", before, within, after, err)
	}
}

func TestTheKeyIsInNoArgumentLogOrReport(t *testing.T) {
	c, _ := job(t, "fails", 2)
	var logs bytes.Buffer
	c.LogDir = t.TempDir()
	c.Key = bytes.Repeat([]byte("k3y!"), 8)
	enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	c.Logger = zap.New(zapcore.NewCore(enc, zapcore.AddSync(&logs), zap.DebugLevel))
	r, err := Run(t.Context(), c)
	report, _ := os.ReadFile(filepath.Join(c.LogDir, "exit-report.json"))
	all := fmt.Sprintf("%s %s %+v %v", logs.String(), report, r, err)
	if logs.Len() == 0 || len(report) == 0 {
		t.Fatal("nothing to look at")
	}
	for _, k := range []string{string(c.Key), base64.StdEncoding.EncodeToString(c.Key)} {
		if strings.Contains(all, k) {
			t.Errorf("the key is in %s", all)
		}
	}
}

func TestARankReadsWhatItsLauncherWrote(t *testing.T) {
	c, _ := job(t, "contract", 2)
	c.Args = []string{"train", "--lr", "1"}
	c.MinNodes, c.MaxNodes, c.NodeRank, c.Job = 2, 4, 1, "job-7"
	c.Key = randomBytes(32)
	c.Join, c.Bind = []string{"127.0.0.9:1234"}, "127.0.0.1"
	c.GossipPort = -1
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var got [2]struct {
		Contract   Contract
		Cmdline    string
		Gomaxprocs string
	}
	for i := range got {
		if err := json.Unmarshal([]byte(waitFor(fmt.Sprintf("contract-%d", i))), &got[i]); err != nil {
			t.Fatal(err)
		}
		k := got[i].Contract
		if k.Job != "job-7" || !bytes.Equal(k.Key, c.Key) || k.Generation != 1 || k.Attempt != 1 || k.NodeRank != 1 ||
			k.Rank != 2+i || k.LocalRank != i || k.LocalSize != 2 || k.WorldMin != 4 || k.WorldMax != 8 || k.Bind != "127.0.0.1" {
			t.Errorf("local rank %d: %v", i, k)
		}
		if strings.Contains(got[i].Cmdline, base64.StdEncoding.EncodeToString(c.Key)) {
			t.Error("the key is in argv")
		}
		if n, err := strconv.Atoi(got[i].Gomaxprocs); err != nil || n < 1 {
			t.Errorf("GOMAXPROCS %q", got[i].Gomaxprocs)
		}
	}
	port := got[0].Contract.GossipPort
	want := []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "127.0.0.9:1234"}
	if port == 0 || got[1].Contract.GossipPort != 0 || !slices.Equal(got[1].Contract.Seeds, want) {
		t.Errorf("port %d, second rank %v", port, got[1].Contract)
	}
}

func TestAGossipPortInUseIsSaid(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, _ := job(t, "done", 2)
	c.GossipPort = ln.Addr().(*net.TCPAddr).Port
	r, err := Run(t.Context(), c)
	if err == nil || r.ExitCode != ExitFailed || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "--gossip-port") {
		t.Errorf("exit code %d, error %v", r.ExitCode, err)
	}
}

func TestARankThatCannotStartIsAFailure(t *testing.T) {
	c, _ := job(t, "done", 2)
	c.Dir = filepath.Join(t.TempDir(), "missing")
	r, err := Run(t.Context(), c)
	if err == nil || r.ExitCode != ExitUsage || !strings.Contains(err.Error(), "missing") {
		t.Errorf("exit code %d, error %v", r.ExitCode, err)
	}
	text := filepath.Join(t.TempDir(), "text")
	os.WriteFile(text, []byte("no program"), 0o755)
	c.Dir, c.Program = "", text
	if r, err = Run(t.Context(), c); err == nil || r.ExitCode != ExitFailed || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("exit code %d, error %v", r.ExitCode, err)
	}
	c.Program = "no-such-program"
	if r, err = Run(t.Context(), c); err == nil || r.ExitCode != ExitUsage {
		t.Errorf("exit code %d, error %v", r.ExitCode, err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRanksGoOnWhenNobodyReadsTheirOutput(t *testing.T) {
	c, _ := job(t, "talks", 2)
	c.Stdout, c.Stderr = brokenPipe{}, brokenPipe{}
	if _, err := Run(t.Context(), c); err != nil {
		t.Error(err)
	}
}
