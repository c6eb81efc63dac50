//go:build linux

package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is its own rank: with LAUNCH_TEST_ROLE set it plays that role and never reaches the tests.
func TestMain(m *testing.M) {
	if role := os.Getenv("LAUNCH_TEST_ROLE"); role != "" {
		c, _, err := FromEnv(os.Getenv)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		os.Exit(roles[role](c))
	}
	os.Exit(m.Run())
}

// roles are what a rank may do; the result is its exit code. LAUNCH_TEST_DIR is for what it leaves.
var roles = map[string]func(Contract) int{
	"done": func(c Contract) int {
		fmt.Printf("rank %d of %d\n", c.Rank, c.LocalSize)
		return 0
	},
	"contract": func(c Contract) int {
		cmdline, _ := os.ReadFile("/proc/self/cmdline")
		b, _ := json.Marshal(map[string]any{"contract": c, "cmdline": string(cmdline), "gomaxprocs": os.Getenv("GOMAXPROCS")})
		leave(c, "contract", string(b))
		return 0
	},
	// Rank 1 fails at step 41; the others learn of it only by SIGTERM, and say that they lost a rank.
	"fails": func(c Contract) int {
		if c.Rank != 1 {
			term := caught(syscall.SIGTERM)
			leave(c, "ready", "")
			<-term
			c.Fail(c.Rank, 41, errors.New("lost rank 1"), true)
			return 1
		}
		for local := range c.LocalSize {
			if local != 1 {
				waitFor(fmt.Sprintf("ready-%d", local))
			}
		}
		for i := range 30 {
			fmt.Fprintf(os.Stderr, "line %d\n", i)
		}
		fmt.Fprintln(os.Stderr, "the key is "+os.Getenv("SPLORA_KEY"))
		c.Fail(c.Rank, 41, errors.New("gradient is NaN"), false)
		return 3
	},
	"fails once": func(c Contract) int {
		leave(c, fmt.Sprintf("generation-%d-rank", c.Generation), "")
		if c.Attempt == 1 && c.Rank == 0 {
			return 1
		}
		return 0
	},
	// Generation 7 stands, from the fifth attempt on generation 8, which lets it in.
	"late": func(c Contract) int {
		if c.Generation == 8 {
			return 0
		}
		under := 7
		if c.Attempt == 5 {
			under = 8
		}
		c.Late(under, fmt.Errorf("generation %d already stands", under))
		return 1
	},
	// Reaches step 5 in the first attempt, and 10 in all others.
	"stuck": func(c Contract) int {
		c.Progress(c.Rank, min(5*c.Attempt, 10))
		return 1
	},
	"usage": func(Contract) int {
		fmt.Fprintln(os.Stderr, "--lr: not a number")
		return 2
	},
	"panics": func(c Contract) int {
		if c.Attempt == 2 {
			return 0
		}
		panic("q_proj leases the weight slot")
	},
	// Counts its signals, and leaves once the test lets it go.
	"stops": func(c Contract) int {
		ch := make(chan os.Signal, 16)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
		leave(c, "ready", "")
		var got []string
		for {
			select {
			case s := <-ch:
				got = append(got, signalName(s.(syscall.Signal)))
				leave(c, fmt.Sprintf("signal-%d", len(got)), "")
			default:
				if _, err := os.Stat(filepath.Join(os.Getenv("LAUNCH_TEST_DIR"), "go")); err == nil {
					leave(c, "signals", strings.Join(got, " "))
					return 75
				}
				time.Sleep(time.Millisecond)
			}
		}
	},
	"deaf": func(c Contract) int {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		leave(c, "ready", "")
		if c.Rank == 1 && os.Getenv("LAUNCH_TEST_FAIL") != "" {
			waitFor("ready-0")
			return 1
		}
		return forever()
	},
	"killed": func(c Contract) int {
		if c.Rank == 1 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		<-caught(syscall.SIGTERM)
		return 75
	},
	// Leaves a child in its group, whose environment tells nothing, one in a session of its own and a daemon
	// of that one.
	"parent": func(c Contract) int {
		bare(fmt.Sprintf("group%d", c.LocalRank), nil)
		again("session", "session", &syscall.SysProcAttr{Setsid: true})
		waitFor(fmt.Sprintf("pid-group%d-0", c.LocalRank))
		for _, who := range []string{"session", "daemon"} {
			waitFor(fmt.Sprintf("pid-%s-%d", who, c.LocalRank))
		}
		return 0
	},
	"session": func(c Contract) int {
		again("sleeper", "daemon", &syscall.SysProcAttr{Setsid: true})
		return sleep(c)
	},
	"sleeper": sleep,
	// Leaves a daemon whose environment tells nothing.
	"secret parent": func(c Contract) int {
		bare("secret", &syscall.SysProcAttr{Setsid: true})
		waitFor("pid-secret-0")
		return 0
	},
	"launcher": func(Contract) int {
		cfg := Config{Program: "/proc/self/exe", NProc: 2, Env: append(os.Environ(), "LAUNCH_TEST_ROLE="+os.Getenv("LAUNCH_TEST_RANKS"))}
		r, _ := Run(context.Background(), cfg)
		return r.ExitCode
	},
	"talks": func(c Contract) int {
		for i := range 500 { // each line in two writes
			line := fmt.Sprintf("rank %d line %d %s\n", c.Rank, i, strings.Repeat("x", i%97))
			k := i % len(line)
			os.Stderr.WriteString(line[:k])
			os.Stderr.WriteString(line[k:])
		}
		os.Stderr.WriteString("no newline")
		fmt.Printf("{\"rank\":%d}", c.Rank)
		return 0
	},
	// What a rank is told of its GPU, and which memory policy it has.
	"gpu": func(c Contract) int {
		var told []string
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, "NCCL_") || strings.HasPrefix(v, "CUDA_") {
				told = append(told, v)
			}
		}
		b, _ := json.Marshal(map[string]any{"gpu": c.GPU, "env": told})
		leave(c, "gpu", string(b))
		return 0
	},
	"policy": func(c Contract) int {
		mode, err := memoryPolicy()
		leave(c, "policy", fmt.Sprint(mode, err))
		return 0
	},
	// Publishes a checkpoint and ends when it is told to; later generations are done at once.
	"trains": func(c Contract) int {
		if c.Generation > 1 {
			leave(c, "gpu", c.GPU)
			return 0
		}
		term := caught(syscall.SIGTERM)
		leave(c, "ready", "")
		<-term
		return 75
	},
	// Dies of what it did on its GPU once the test lets it.
	"crashes": func(c Contract) int {
		if c.Generation > 1 {
			return 0
		}
		leave(c, "ready", "")
		waitFor("go")
		fmt.Fprintln(os.Stderr, "cuda: an illegal memory access was encountered")
		return 1
	},
	"affinity": func(c Contract) int {
		masks := ""
		tasks, _ := filepath.Glob("/proc/self/task/*/status")
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			for line := range strings.Lines(string(b)) {
				if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
					masks += strings.TrimSpace(list) + "\n"
				}
			}
		}
		leave(c, "masks", masks)
		return 0
	},
}

