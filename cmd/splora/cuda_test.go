//go:build cuda

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/safetensors"
)

// gpu is the environment in which a command finds a GPU: the machine's own, or the stand-in.
func gpu(t *testing.T) []string {
	t.Helper()
	if cudatest.Driver() {
		return nil
	}
	dir, err := cudatest.Build()
	if err != nil {
		t.Skip("neither a GPU nor a stand-in: ", err)
	}
	return []string{"LD_LIBRARY_PATH=" + dir}
}

// on runs a command that has to succeed.
func on(t *testing.T, env []string, args ...string) outcome {
	t.Helper()
	o := start(t, "splora", env, args...).wait()
	if o.code != exitDone {
		t.Fatalf("splora %s: exit code %d\n%s", strings.Join(args, " "), o.code, o.stderr)
	}
	return o
}

func TestWithoutADriverAutoIsTheCPUAndCUDASaysWhatIsMissing(t *testing.T) {
	if cudatest.Driver() {
		t.Skip("this machine has a driver")
	}
	w, none := newWorld(t), []string{"LD_LIBRARY_PATH="}
	o := on(t, none, w.train("--device", "auto")...)
	if !strings.Contains(o.stderr, "computing on the CPU: cuda: no NVIDIA driver") || !strings.Contains(o.stderr, "backend cpu") {
		t.Errorf("%s", o.stderr)
	}
	o = start(t, "splora", none, w.train("--device", "cuda", "--out", w.path("gpu"))...).wait()
	if o.code != exitFailed || !strings.Contains(o.stderr, "no NVIDIA driver") || !strings.Contains(o.stderr, "--device cpu") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}

// adapterOf is all numbers of an adapter.
func adapterOf(t *testing.T, dir string) (v []float32) {
	t.Helper()
	a, err := safetensors.ReadAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range a.Modules {
		v = append(append(v, m.A.Float32()...), m.B.Float32()...)
	}
	return v
}

