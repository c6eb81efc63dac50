//go:build linux

package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
)

// toldOf is what rank i of role "gpu" left.
func toldOf(t *testing.T, i int) (gpu string, env map[string]string) {
	t.Helper()
	var left struct {
		GPU string
		Env []string
	}
	if err := json.Unmarshal([]byte(waitFor(fmt.Sprintf("gpu-%d", i))), &left); err != nil {
		t.Fatal(err)
	}
	env = map[string]string{}
	for _, v := range left.Env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return left.GPU, env
}

func TestEachRankIsGivenOneGPUByItsUUID(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := h200s(4)
	s.change(1, func(g *GPU) { g.RemapPending = true })
	c, _ := onGPUs(t, s, "gpu", 3)
	c.LogDir = t.TempDir()
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]bool{}
	for i, want := range []string{s.uuid(0), s.uuid(2), s.uuid(3)} {
		gpu, env := toldOf(t, i)
		if gpu != want || env["CUDA_VISIBLE_DEVICES"] != want || r.Attempts[0].Ranks[i].GPU != want {
			t.Errorf("rank %d: GPU %s, CUDA_VISIBLE_DEVICES %s, report %+v; want %s", i, gpu, env["CUDA_VISIBLE_DEVICES"], r.Attempts[0].Ranks[i], want)
		}
		if env["NCCL_DEBUG"] != "WARN" || env["NCCL_DEBUG_FILE"] != filepath.Join(c.LogDir, "attempt-1", "nccl.%h.%p") ||
			env["NCCL_SOCKET_IFNAME"] != "=lo" || !strings.HasPrefix(env["NCCL_RAS_ADDR"], "localhost:") {
			t.Errorf("rank %d: NCCL's environment %v", i, env)
		}
		if _, shared := env["NCCL_HOSTID"]; shared || env["NCCL_MULTI_RANK_GPU_ENABLE"] != "" {
			t.Errorf("rank %d has a GPU for itself: %v", i, env)
		}
		ports[env["NCCL_RAS_ADDR"]] = true
	}
	if len(ports) != 1 || ports["localhost:28028"] {
		t.Errorf("NCCL's status service at %v: one of this launcher's own", ports)
	}
}

func TestRanksAreGivenTheGPUsThatTheUserNames(t *testing.T) {
	s := h200s(4)
	c, _ := onGPUs(t, s, "gpu", 2)
	c.Env = append(c.Env, "CUDA_VISIBLE_DEVICES="+s.uuid(3)+",1")
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{s.uuid(3), s.uuid(1)} {
		if gpu, env := toldOf(t, i); gpu != want || env["CUDA_VISIBLE_DEVICES"] != want {
			t.Errorf("rank %d: GPU %s, %v; want %s", i, gpu, env, want)
		}
	}
	c.NProc, c.Env = 1, append(c.Env, "CUDA_VISIBLE_DEVICES=7")
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "there is no GPU 7") {
		t.Errorf("error %v", err)
	}
}

func TestWithoutGPUsARankIsToldOfNone(t *testing.T) {
	c, _ := job(t, "gpu", 1)
	c.Env = append(c.Env, "CUDA_VISIBLE_DEVICES=3", "NCCL_DEBUG=INFO")
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	gpu, env := toldOf(t, 0)
	if want := map[string]string{"CUDA_VISIBLE_DEVICES": "3", "NCCL_DEBUG": "INFO"}; gpu != "" || !reflect.DeepEqual(env, want) {
		t.Errorf("GPU %q, environment %v", gpu, env)
	}
}

func TestWhatTheUserSetsForNCCLStays(t *testing.T) {
	mine := []string{"NCCL_DEBUG=INFO", "NCCL_DEBUG_FILE=/tmp/x", "NCCL_SOCKET_IFNAME=ib0", "NCCL_RAS_ADDR=localhost:1", "NCCL_MULTI_RANK_GPU_ENABLE=0", "NCCL_HOSTID=h"}
	c, _ := onGPUs(t, h200s(1), "gpu", 2)
	c.Env = append(c.Env, mine...)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	_, env := toldOf(t, 1)
	for _, v := range mine {
		if name, value, _ := strings.Cut(v, "="); env[name] != value {
			t.Errorf("%s=%s, want %s", name, env[name], value)
		}
	}
}