func sleep(c Contract) int {
	leave(c, "pid-"+os.Getenv("LAUNCH_TEST_WHO"), strconv.Itoa(os.Getpid()))
	return forever()
}

// forever keeps a process alive; select {} would be a deadlock that ends it.
func forever() int {
	for {
		time.Sleep(time.Hour)
	}
}

func caught(s os.Signal) <-chan os.Signal {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, s)
	return ch
}

// leave writes dir/name-RANK, whole or not at all.
func leave(c Contract, name, content string) {
	path := filepath.Join(os.Getenv("LAUNCH_TEST_DIR"), fmt.Sprintf("%s-%d", name, c.LocalRank))
	if err := writeAtomic(path, []byte(content), false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(97)
	}
}

// again starts this binary in another role.
func again(role, who string, attr *syscall.SysProcAttr) { start(os.Environ(), role, who, attr) }

// bare starts a sleeper without the environment of a rank.
func bare(who string, attr *syscall.SysProcAttr) {
	start([]string{"LAUNCH_TEST_DIR=" + os.Getenv("LAUNCH_TEST_DIR")}, "sleeper", who, attr)
}

func start(env []string, role, who string, attr *syscall.SysProcAttr) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(env, "LAUNCH_TEST_ROLE="+role, "LAUNCH_TEST_WHO="+who)
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(96)
	}
}

// waitFor gives the content of a file that another process leaves in LAUNCH_TEST_DIR.
func waitFor(name string) string {
	for range 30000 {
		if b, err := os.ReadFile(filepath.Join(os.Getenv("LAUNCH_TEST_DIR"), name)); err == nil {
			return string(b)
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "nobody left "+name)
	os.Exit(95)
	return ""
}

// job is a Config whose ranks play role, and the directory that they share.
func job(t *testing.T, role string, nproc int) (Config, string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("LAUNCH_TEST_DIR", dir)
	return Config{
		Program: "/proc/self/exe", NProc: nproc, Pause: time.Millisecond, Signals: make(chan os.Signal),
		Env: append(os.Environ(), "LAUNCH_TEST_ROLE="+role),
	}, dir
}

// launched is Run in the background.
func launched(c Config) <-chan Report {
	ch := make(chan Report, 1)
	go func() {
		r, _ := Run(context.Background(), c)
		ch <- r
	}()
	return ch
}
