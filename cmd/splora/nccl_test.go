//go:build cuda

package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/nccl"
	"github.com/splora/splora/nccl/hostnccl"
)

// collective is one that a rank's NCCL says it was asked for, by its own log.
type collective struct {
	name  string
	bytes int
}

// overNCCL is the environment in which two ranks share the machine's GPU over NVIDIA's NCCL, or the stand-ins' over hostnccl; and
// what each process's NCCL has logged, in order, once they have ended.
func overNCCL(t *testing.T) (env []string, logged func() [][]collective) {
	t.Helper()
	if cudatest.Driver() {
		return overRealNCCL(t)
	}
	env = gpu(t)
	lib := standInNCCL(t)
	trace := filepath.Join(t.TempDir(), "trace")
	return append(env, env[0]+":"+filepath.Dir(lib), "HOSTNCCL_TRACE="+trace), func() [][]collective {
		return parse(t, []string{trace}, regexp.MustCompile(`(?m)^(\d+) nccl(\w+) (\d+) (\d+) \d+$`))
	}
}

// standInNCCL is the stand-in for the library.
func standInNCCL(t *testing.T) string {
	t.Helper()
	lib, err := hostnccl.Library()
	if errors.Is(err, hostnccl.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

// overRealNCCL makes NVIDIA's library log every collective. Two of its ranks may share a GPU since 2.30.3.
func overRealNCCL(t *testing.T) (env []string, logged func() [][]collective) {
	lib, err := nccl.Open("")
	if err != nil {
		t.Skip(err)
	}
	if !lib.GetVersion().MultiRankGPU() {
		t.Skipf("NCCL %s: two ranks share a GPU since 2.30.3", lib.GetVersion())
	}
	dir := t.TempDir()
	env = []string{"NCCL_MULTI_RANK_GPU_ENABLE=1", "NCCL_DEBUG=INFO", "NCCL_DEBUG_SUBSYS=COLL", "NCCL_DEBUG_FILE=" + filepath.Join(dir, "nccl.%p")}
	return env, func() [][]collective {
		files, _ := filepath.Glob(filepath.Join(dir, "nccl.*"))
		return parse(t, files, regexp.MustCompile(`()(AllReduce|Broadcast): opCount \S+ .*count (\d+) datatype (\d+) `))
	}
}

// parse the logs: rank (or nothing, when each has a file), name, count, data type.
func parse(t *testing.T, files []string, line *regexp.Regexp) [][]collective {
	t.Helper()
	by := map[string][]collective{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range line.FindAllStringSubmatch(string(b), -1) {
			count, _ := strconv.Atoi(m[3])
			dtype, _ := strconv.Atoi(m[4])
			who := f + m[1]
			by[who] = append(by[who], collective{m[2], count * nccl.DataType(dtype).Size()})
		}
	}
	var out [][]collective
	for _, list := range by {
		out = append(out, list)
	}
	return out
}

func metricsOf(t *testing.T, dir string, steps int) []train.Record {
	t.Helper()
	m, err := train.ReadMetrics(filepath.Join(dir, "metrics.jsonl"))
	if err != nil || len(m) != steps || m[steps-1].Step != steps {
		t.Fatalf("%s: %d records, %v", dir, len(m), err)
	}
	return m
}

func TestTwoRanksOverNCCLAreOneWithTwiceTheRowsAndReduceTheGradientsOncePerStep(t *testing.T) {
	env, logged := overNCCL(t)
	w := newWorld(t)
	const steps = 4
	args := []string{"--device", "cuda:0", "--global-batch", "4", "--checksum-every", "1"}
	one := on(t, env, w.train(append(args, "--micro-batch", "4")...)...)
	o := start(t, "launch", env, w.train(append(args, "--micro-batch", "2", "--transport", "nccl", "--out", w.path("two"))...)...).wait()
	if o.code != exitDone {
		t.Fatalf("exit code %d\n%s\n%s", o.code, o.stderr, one.stderr)
	}
	n := len(adapterOf(t, w.path("two")))
	if d := apart(adapterOf(t, w.path("two")), adapterOf(t, w.path("out"))); !(d <= 1e-4) {
		t.Errorf("the adapters are %.1e apart", d)
	}
	predicted := 4 * (n + lora.Tail)
	want := metricsOf(t, w.path("out"), steps)
	for i, got := range metricsOf(t, w.path("two"), steps) {
		if d := math.Abs(got.Loss/want[i].Loss - 1); !(d <= 1e-5) || got.Tokens != want[i].Tokens || got.World != 2 {
			t.Errorf("step %d: loss %v of %d tokens on %d ranks, alone %v of %d", i+1, got.Loss, got.Tokens, got.World, want[i].Loss, want[i].Tokens)
		}
		if got.CommBytes != int64(predicted) {
			t.Errorf("step %d: %d bytes, predicted %d", i+1, got.CommBytes, predicted)
		}
	}
	ranks := logged()
	if len(ranks) != 2 {
		t.Fatalf("%d ranks have logged", len(ranks))
	}
	for _, list := range ranks {
		if len(list) != 3+steps { // parameters and moments from rank 0, then a sum for each step
			t.Fatalf("%+v", list)
		}
		for i, c := range list {
			if what := (collective{"AllReduce", predicted}); i >= 3 && c != what || i < 3 && c != (collective{"Broadcast", 4 * n}) {
				t.Errorf("collective %d: %+v", i, c)
			}
		}
	}
	ran(t, "dist/two-ranks-one-gpu")
	t.Logf("each of two ranks called AllReduce %d times in %d steps, each of %d bytes = 4·(%d gradients + %d scalars)", steps, steps, predicted, n, lora.Tail)
}

func TestARankThatDiesInAnAllReduceEndsTheOthersAndTheNextGenerationFinishesToTheBit(t *testing.T) {
	if cudatest.Driver() {
		t.Skip("NVIDIA's NCCL cannot be made to die in an all-reduce")
	}
	env, _ := overNCCL(t)
	w := newWorld(t)
	args := []string{"--device", "cuda:0", "--transport", "nccl", "--save-every", "1", "--resume", "auto"}
	if o := start(t, "launch", env, w.train(args...)...).wait(); o.code != exitDone {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	// Three broadcasts and two steps go well; the next all-reduce kills rank 1. The rest takes three broadcasts and two steps more.
	// Over p2p NCCL itself notices nothing, and rank 0 is not even let go.
	env = append(env, "HOSTNCCL_FAULT=rank1:die@6,rank0:hang-abort", "HOSTNCCL_TRANSPORT=p2p", maxRestarts+"=1")
	o := start(t, "launch", env, w.train(append(args, "--out", w.path("two"))...)...).wait()
	if o.code != exitDone || !strings.Contains(o.stderr, "splora: train: dist: group aborted: lost ") ||
		!strings.Contains(o.stderr, "NCCL's abort has not returned within 8s: ending the process") {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	m := metricsOf(t, w.path("two"), 4)
	if m[1].Generation != 1 || m[2].Generation != 2 {
		t.Errorf("generations %d and %d", m[1].Generation, m[2].Generation)
	}
	if d := apart(adapterOf(t, w.path("two")), adapterOf(t, w.path("out"))); d != 0 {
		t.Errorf("the adapters are %.1e apart", d)
	}
}
