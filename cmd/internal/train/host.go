package train

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PeakRSS is the largest resident set of this process so far, in bytes. Where there is /proc it says so; getrusage's figure begins with
// that of the process which started this one.
func PeakRSS() int64 {
	if peak := status("VmHWM"); peak > 0 {
		return int64(peak)
	}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) * 1024
}

// HostMemory is the memory that this process may come to use, in bytes: the host's, or the limit of a cgroup that it is in. 0: not known.
func HostMemory() (n int) {
	info, _ := os.ReadFile("/proc/meminfo")
	if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &n); err != nil {
		return 0
	}
	n *= 1024
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for _, path := range limitFiles(string(groups)) {
		limit, _ := os.ReadFile(path)
		if m, err := strconv.Atoi(strings.TrimSpace(string(limit))); err == nil {
			n = min(n, m)
		}
	}
	return n
}

// limitFiles are the files that may limit the memory of a process with that /proc/self/cgroup: of its cgroup and of all above it, in
// either version. In a container the top is the container's own.
func limitFiles(groups string) (paths []string) {
	for line := range strings.Lines(groups) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		root, file := "/sys/fs/cgroup", "memory.max"
		if controllers != "" {
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		if controllers != "" && !slices.Contains(strings.Split(controllers, ","), "memory") {
			continue
		}
		for dir := filepath.Clean("/" + group); ; dir = filepath.Dir(dir) {
			paths = append(paths, filepath.Join(root, dir, file))
			if dir == "/" {
				break
			}
		}
	}
	return paths
}

// litter is how much garbage the heap may hold in a run's steps, in bytes. The collector need not look through the planned memory, so
// that a small bound costs little, and the program's memory is known beforehand however long it runs.
const litter = 3 << 20

// Program is what this process takes without a model, in bytes, when it is called before the model is loaded and after everything else
// is: what is resident, and the garbage of the steps. 0: not known.
func Program() int {
	if now := status("VmRSS"); now > 0 {
		return now + litter
	}
	return 0
}

// steady gives back what the beginning has left on the heap and bounds the garbage of the steps by litter, however large the planned
// memory is, which the collector need not look through; undo takes the bound away.
func steady() (undo func()) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	old := debug.SetGCPercent(max(1, int(100*litter/m.HeapAlloc)))
	return func() { debug.SetGCPercent(old) }
}

// sinceStart is the time since this process was started, to a hundredth of a second; 0 where there is no /proc.
func sinceStart() time.Duration {
	stat, _ := os.ReadFile("/proc/self/stat")
	up, _ := os.ReadFile("/proc/uptime")
	const state, began = 3, 22 // numbers of the fields behind the program's name, and of the time, in ticks since the system started
	_, fields, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(fields)
	var now, ticks float64
	fmt.Sscan(string(up), &now)
	if len(f) > began-state {
		fmt.Sscan(f[began-state], &ticks)
	}
	const perSecond = 100 // USER_HZ on every Linux that Go runs on
	return max(0, time.Duration((now-ticks/perSecond)*float64(time.Second))).Round(10 * time.Millisecond)
}

// status is a size in /proc/self/status, in bytes; 0 where there is none.
func status(field string) int {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			kb := 0
			fmt.Sscan(value, &kb)
			return 1024 * kb
		}
	}
	return 0
}