func TestMoreRanksThanGPUsShareThemAsNCCLWantsIt(t *testing.T) {
	s := h200s(2)
	c, _ := onGPUs(t, s, "gpu", 3)
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]bool{}
	for i, want := range []string{s.uuid(0), s.uuid(1), s.uuid(0)} {
		gpu, env := toldOf(t, i)
		if gpu != want || env["NCCL_DEBUG_FILE"] != "/dev/stderr" {
			t.Errorf("rank %d: GPU %s, want %s; %v", i, gpu, want, env)
		}
		if i == 1 { // alone on its GPU
			if env["NCCL_HOSTID"] != "" {
				t.Errorf("rank 1: %v", env)
			}
			continue
		}
		if env["NCCL_MULTI_RANK_GPU_ENABLE"] != "1" || env["NCCL_HOSTID"] == "" || hosts[env["NCCL_HOSTID"]] {
			t.Errorf("rank %d shares its GPU: %v", i, env)
		}
		hosts[env["NCCL_HOSTID"]] = true
	}
}

func TestRanksDoNotShareGPUsBecauseOneCannotBeUsed(t *testing.T) {
	s := h200s(2)
	s.hold(1, Holder{4242, "python3", 9 << 30})
	c, _ := onGPUs(t, s, "gpu", 2)
	c.LogDir = t.TempDir()
	r, err := Run(t.Context(), c)
	if err == nil || r.ExitCode != ExitFailed || len(r.Attempts) != 0 {
		t.Fatalf("report %+v, error %v", r, err)
	}
	if b, err := os.ReadFile(filepath.Join(c.LogDir, "exit-report.json")); err != nil || !strings.Contains(string(b), "of 2 GPUs 1 can be used") {
		t.Errorf("exit report %s, error %v", b, err)
	}
	for _, want := range []string{"of 2 GPUs 1 can be used, and the ranks need 2", s.uuid(1), "pid 4242 (python3, 9216 MiB)", "--gpus none"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, want %q in it", err, want)
		}
	}
	s = h200s(1)
	s.change(0, func(g *GPU) { g.Mode = ModeExclusiveProcess })
	c, _ = onGPUs(t, s, "gpu", 2)
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "exclusive process, and 2 ranks are to share it") {
		t.Errorf("sharing an exclusive GPU: error %v", err)
	}
}

func TestTheLaunchersOfOneNodeTakeDifferentGPUs(t *testing.T) {
	s := h200s(4)
	var got []string
	for base := range 4 {
		l := launcher{Config: Config{GPUs: s, NProc: 1, LocalBase: base, LocalSize: 4, World: 4, Logger: zap.NewNop()}, broken: map[string]*Event{}}
		seats, err := l.seats(nil)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, seats[0].UUID)
	}
	if !slices.Equal(got, uuids(s.gpus)) {
		t.Errorf("seats %v", got)
	}
	// A scheduler that shows each task its own GPU only.
	l := launcher{Config: Config{GPUs: s, NProc: 1, LocalBase: 2, LocalSize: 4, World: 4, Env: []string{"CUDA_VISIBLE_DEVICES=" + s.uuid(3)}}, broken: map[string]*Event{}}
	if seats, err := l.seats(nil); err != nil || seats[0].UUID != s.uuid(3) || seats[0].of != 1 {
		t.Errorf("seats %+v, error %v", seats, err)
	}
}

