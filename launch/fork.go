package launch

import (
	"os/exec"
	"runtime"
)

// forker starts processes from one OS thread that lives until close. The kernel sends the parent-death
// signal when the *thread* that forked ends, and a child inherits the affinity of that thread.
type forker struct{ jobs chan func() }

func newForker() *forker {
	f := &forker{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its affinity with it
		for job := range f.jobs {
			job()
		}
	}()
	return f
}

func (f *forker) close() { close(f.jobs) }

// start runs cmd.Start on the thread, with its affinity set to cpus unless they are empty, and its memory taken
// from the NUMA node unless that is −1.
func (f *forker) start(cmd *exec.Cmd, cpus []int, node int) error {
	return f.run(func() error {
		keepToOurselves("/dev/nvidia")
		return withAffinity(cpus, func() error { return withMemory(node, cmd.Start) })
	})
}

// run runs job on the thread.
func (f *forker) run(job func() error) error {
	done := make(chan error)
	f.jobs <- func() { done <- job() }
	return <-done
}
