package train

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PeakRSS is the largest resident set of this process so far, in bytes.
func PeakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) * 1024
}

// hostMemory is the memory that this process may come to use, in bytes: the host's, or its cgroup's limit. 0: not known.
func hostMemory() (n int) {
	info, _ := os.ReadFile("/proc/meminfo")
	if _, err := fmt.Sscanf(string(info), "MemTotal: %d kB", &n); err != nil {
		return 0
	}
	n *= 1024
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		limit, _ := os.ReadFile(path)
		if m, err := strconv.Atoi(strings.TrimSpace(string(limit))); err == nil {
			n = min(n, m)
		}
	}
	return n
}
