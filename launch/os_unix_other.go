//go:build unix && !linux

package launch

import (
	"runtime"
	"syscall"
)

// Elsewhere than on Linux: process groups, but no adoption, no parent-death signal and no affinity.

func adopt() error                                      { return nil }
func childAttr() *syscall.SysProcAttr                   { return &syscall.SysProcAttr{Setpgid: true} }
func awaitExit(int)                                     {}
func reapGroup(int)                                     {}
func marked(int, []string) bool                         { return false }
func keepToOurselves(string)                            {}
func withMemory(node int, start func() error) error     { return start() }
func children() []int                                   { return nil }
func killOrphans(func(pid int) bool) int                { return 0 }
func withAffinity(cpus []int, start func() error) error { return start() }
func allowedCPUs() []int                                { return nil }
func oomCounts() (cgroup, host int64)                   { return -1, -1 }

func maxRSS(ru *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return int64(ru.Maxrss)
	}
	return int64(ru.Maxrss) << 10
}