func TestRanksAreBoundToTheCPUsBesideTheirGPU(t *testing.T) {
	sys, ids := machine(2, 4, 2) // CPUs 0-3, 8-11 on node 0; 4-7, 12-15 on node 1
	cpus := topology(sys, ids)
	for _, c := range []struct {
		nodes []int
		want  [][]int
	}{
		{[]int{1}, [][]int{{4, 12, 5, 13, 6, 14, 7, 15}}},
		{[]int{1, 0}, [][]int{{4, 12, 5, 13, 6, 14, 7, 15}, {0, 8, 1, 9, 2, 10, 3, 11}}},
		{[]int{1, 1, 0}, [][]int{{4, 12, 5, 13}, {6, 14, 7, 15}, {0, 8, 1, 9, 2, 10, 3, 11}}},
		{[]int{0, 2}, nil}, // a node without CPUs that this process may use
	} {
		if got := beside(cpus, c.nodes); !reflect.DeepEqual(got, c.want) {
			t.Errorf("GPUs on nodes %v: CPUs %v, want %v", c.nodes, got, c.want)
		}
	}
	few := cpus[:2]
	if got := beside(few, []int{0, 0, 0}); len(got) != 3 || len(got[0]) != 2 || !slices.Equal(got[0], got[2]) {
		t.Errorf("three ranks beside two CPUs: %v", got)
	}
	if nodes(nil) != nil || nodes([]seat{{GPU: GPU{NUMA: 1}}, {GPU: GPU{NUMA: -1}}}) != nil {
		t.Error("a GPU whose node is unknown gives nodes")
	}
}

// What the forking thread sets holds in the child before its program begins.
func TestARankInheritsItsMemoryPolicy(t *testing.T) {
	_, dir := job(t, "policy", 1)
	f := newForker()
	defer f.close()
	for _, c := range []struct {
		node int
		want string
	}{{-1, "0 <nil>"}, {0, "1 <nil>"}} {
		k := Contract{Job: "j", Key: randomBytes(32), Bind: "127.0.0.1", Generation: 1, Attempt: 1, LocalRank: c.node + 1, LocalSize: 2, WorldMin: 1, WorldMax: 2}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(append(os.Environ(), "LAUNCH_TEST_ROLE=policy"), k.Environ()...)
		err := f.start(cmd, nil, c.node)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			t.Skip("this container may not set a memory policy: NOT RUN")
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("policy-%d", c.node+1))); string(b) != c.want {
			t.Errorf("node %d: policy %q, want %q", c.node, b, c.want)
		}
		if mode := after(t, f); mode != unix.MPOL_DEFAULT {
			t.Errorf("node %d: the forking thread keeps policy %d", c.node, mode)
		}
	}
}

func after(t *testing.T, f *forker) (mode int32) {
	t.Helper()
	if err := f.run(func() (err error) { mode, err = memoryPolicy(); return err }); err != nil {
		t.Fatal(err)
	}
	return mode
}

func TestADeviceThatALibraryOpenedIsNotInherited(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) int { // as C does: without close-on-exec
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_CREAT|unix.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	ours, other := open("nvidia0"), open("else")
	keepToOurselves(filepath.Join(dir, "nvidia"))
	for fd, want := range map[int]int{ours: unix.FD_CLOEXEC, other: 0} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != want {
			t.Errorf("flags %d, error %v, want %d", flags, err, want)
		}
	}
}

func TestARestartWaitsUntilMemoryIsFreed(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := h200s(2)
	c, dir := onGPUs(t, s, "crashes", 2)
	core, logs := observer.New(zap.WarnLevel)
	c.MaxRestarts, c.Logger = 1, zap.New(core)
	done := launched(c)
	waitFor("ready-0")
	waitFor("ready-1")
	s.hold(1, Holder{77, "splora", 80 << 30}) // what the driver has not freed yet
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	for logs.FilterMessageSnippet("waiting for memory to be freed: GPU "+s.uuid(1)+": 81924 MiB").Len() == 0 {
		select {
		case r := <-done:
			t.Fatalf("it did not wait: %+v", r)
		case <-time.After(time.Millisecond):
		}
	}
	time.Sleep(3 * c.GPUPoll)
	freed := time.Now()
	s.free(1)
	r := <-done
	if r.ExitCode != ExitDone || len(r.Attempts) != 2 || !r.Attempts[1].Start.After(freed) {
		t.Fatalf("freed at %v, report %+v", freed, r)
	}
	if n := logs.FilterMessageSnippet("waiting for memory").Len(); n != 1 {
		t.Errorf("it says %d times that it waits", n)
	}
}

