package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/family"
)

// role says what a copy of the test binary plays: "splora", or "launch", which starts two ranks of splora.
const role = "SPLORA_TEST_ROLE"

// maxRestarts says how often that launcher starts its ranks again.
const maxRestarts = "SPLORA_TEST_MAX_RESTARTS"

// choosesGPUs says that it gives each rank a GPU.
const choosesGPUs = "SPLORA_TEST_CHOOSES_GPUS"

// patience is how long a process may take on the slowest machine before a test calls it hung.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "splora":
		main()
	case "launch":
		os.Setenv(role, "splora")
		os.Exit(playLauncher(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// playLauncher is splora-launch --nproc-per-node 2, its own events as JSON lines among the ranks' stderr. With a rank's place in its
// environment it is that of one rank, the second of two nodes.
func playLauncher(args []string) int {
	stderr := zapcore.Lock(os.Stderr)
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), stderr, zap.InfoLevel))
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	restarts, _ := strconv.Atoi(os.Getenv(maxRestarts))
	var gpus launch.GPUs // a rank's GPU is the first one that it sees, unless the launcher is to choose
	if os.Getenv(choosesGPUs) != "" {
		if gpus, err = launch.OpenGPUs(); err != nil {
			panic(err)
		}
	}
	c := launch.Config{Program: self, Args: args, NProc: 2, Alone: true, PrefixLogs: true,
		MaxRestarts: restarts, Pause: 10 * time.Millisecond, OnlyRank0Stdout: true, Stdout: os.Stdout, Stderr: stderr, Logger: log, NoAffinity: true, GPUs: gpus}
	if place, launched, _ := launch.FromEnv(os.Getenv); launched {
		c.NProc, c.MinNodes, c.MaxNodes, c.NodeRank, c.GossipPort = 1, 2, 2, 1, -1
		c.Job, c.Key, c.Bind, c.Join = place.Job, place.Key, place.Bind, place.Seeds
	}
	r, _ := launch.Run(context.Background(), c)
	fmt.Fprintln(stderr, "launcher:", r.Reason)
	return r.ExitCode
}

// process is a running copy of the test binary.
type process struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	done   chan struct{} // closed when it has ended

	mu     sync.Mutex
	stderr bytes.Buffer
	seen   chan struct{} // closed and replaced when stderr grows
}

// Write takes its stderr.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.seen)
	p.seen = make(chan struct{})
	return p.stderr.Write(b)
}

// log is its stderr so far.
func (p *process) log() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String(), p.seen
}

// start runs the test binary in a role.
func start(t *testing.T, as string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), done: make(chan struct{}), seen: make(chan struct{})}
	scratch, err := os.MkdirTemp("", "splora-test-") // where a killed launcher leaves its directory
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Env = append(append(os.Environ(), role+"="+as, "TMPDIR="+scratch), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, p
	p.cmd.WaitDelay = 10 * time.Second // a killed launcher's ranks may hold its stderr for a moment
	t.Cleanup(func() { os.RemoveAll(scratch) })
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(patience, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	go func() {
		p.cmd.Wait()
		hung.Stop()
		close(p.done)
	}()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	return p
}

// until waits for stderr to hold the mark; false: the process ended without it.
func (p *process) until(mark string) bool {
	for {
		log, more := p.log()
		if strings.Contains(log, mark) {
			return true
		}
		select {
		case <-more:
		case <-p.done:
			log, _ = p.log()
			return strings.Contains(log, mark)
		}
	}
}

// ranks are the pids of a launcher's ranks, by local rank.
func (p *process) ranks() (pids []int) {
	log, _ := p.log()
	for line := range strings.Lines(log) {
		var e struct {
			Msg string
			PID int
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "rank started" {
			pids = append(pids, e.PID)
		}
	}
	return pids
}

// outcome is how a process ended.
type outcome struct {
	code           int // −1: by a signal
	stdout, stderr string
}

func (p *process) wait() outcome {
	<-p.done
	log, _ := p.log()
	return outcome{p.cmd.ProcessState.ExitCode(), p.stdout.String(), log}
}

// splora runs one command to its end.
func splora(t *testing.T, args ...string) outcome {
	t.Helper()
	return start(t, "splora", nil, args...).wait()
}

// ok is splora for a command that has to succeed.
func ok(t *testing.T, args ...string) outcome {
	t.Helper()
	o := splora(t, args...)
	if o.code != exitDone {
		t.Fatalf("splora %s: exit code %d\n%s", strings.Join(args, " "), o.code, o.stderr)
	}
	return o
}

const tinyConfig = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":560,"hidden_size":32,"intermediate_size":48,
"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":64,"rms_norm_eps":1e-5,"rope_theta":10000,
"hidden_act":"silu","tie_word_embeddings":false,"torch_dtype":"bfloat16"}`

// world is a small model, 2:4 sparse, with its tokenizer, and rows to train on, in a folder of the test's own.
type world struct{ dir string }

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{t.TempDir()}
	if err := family.Init(t.Context(), w.path("model"), family.InitConfig{Config: []byte(tinyConfig), Pattern: "2:4", Seed: 7}); err != nil {
		t.Fatal(err)
	}
	w.tokenizer(t, "model")
	var rows strings.Builder
	for i := range 23 {
		fmt.Fprintf(&rows, "{\"prompt\":\"row %d says\",\"completion\":\"%s\"}\n", i, strings.Repeat(fmt.Sprintf(" the %d", i%7), 1+i%5))
	}
	w.write(t, "rows.jsonl", rows.String())
	return w
}

func (w world) path(name string) string { return filepath.Join(w.dir, name) }

func (w world) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return w.path(name)
}

// tokenizer gives a model folder the small byte-level tokenizer, 560 ids.
func (w world) tokenizer(t *testing.T, model string) {
	t.Helper()
	b, err := os.ReadFile("../../data/tokenizer/testdata/gpt2/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, filepath.Join(model, "tokenizer.json"), string(b))
	w.write(t, filepath.Join(model, "tokenizer_config.json"), `{"eos_token":"<|end|>"}`)
}

// copyModel is the model in another folder, for a test to spoil.
func (w world) copyModel(t *testing.T, name string) string {
	t.Helper()
	if err := os.CopyFS(w.path(name), os.DirFS(w.path("model"))); err != nil {
		t.Fatal(err)
	}
	return w.path(name)
}

// train are the arguments of a run of a few steps; later ones win over earlier ones.
func (w world) train(more ...string) []string {
	return append([]string{"train", "--model", w.path("model"), "--data", w.path("rows.jsonl"), "--out", w.path("out"), "--cache-dir", w.path("cache"),
		"--rank", "3", "--alpha", "5", "--lr", "1e-2", "--global-batch", "5", "--micro-batch", "2", "--max-steps", "4", "--log-every", "1", "--threads", "1"}, more...)
}

// exists tells whether a path is there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

func records(t *testing.T, out string) []train.Record {
	t.Helper()
	r, err := train.ReadMetrics(filepath.Join(out, "metrics.jsonl"))
	if err != nil || len(r) == 0 {
		t.Fatalf("metrics of %s: %d records, %v", out, len(r), err)
	}
	return r
}
