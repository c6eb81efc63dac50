package launch

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// drain is how long output is read on after a rank ended, while somebody still holds its pipe.
const drain = 2 * time.Second

// rank is one process, from its start until it is reaped and its output is read.
type rank struct {
	Contract
	cmd      *exec.Cmd
	cpus     []int
	node     int // NUMA node of its memory; −1 = any
	out, err *lines
	files    []*os.File // log files, closed at the end
	pipes    []*os.File // read ends
	readers  sync.WaitGroup

	mu     sync.Mutex
	reaped bool      // pid is no longer ours
	asked  time.Time // when the launcher told it to end; zero = never
	exit   Exit
}

// label names a rank to a reader: its wished rank, or host/local rank while none is known.
func (r *rank) label() string {
	if r.Rank >= 0 {
		return strconv.Itoa(r.Rank)
	}
	host, _ := os.Hostname()
	return host + "/" + strconv.Itoa(r.LocalRank)
}

// fileName is the stem of its files in the attempt's directory.
func (r *rank) fileName() string {
	if r.Rank >= 0 {
		return fmt.Sprintf("rank-%d", r.Rank)
	}
	return fmt.Sprintf("rank-%d", r.LocalRank)
}

// start forks the process and begins to read what it writes.
func (r *rank) start(f *forker) error {
	out, err := r.pipe(r.out)
	if err != nil {
		return err
	}
	defer out.Close()
	errw, err := r.pipe(r.err)
	if err != nil {
		return err
	}
	defer errw.Close()
	r.cmd.Stdout, r.cmd.Stderr = out, errw
	r.cmd.SysProcAttr = childAttr()
	if err := f.start(r.cmd, r.cpus, r.node); err != nil {
		return fmt.Errorf("start %s: %w", r.cmd.Path, err)
	}
	return nil
}

// pipe gives the write end of a pipe whose other end is copied to l.
func (r *rank) pipe(l *lines) (*os.File, error) {
	rd, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.pipes = append(r.pipes, rd)
	r.readers.Go(func() {
		io.CopyBuffer(struct{ io.Writer }{l}, struct{ io.Reader }{rd}, make([]byte, 32<<10)) // ends with the pipe
		l.close()
	})
	return wr, nil
}

// wait returns when the process, its group and its orphans have ended and its output is read.
func (r *rank) wait() {
	pid := r.cmd.Process.Pid
	awaitExit(pid)
	when := time.Now()
	r.mu.Lock()
	killGroup(pid)
	_ = r.cmd.Wait() // its result is the state
	r.reaped = true
	code, sig, rss := ended(r.cmd.ProcessState)
	r.exit = Exit{Rank: r.Rank, LocalRank: r.LocalRank, GPU: r.GPU, PID: pid, Code: code, Signal: sig, ByUs: !r.asked.IsZero() && r.asked.Before(when), MaxRSS: rss, When: when}
	r.mu.Unlock()
	reapGroup(pid)
	marks := r.marks()
	r.exit.Orphans = killOrphans(func(pid int) bool { return marked(pid, marks) })
	r.finish()
}

// finish reads the rest of the output and closes the files.
func (r *rank) finish() {
	for _, p := range r.pipes {
		p.SetReadDeadline(time.Now().Add(drain))
	}
	r.readers.Wait()
	for _, f := range append(r.pipes, r.files...) {
		f.Close()
	}
}

// marks are in the environment of the process and of those that it starts, and of no others.
func (r *rank) marks() []string {
	var m []string
	for _, v := range r.Environ() {
		for _, name := range []string{"SPLORA_JOB=", "SPLORA_ATTEMPT=", "SPLORA_LOCAL_RANK=", "SPLORA_ERROR_FILE="} {
			if strings.HasPrefix(v, name) {
				m = append(m, v)
			}
		}
	}
	return m
}

// signal reaches the process only while its pid is ours.
func (r *rank) signal(s os.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reaped {
		signalProcess(r.cmd.Process.Pid, s)
	}
}

// ask notes that the launcher wants the rank to end, and sends s.
func (r *rank) ask(s os.Signal) {
	r.mu.Lock()
	if r.asked.IsZero() {
		r.asked = time.Now()
	}
	r.mu.Unlock()
	r.signal(s)
}

// kill ends the process and its group.
func (r *rank) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reaped {
		return
	}
	if r.asked.IsZero() {
		r.asked = time.Now()
	}
	killGroup(r.cmd.Process.Pid)
}

// logFile opens a log of the rank in dir.
func (r *rank) logFile(dir, ext string) (io.Writer, error) {
	f, err := os.Create(filepath.Join(dir, r.fileName()+ext))
	if err != nil {
		return nil, err
	}
	r.files = append(r.files, f)
	return f, nil
}
