//go:build unix

package launch

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkModes: file modes say who can read a file.
const checkModes = true

// subscribe gives the signals that a launcher forwards. A broken pipe is caught, too, and then shows as an
// error of the write: the launcher must outlive `| head`. Started with nohup, it does not hear of its terminal's end.
func subscribe() (sigs <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 16)
	all := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE}
	signal.Notify(ch, slices.DeleteFunc(all, func(s os.Signal) bool { return s == syscall.SIGHUP && signal.Ignored(s) })...)
	return ch, func() { signal.Stop(ch) }
}

func forwarded(s os.Signal) bool { return s != syscall.SIGPIPE }

// insists: a second one of these means now.
func insists(s os.Signal) bool { return s == syscall.SIGTERM || s == syscall.SIGINT }

func signalName(s syscall.Signal) string { return unix.SignalName(s) }

func signalText(s os.Signal) string {
	if sys, ok := s.(syscall.Signal); ok {
		return signalName(sys)
	}
	return s.String()
}

func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) } // ESRCH: the group is empty

func signalProcess(pid int, s os.Signal) {
	if s, ok := s.(syscall.Signal); ok {
		_ = unix.Kill(pid, s) // the caller holds the pid: it can have ended, not changed hands
	}
}

// ended reads how a process ended: its exit code, or −1 and the signal's name; and its peak memory in bytes.
func ended(st *os.ProcessState) (code int, signal string, rss int64) {
	if ru, ok := st.SysUsage().(*syscall.Rusage); ok {
		rss = maxRSS(ru)
	}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -1, signalName(ws.Signal()), rss
	}
	return st.ExitCode(), "", rss
}
