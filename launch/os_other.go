//go:build !unix

package launch

import (
	"os"
	"os/signal"
	"syscall"
)

// Where there are no Unix signals the ranks can only be killed.

const checkModes = false // file modes say nothing here

func subscribe() (sigs <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, os.Interrupt)
	return ch, func() { signal.Stop(ch) }
}

func forwarded(os.Signal) bool                          { return true }
func insists(os.Signal) bool                            { return true }
func killGroup(pid int)                                 { signalProcess(pid, os.Kill) }
func adopt() error                                      { return nil }
func childAttr() *syscall.SysProcAttr                   { return nil }
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

func signalProcess(pid int, _ os.Signal) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it may have ended
		_ = p.Release()
	}
}

func ended(st *os.ProcessState) (code int, signal string, rss int64) { return st.ExitCode(), "", 0 }

func signalText(s os.Signal) string { return s.String() }