func TestMemoryThatIsNotFreedEndsTheJobAndNamesItsHolder(t *testing.T) {
	s := h200s(1)
	c, dir := onGPUs(t, s, "crashes", 1)
	c.MaxRestarts, c.GPUWait = 5, 50*time.Millisecond
	done := launched(c)
	waitFor("ready-0")
	s.hold(0, Holder{4242, "pt_data_worker", 80 << 30})
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	r := <-done
	if r.ExitCode != ExitFailed || len(r.Attempts) != 1 {
		t.Fatalf("report %+v", r)
	}
	for _, want := range []string{"illegal memory access", "not restarted: after 50ms GPU " + s.uuid(0), "pid 4242 (pt_data_worker, 81920 MiB)"} {
		if !strings.Contains(r.Reason, want) {
			t.Errorf("reason %q, want %q in it", r.Reason, want)
		}
	}
}

func TestASignalEndsTheWaitingForMemory(t *testing.T) {
	s := h200s(1)
	c, dir := onGPUs(t, s, "crashes", 1)
	sigs := make(chan os.Signal)
	core, logs := observer.New(zap.WarnLevel)
	c.MaxRestarts, c.GPUWait, c.Signals, c.Logger = 5, time.Hour, sigs, zap.New(core)
	done := launched(c)
	waitFor("ready-0")
	s.hold(0, Holder{4242, "x", 80 << 30})
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	for logs.FilterMessageSnippet("waiting for memory").Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	sigs <- syscall.SIGTERM
	if r := <-done; r.ExitCode != ExitFailed || len(r.Attempts) != 1 || !strings.Contains(r.Reason, "not restarted after SIGTERM") {
		t.Errorf("report %+v", r)
	}
}

