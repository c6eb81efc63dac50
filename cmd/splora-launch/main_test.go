//go:build unix

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/splora/splora/launch"
)

// The test binary plays splora: a rank that says what it was given and ends as it is told.
func TestMain(m *testing.M) {
	c, isRank, err := launch.FromEnv(os.Getenv)
	if !isRank {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	fmt.Printf("rank %d of %d: %s\n", c.Rank, c.LocalSize, strings.Join(os.Args[1:], " "))
	fmt.Fprintf(os.Stderr, "log of rank %d\n", c.Rank)
	for _, a := range os.Args[1:] {
		if n, ok := strings.CutPrefix(a, "--exit="); ok {
			os.Exit(int(n[0]-'0')*10 + int(n[1]-'0'))
		}
	}
	os.Exit(0)
}

// call runs the command with the environment env only.
func call(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	getenv := func(name string) string {
		for _, v := range env {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
	code = run(t.Context(), args, flags{getenv: getenv, open: noDriver, root: fstest.MapFS{}}, &out, &errs)
	return code, out.String(), errs.String()
}

func noDriver() (launch.GPUs, error) { return nil, launch.ErrNoDriver }

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEverythingAfterTheDashesGoesToSplora(t *testing.T) {
	for _, args := range [][]string{
		{"--", "train", "--lr", "1", "--nnodes", "7"},
		{"train", "--lr", "1", "--nnodes", "7"},
	} {
		code, out, errs := call(t, nil, append([]string{"--nproc-per-node", "2", "--splora", self(t)}, args...)...)
		if code != 0 || out != "rank 0 of 2: train --lr 1 --nnodes 7\n" {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, out, errs)
		}
		lines := strings.Split(strings.TrimSpace(errs), "\n")
		slices.Sort(lines)
		if want := []string{"[0] log of rank 0", "[1] log of rank 1"}; !slices.Equal(lines, want) {
			t.Errorf("stderr %q, want %q", lines, want)
		}
	}
}

func TestExitCodesOfRanksBecomeThoseOfTheLauncher(t *testing.T) {
	for _, c := range []struct {
		flag string
		code int
		line string // on stderr
	}{
		{"--exit=00", 0, ""},
		{"--exit=75", 75, "splora-launch: stopped on a signal: run again to go on\n"},
		{"--exit=02", 2, "failed: exit code 2: last line on stderr: log of rank 0 (not restarted: wrong usage or configuration)\n"},
		{"--exit=07", 1, "failed: exit code 7: last line on stderr: log of rank 0 (attempt 1 of 1)\n"},
	} {
		code, _, errs := call(t, nil, "--splora", self(t), "--", "train", c.flag)
		if code != c.code || !strings.HasSuffix(errs, c.line) {
			t.Errorf("%s: exit code %d, stderr %q", c.flag, code, errs)
		}
	}
}

func TestWrongUsageIsSaidInOneLineAndEndsWith2(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct{ want, args string }{
		{"nothing to run", ""},
		{"unknown flag: --lr", "--lr 1 -- train"},
		{`--nproc-per-node "0"`, "--nproc-per-node 0 -- train"},
		{`--nproc-per-node "many"`, "--nproc-per-node many -- train"},
		{"100000 ranks (--nproc-per-node × nodes): at most 256", "--nproc-per-node 100000 -- train"},
		{"258 ranks", "--nproc-per-node 2 --nnodes 1:129 --job j -- train"},
		{`--nnodes "3:2"`, "--nnodes 3:2 -- train"},
		{"several nodes need one key", "--nnodes 2 --job j -- train"},
		{"--join is for several nodes", "--join h:1 -- train"},
		{"chmod", "--key-file " + missing + " -- train"},
		{`--affinity "x"`, "--affinity x -- train"},
		{`--stdout "x"`, "--stdout x -- train"},
		{"--grace -1s", "--grace -1s -- train"},
		{"--splora", "--splora " + missing + " -- train"},
	} {
		if c.want == "chmod" {
			os.WriteFile(missing, []byte("x"), 0o644)
		}
		code, out, errs := call(t, nil, append([]string{"--splora", self(t)}, strings.Fields(c.args)...)...)
		if c.want == "chmod" {
			os.Remove(missing)
		}
		if code != 2 || out != "" || !strings.HasPrefix(errs, "splora-launch: ") || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", c.args, code, out, errs)
		}
	}
}

func TestTheKeyComesFromTheEnvironmentAndIsNotShown(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k3y!"), 8))
	dir := t.TempDir()
	code, out, errs := call(t, []string{"SPLORA_KEY=" + key, "SPLORA_JOB=j"}, "-v", "--log-dir", dir, "--nnodes", "1:2", "--node-rank", "0",
		"--bind", "127.0.0.1", "--gossip-port", "-1", "--splora", self(t), "--", "train", "--exit=01")
	report, err := os.ReadFile(filepath.Join(dir, "node-0", "exit-report.json"))
	if code != 1 || err != nil || !strings.Contains(string(report), `"job": "j"`) {
		t.Errorf("exit code %d, stderr %q, report %s, error %v", code, errs, report, err)
	}
	if !strings.Contains(errs, "rank started") || !strings.Contains(errs, "exit-report.json are below "+dir) {
		t.Errorf("stderr %q", errs)
	}
	if strings.Contains(out+errs+string(report), key) {
		t.Error("the key is shown")
	}
	if code, _, errs := call(t, []string{"SPLORA_KEY=secret"}, "--splora", self(t), "--", "train"); code != 2 || strings.Contains(errs, "secret") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}

func TestSeedsOfABatchScriptGetTheJobsPort(t *testing.T) {
	env := []string{"SPLORA_SEEDS=n1,n2:5,[::1]", "SLURM_JOB_ID=12001", "SLURM_STEP_ID=0", "SLURM_STEP_NODELIST=n[1-3]", "SLURM_NODEID=1",
		"SLURM_PROCID=1", "SLURM_LOCALID=0", "SLURM_STEP_TASKS_PER_NODE=1(x3)"}
	f := flags{getenv: func(name string) string {
		for _, v := range env {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}}
	c := launch.Config{NodeRank: -1}
	if err := f.place(&c, false); err != nil {
		t.Fatal(err)
	}
	if want := []string{"n1:27919", "n2:5", "[::1]:27919"}; !slices.Equal(c.Join, want) || c.NodeRank != 1 || c.MaxNodes != 3 || c.GossipPort != 27920 {
		t.Errorf("config %+v, want seeds %v", c, want)
	}
}

func TestTheCommandCompletesItsFlags(t *testing.T) {
	code, out, errs := call(t, nil, "__complete", "--nproc-per-node", "")
	if code != 0 || !strings.HasPrefix(out, "gpu\ncpu\n") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestHelpNamesEveryExitCode(t *testing.T) {
	code, out, _ := call(t, nil, "--help")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"0 done", "1 failed", "2 wrong usage", "75 stopped", "--max-restarts", "SPLORA_KEY"} {
		if !strings.Contains(out, want) {
			t.Errorf("help does not say %q", want)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAnOutputThatDoesNotArriveIsAFailure(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"--splora", self(t), "--affinity", "none", "--", "train"}} {
		var errs bytes.Buffer
		if code := run(t.Context(), args, flags{getenv: func(string) string { return "" }, open: noDriver, root: fstest.MapFS{}}, full{}, &errs); code != launch.ExitFailed || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%v: exit %d: %s", args, code, &errs)
		}
	}
}
