package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adopt makes this process the parent of its descendants' orphans. It stays so: others may rely on it.
func adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	return nil
}

func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit returns when the child has ended, and leaves it to be reaped: until then neither its pid nor its
// process group can become another's.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reapGroup waits for the adopted members of a killed process group; one in uninterruptible sleep is left alone
// after a while.
func reapGroup(pid int) {
	for range 200 {
		got, err := unix.Wait4(-pid, nil, unix.WNOHANG, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // ECHILD: none left
		}
		if got == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// killOrphans ends the children that orphan says are some, and their children in turn, which become this process's. It gives their number. All
// of them are children that were not reaped, so their pids cannot have become another's.
func killOrphans(orphan func(pid int) bool) int {
	count := 0
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		busy := false
		for _, pid := range children() {
			if !orphan(pid) {
				continue
			}
			if unix.Kill(pid, unix.SIGKILL) == nil {
				busy = true
			}
			count += reap(pid)
		}
		if !busy {
			break
		}
	}
	return count
}

// reap waits for a killed child; one in uninterruptible sleep is left alone after a while.
func reap(pid int) int {
	for range 200 {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got == pid {
			return 1
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// marked tells whether the environment of a process holds all of marks.
func marked(pid int, marks []string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for _, m := range marks {
		if !bytes.Contains(append([]byte{0}, b...), []byte("\x00"+m+"\x00")) {
			return false
		}
	}
	return true
}

// children lists this process's children, adopted ones too.
func children() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/self/task/*/children")
	if len(files) == 0 {
		return childrenByStat()
	}
	for _, f := range files {
		b, _ := os.ReadFile(f) // a thread may just have ended
		for _, s := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(s); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// childrenByStat is for kernels without CONFIG_PROC_CHILDREN: the field after the state is the parent.
func childrenByStat() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	self := strconv.Itoa(os.Getpid())
	for _, f := range files {
		b, _ := os.ReadFile(f)
		_, rest, ok := strings.Cut(string(b[max(0, bytes.LastIndexByte(b, ')')):]), ") ")
		if fields := strings.Fields(rest); ok && len(fields) > 1 && fields[1] == self {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// keepToOurselves marks this process's open files whose path begins with prefix to be closed in the processes that it starts: a
// driver's library opens its devices without that, and a device that a forgotten child holds open stays busy.
func keepToOurselves(prefix string) {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if fd, bad := strconv.Atoi(e.Name()); err == nil && bad == nil && strings.HasPrefix(path, prefix) {
			unix.CloseOnExec(fd)
		}
	}
}

// withAffinity calls start with the calling thread bound to cpus.
func withAffinity(cpus []int, start func() error) error {
	if len(cpus) == 0 {
		return start()
	}
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity %v: %w", cpus, err)
	}
	err := start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// withMemory calls start with the calling thread's memory taken from the NUMA node while that has any. It is a
// preference: a bound process is killed for want of memory when its node is full, with other nodes empty.
func withMemory(node int, start func() error) error {
	if node < 0 {
		return start()
	}
	mode, err := memoryPolicy()
	if err != nil || mode != unix.MPOL_DEFAULT {
		return errors.Join(err, errors.New("a memory policy is set already, by numactl or the scheduler"))
	}
	var mask unix.CPUSet
	mask.Set(node)
	if err := unix.SetMemPolicy(unix.MPOL_PREFERRED, &mask); err != nil {
		return fmt.Errorf("set_mempolicy for NUMA node %d: %w", node, err)
	}
	err = start()
	return errors.Join(err, unix.SetMemPolicy(unix.MPOL_DEFAULT, nil))
}

// memoryPolicy is the calling thread's.
func memoryPolicy() (mode int32, err error) {
	if _, _, e := unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), 0, 0, 0, 0, 0); e != 0 {
		return 0, fmt.Errorf("get_mempolicy: %w", e)
	}
	return mode, nil
}

// allowedCPUs lists the CPUs that this process may use, ascending.
func allowedCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(os.Getpid(), &set) != nil {
		return nil
	}
	var cpus []int
	for i := range len(set) * strconv.IntSize {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// oomCounts gives the number of OOM kills so far in this process's cgroup (−1 = unknown) and on the host.
func oomCounts() (cgroup, host int64) {
	cgroup = -1
	for _, f := range memoryEventFiles() {
		if b, err := os.ReadFile(f); err == nil {
			cgroup = max(cgroup, counter(b, "oom_kill"))
		}
	}
	b, _ := os.ReadFile("/proc/vmstat")
	return cgroup, counter(b, "oom_kill")
}

// memoryEventFiles: of cgroup v2 and v1, as /proc/self/cgroup names them, and as a container sees its own.
func memoryEventFiles() []string {
	files := []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"}
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) < 3:
		case parts[1] == "":
			files = append(files, filepath.Join("/sys/fs/cgroup", parts[2], "memory.events"))
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			files = append(files, filepath.Join("/sys/fs/cgroup/memory", parts[2], "memory.oom_control"))
		}
	}
	return files
}

// counter finds "name N" in lines of such pairs; −1 = absent.
func counter(b []byte, name string) int64 {
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}

func maxRSS(ru *syscall.Rusage) int64 { return int64(ru.Maxrss) << 10 }