func TestAFatalXidEndsTheAttemptWithItsReasonAndTheRankMovesToASpareGPU(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := h200s(3)
	c, _ := onGPUs(t, s, "trains", 2)
	c.MaxRestarts, c.LogDir = 1, t.TempDir()
	done := launched(c)
	waitFor("ready-0")
	waitFor("ready-1")
	s.fault(2, Event{Kind: EventXid, Xid: 79}) // nobody's GPU: not watched
	s.fault(1, Event{Kind: EventXid, Xid: 79})
	r := <-done
	if r.ExitCode != ExitDone || len(r.Attempts) != 2 {
		t.Fatalf("report %+v", r)
	}
	f := r.Attempts[0].First
	if f.Rank != 1 || f.GPU != s.uuid(1) || f.GPUFault != "Xid 79: the GPU has fallen off the bus" ||
		f.Reason != "its GPU "+s.uuid(1)+" (0000:11:00.0) reported Xid 79: the GPU has fallen off the bus" {
		t.Errorf("first failure %+v", f)
	}
	if e := r.Attempts[0].Events; len(e) != 1 || e[0].Xid != 79 || e[0].UUID != s.uuid(1) {
		t.Errorf("events %+v", e)
	}
	if a, b := waitFor("gpu-0"), waitFor("gpu-1"); a != s.uuid(0) || b != s.uuid(2) {
		t.Errorf("second attempt on %s and %s, want %s and %s", a, b, s.uuid(0), s.uuid(2))
	}
	if want := [][]string{{s.uuid(1), s.uuid(0)}, {s.uuid(2), s.uuid(0)}}; !reflect.DeepEqual(sorted(s.watched), sorted(want)) {
		t.Errorf("watched %v, want %v", s.watched, want)
	}
	b, _ := os.ReadFile(filepath.Join(c.LogDir, "exit-report.json"))
	for _, want := range []string{`"gpu_fault": "Xid 79: the GPU has fallen off the bus"`, `"kind": "xid"`, `"gpu": "` + s.uuid(2) + `"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("exit report %s: no %s", b, want)
		}
	}
}

func sorted(lists [][]string) [][]string {
	for _, l := range lists {
		slices.Sort(l)
	}
	return lists
}

func TestWithoutASpareGPUAFatalXidIsNotTriedAgain(t *testing.T) {
	for _, e := range []Event{{Kind: EventXid, Xid: 48}, {Kind: EventUnavailable}, {Kind: EventDoubleBit}} {
		s := h200s(1)
		c, _ := onGPUs(t, s, "trains", 1)
		c.MaxRestarts = 5
		done := launched(c)
		waitFor("ready-0")
		s.fault(0, e)
		r := <-done
		if r.ExitCode != ExitFailed || len(r.Attempts) != 1 {
			t.Fatalf("%v: report %+v", e, r)
		}
		e.UUID = s.uuid(0)
		for _, want := range []string{"reported " + e.String(), "not restarted: of 1 GPUs 0 can be used, and the ranks need 1", "--gpu-reset"} {
			if !strings.Contains(r.Reason, want) {
				t.Errorf("reason %q, want %q in it", r.Reason, want)
			}
		}
	}
}

func TestAPendingRemapAfterAnXidKeepsTheGPUFromBeingUsedAgain(t *testing.T) {
	s := h200s(1)
	c, _ := onGPUs(t, s, "trains", 1)
	c.MaxRestarts = 5
	done := launched(c)
	waitFor("ready-0")
	s.change(0, func(g *GPU) { g.RemapPending = true })
	s.fault(0, Event{Kind: EventXid, Xid: 94})
	if r := <-done; len(r.Attempts) != 1 || !strings.Contains(r.Reason, "waits to be remapped") || !strings.Contains(r.Reason, "Xid 94") {
		t.Errorf("report %+v", r)
	}
}

func TestAnXidOfTheProgramIsOnlyAHint(t *testing.T) {
	s := h200s(2)
	c, dir := onGPUs(t, s, "crashes", 2)
	done := launched(c)
	waitFor("ready-0")
	waitFor("ready-1")
	for i := range 2 {
		s.fault(i, Event{Kind: EventXid, Xid: 31})
		s.fault(i, Event{Kind: EventRecovery})
	}
	os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	r := <-done
	f := r.First
	if f == nil || f.GPUFault != "" || f.Signal != "" || f.Code != 1 || len(r.Attempts[0].Events) != 4 {
		t.Fatalf("report %+v, first %+v", r, f)
	}
	want := "last line on stderr: cuda: an illegal memory access was encountered; the driver reported Xid 31: a kernel touched memory that is " +
		"not its own (usually the program's fault, not the GPU's), recovery action changed: look at nvidia-smi -q"
	if f.Reason != want {
		t.Errorf("reason %q, want %q", f.Reason, want)
	}
}

// The rank dies of the fault before the driver reports it.
func TestAFaultThatIsReportedLateIsStillTheReason(t *testing.T) {
	s := h200s(1)
	c, dir := onGPUs(t, s, "crashes", 1)
	done := launched(c)
	waitFor("ready-0")
	go func() {
		os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
		time.Sleep(arrival / 3)
		s.fault(0, Event{Kind: EventXid, Xid: 119})
	}()
	r := <-done
	if want := "Xid 119: its firmware (GSP) does not answer; the rank: last line on stderr: cuda: an illegal memory access"; !strings.Contains(r.Reason, want) {
		t.Errorf("reason %q, want %q in it", r.Reason, want)
	}
}

func TestTheXidListIsSplitIntoFatalOnesAndApplicationFaults(t *testing.T) {
	fatal := []int{48, 63, 64, 74, 79, 94, 95, 119, 120}
	app := []int{13, 31, 43, 45, 68}
	for n := range 200 {
		e := Event{Kind: EventXid, Xid: n}
		if e.Fatal() != slices.Contains(fatal, n) || e.verdict().app != slices.Contains(app, n) || e.verdict().what == "" {
			t.Errorf("%v: %+v", e, e.verdict())
		}
		if v := e.verdict(); v.reset && !v.fatal {
			t.Errorf("%v needs a reset, and is not fatal", e)
		}
	}
}

func TestASlowedDownGPUIsToldOnceAndItsRecoveryToo(t *testing.T) {
	s := h200s(2)
	core, logs := observer.New(zap.InfoLevel)
	w := &gpuWatch{gpus: s, seats: []seat{{GPU: s.gpus[0], of: 1}, {GPU: s.gpus[1], of: 1}}, log: zap.New(core), slow: map[string]Throttle{}}
	set := func(t Throttle) {
		h := s.health[s.uuid(1)]
		h.Throttle, h.ClockMHz, h.TempC, h.Util, h.PowerW = t, 990, 91, 97, 412
		s.health[s.uuid(1)] = h
	}
	for _, throttle := range []Throttle{0, ThrottlePowerCap, ThrottleHWThermal | ThrottlePowerCap, ThrottleHWThermal, ThrottleIdle} {
		set(throttle)
		w.sample()
	}
	warned := logs.FilterLevelExact(zap.WarnLevel).All()
	if len(warned) != 2 || warned[0].Message != "a GPU is slowed down, and with it all ranks: thermal (hardware)" || warned[1].Message != "a GPU is at full speed again" ||
		warned[0].ContextMap()["local_rank"] != int64(1) || warned[0].ContextMap()["temp_c"] != int64(91) {
		t.Errorf("warnings %+v", warned)
	}
	infos := logs.FilterLevelExact(zap.InfoLevel).All()
	if len(infos) != 5 || infos[2].Message != "GPUs: 0: 0.0/140.0 GiB 90 W 0 % 1980 MHz 31 °C · 1: 0.0/140.0 GiB 412 W 97 % 990 MHz 91 °C power cap, thermal (hardware)" {
		t.Errorf("lines %+v", infos)
	}
	s.deaf[s.uuid(0)] = true
	w.sample()
	if n := logs.FilterMessage("no health of a GPU").Len(); n != 1 {
		t.Errorf("%d warnings of a GPU that does not answer", n)
	}
}

func TestWithoutAnEventSetTheRanksStillRun(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := h200s(1)
	s.noWatch = errors.New("NVML: events: ERROR_NOT_SUPPORTED")
	c, _ := onGPUs(t, s, "gpu", 1)
	core, logs := observer.New(zap.WarnLevel)
	c.Logger = zap.New(core)
	if r, err := Run(t.Context(), c); err != nil || logs.FilterMessage("faults of GPUs will not be seen").Len() != 1 {
		t.Errorf("report %+v, error %v, log %+v", r, err, logs.All())
	}
}

func TestASamplerKeepsTheLatestHealth(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := h200s(1)
	m := NewSampler(s, s.uuid(0), 0)
	if h, ok := m.Last(); !ok || h.PowerW != 90 {
		t.Errorf("first sample %+v, %v", h, ok)
	}
	s.hold(0, Holder{1, "x", 5 << 30})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if h, _ := m.Last(); h.MemUsed == 5<<30+4<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no second sample")
		}
	}
	s.mu.Lock()
	s.deaf[s.uuid(0)] = true
	s.mu.Unlock()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, ok := m.Last(); !ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a driver that does not answer still has a sample")
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTheInterfaceOfAnAddressIsNamedExactly(t *testing.T) {
	for bind, want := range map[string]string{"127.0.0.1": "=lo", "0.0.0.0": "", "::": "", "203.0.113.9": "", "x": ""} {
		if got := interfaceOf(bind); got != want {
			t.Errorf("%s: %q, want %q", bind, got, want)
		}
	}
}