func apart(a, b []float32) float64 {
	if len(a) != len(b) || len(a) == 0 {
		return math.NaN()
	}
	var d, n float64
	for i := range b {
		d += (float64(a[i]) - float64(b[i])) * (float64(a[i]) - float64(b[i]))
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

func TestALaunchedRankThatWasGivenNoGPUTakesNoneUnlessTold(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	o := start(t, "launch", append(env, "SPLORA_GPU="), w.train("--device", "auto", "--global-batch", "6")...).wait()
	if o.code != exitDone || !strings.Contains(o.stderr, "backend cpu") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}

func TestATrainingRunOnTheGPUIsThatOnTheCPU(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	for _, c := range []struct {
		dtype, method string
		loss, adapter float64 // how far they may be apart: Adam's first steps are the signs of the gradients
	}{{"float32", "splora", 1e-6, 1e-4}, {"float32", "lora", 1e-6, 1e-4}, {"bfloat16", "splora", 5e-3, 0.2}} {
		run := func(device, out string, more ...string) (string, []train.Record) {
			dir := w.path(c.dtype + c.method + out)
			o := on(t, env, w.train(append([]string{"--device", device, "--dtype", c.dtype, "--method", c.method, "--out", dir}, more...)...)...)
			if !strings.Contains(o.stderr, "backend "+device) {
				t.Errorf("not on %s:\n%s", device, o.stderr)
			}
			m, err := train.ReadMetrics(filepath.Join(dir, "metrics.jsonl"))
			if err != nil || len(m) == 0 || m[len(m)-1].Step != 4 {
				t.Fatalf("%d steps, %v", len(m), err)
			}
			return dir, m
		}
		cpu, want := run("cpu", "cpu")
		gpu, got := run("cuda", "gpu")
		for i := range want {
			if d := math.Abs(got[i].Loss/want[i].Loss - 1); !(d <= c.loss) || got[i].Tokens != want[i].Tokens {
				t.Errorf("%+v step %d: loss %v of %d tokens, on the CPU %v of %d", c, i+1, got[i].Loss, got[i].Tokens, want[i].Loss, want[i].Tokens)
			}
		}
		d := apart(adapterOf(t, gpu), adapterOf(t, cpu))
		if !(d <= c.adapter) || d == 0 {
			t.Errorf("%+v: the adapters are %.1e apart", c, d)
		}
		t.Logf("%s %s: losses %.6f, on the CPU %.6f; the adapters are %.1e apart", c.dtype, c.method, got[3].Loss, want[3].Loss, d)
		if c.dtype == "float32" {
			continue
		}
		again, _ := run("cuda", "again", "--save-every", "2")
		if d := apart(adapterOf(t, again), adapterOf(t, gpu)); d != 0 {
			t.Errorf("%+v: the same run again is %.1e apart", c, d)
		}
		resumed, _ := run("cuda", "resumed", "--resume", filepath.Join(again, "checkpoint-2"))
		if d := apart(adapterOf(t, resumed), adapterOf(t, gpu)); d != 0 {
			t.Errorf("%+v: a run resumed after step 2 is %.1e apart", c, d)
		}
	}
}

func TestTheMemoryOfTheDeviceIsPlannedAndPrinted(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	o := on(t, env, w.train("--device", "cuda")...)
	if !strings.Contains(o.stderr, "memory of the device: ") || !strings.Contains(o.stderr, "the driver says") {
		t.Errorf("%s", o.stderr)
	}
	if !cudatest.Driver() { // so little beside scratch and workspace
		o = start(t, "splora", append(env, fmt.Sprint("HOSTGPU_MEMORY=", cuda.Config{}.Own()+1000)), w.train("--device", "cuda", "--out", w.path("small"))...).wait()
		if o.code != exitFailed || !strings.Contains(o.stderr, "bytes are planned") {
			t.Errorf("exit code %d\n%s", o.code, o.stderr)
		}
	}
}

func TestTheArenaIsThePlanAndNothingIsAllocatedBesideIt(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	for _, more := range [][]string{{"--dtype", "float32"}, {"--dtype", "bfloat16", "--recompute", "none"}, {"--method", "lora", "--dtype", "bfloat16"}, {"--memory", "fused", "--dtype", "bfloat16"}} {
		o := on(t, env, w.train(append([]string{"--device", "cuda", "--log-format", "json", "--resume", "none", "--out", w.path(strings.Join(more, ""))}, more...)...)...)
		var rec struct {
			Msg    string
			Memory struct {
				Device struct{ Total, Free, Before, Library, Own, Arena, Used int }
			}
			Total int `json:"total_bytes"`
		}
		for line := range strings.Lines(o.stderr) {
			if err := json.Unmarshal([]byte(line), &rec); err == nil && rec.Msg == "memory" {
				break
			}
		}
		d := rec.Memory.Device
		const rounding = 64 << 10 // of some hundred pieces to 256 bytes
		if spare := d.Arena - d.Used; rec.Total == 0 || spare < 0 || spare > rounding || d.Arena < d.Own+rec.Total || d.Arena > d.Own+rec.Total+rounding {
			t.Errorf("%v: an arena of %d, %d given out, %d of it the backend's own; planned were %d", more, d.Arena, d.Used, d.Own, rec.Total)
		}
		if got, want := d.Total-d.Free, d.Before+d.Library+d.Arena; math.Abs(float64(got-want)) > 0.03*float64(want) {
			t.Errorf("%v: the driver says that %d bytes are in use, planned are %d", more, got, want)
		}
	}
}

func TestEvalAndGenerateOnTheGPUSayWhatTheCPUSays(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	adapter := w.path("out")
	on(t, env, w.train("--device", "cpu")...)
	text := w.write(t, "text.txt", strings.Repeat("the row says the 3 the 4 and so on. ", 40))
	var ppl [2]struct{ PPL float64 }
	var ids [2]struct{ IDs []int }
	for i, device := range []string{"cpu", "cuda"} {
		for out, args := range map[any][]string{
			&ppl[i]: {"eval", "--model", w.path("model"), "--adapter", adapter, "--data", text, "--seq", "33", "--json", "--device", device},
			&ids[i]: {"generate", "--model", w.path("model"), "--adapter", adapter, "--prompt", "the row", "--max-new-tokens", "12", "--json", "--device", device},
		} {
			if err := json.Unmarshal([]byte(on(t, env, args...).stdout), out); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d := math.Abs(ppl[1].PPL/ppl[0].PPL - 1); !(d <= 1e-5) {
		t.Errorf("perplexity %v, on the CPU %v", ppl[1].PPL, ppl[0].PPL)
	}
	if len(ids[0].IDs) == 0 || len(ids[0].IDs) != len(ids[1].IDs) {
		t.Fatalf("%v, on the CPU %v", ids[1], ids[0])
	}
	for i, id := range ids[0].IDs {
		if ids[1].IDs[i] != id {
			t.Errorf("token %d is %d, on the CPU %d", i, ids[1].IDs[i], id)
		}
	}
}

// TestTwoRanksOnOneGPUByWayOfTheHostAreOneRank runs the trainer as two processes that reduce over sockets; nccl_test.go does so over NCCL.
func TestTwoRanksOnOneGPUByWayOfTheHostAreOneRank(t *testing.T) {
	env, w := gpu(t), newWorld(t)
	on(t, env, w.train("--device", "cuda")...)
	o := start(t, "launch", env, w.train("--device", "cuda:0", "--transport", "tcp", "--out", w.path("two"))...).wait()
	if o.code != exitDone {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	if d := apart(adapterOf(t, w.path("two")), adapterOf(t, w.path("out"))); !(d <= 1e-4) {
		t.Errorf("the adapters are %.1e apart", d)
	}
}
