//go:build unix

package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/splora/splora/launch"
)

// node is a machine's GPUs, some of them held by a stranger.
type node struct {
	gpus   []launch.GPU
	held   map[string]int64
	closed int
}

func gpus(n int) *node {
	d := &node{held: map[string]int64{}}
	for i := range n {
		d.gpus = append(d.gpus, launch.GPU{UUID: "GPU-" + string(rune('a'+i)), Name: "H200", NUMA: -1, Memory: 1 << 37})
	}
	return d
}

func (d *node) open() (launch.GPUs, error)                  { return d, nil }
func (d *node) Driver() (launch.Driver, error)              { return launch.Driver{}, nil }
func (d *node) List() ([]launch.GPU, error)                 { return d.gpus, nil }
func (d *node) Link(string, string) (launch.Link, error)    { return launch.Link{}, nil }
func (d *node) Watch(uuids []string) (launch.Events, error) { return quiet{}, nil }
func (d *node) Close() error                                { d.closed++; return nil }
func (d *node) Health(id string) (launch.Health, error) {
	return launch.Health{MemUsed: d.held[id]}, nil
}
func (d *node) Holders(id string) ([]launch.Holder, error) {
	if d.held[id] == 0 {
		return nil, nil
	}
	return []launch.Holder{{PID: 4242, Name: "python3", Memory: d.held[id]}}, nil
}

type quiet struct{}

func (quiet) Close() error { return nil }
func (quiet) Next(wait time.Duration) (launch.Event, bool, error) {
	time.Sleep(min(wait, 10*time.Millisecond))
	return launch.Event{}, false, nil
}

// onBus is the file system on which GPUs are looked for.
var onBus = fstest.MapFS{}

// callOn runs the command on a machine with GPUs.
func callOn(t *testing.T, d *node, open func() (launch.GPUs, error), args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	f := flags{getenv: func(string) string { return "" }, environ: []string{"HOME=/"}, open: open, root: onBus}
	code = run(t.Context(), append([]string{"--splora", self(t), "--stdout", "all"}, args...), f, &out, &errs)
	if d != nil && d.closed != 1 {
		t.Errorf("%v: the driver was closed %d times", args, d.closed)
	}
	return code, out.String(), errs.String()
}

func TestGPUMeansOneRankForEachGPUThatCanBeUsed(t *testing.T) {
	d := gpus(4)
	d.held["GPU-b"] = 3 << 30
	code, out, errs := callOn(t, d, d.open, "--nproc-per-node", "gpu", "--", "train")
	if n := strings.Count(out, " of 3: train\n"); code != 0 || n != 3 {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestGPUWithoutAUsableOneSaysWhyAndWhatToDo(t *testing.T) {
	d := gpus(1)
	d.held["GPU-a"] = 3 << 30
	code, _, errs := callOn(t, d, d.open, "--nproc-per-node", "gpu", "--", "train")
	for _, want := range []string{"none of 1 GPUs can be used", "GPU-a", "pid 4242 (python3, 3072 MiB)", "--gpu-tolerance-mib"} {
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, stderr %q, want %q in it", code, errs, want)
		}
	}
	d = gpus(1)
	d.held["GPU-a"] = 3 << 30
	if code, _, errs := callOn(t, d, d.open, "--nproc-per-node", "gpu", "--gpu-tolerance-mib", "4096", "--", "train"); code != 0 {
		t.Errorf("with more tolerance: exit code %d, stderr %q", code, errs)
	}
	for open, want := range map[error]string{launch.ErrNotBuilt: "built without -tags cuda", launch.ErrNoDriver: "no NVIDIA driver",
		errors.New("launch: the module is older"): "the module is older"} {
		code, _, errs := callOn(t, nil, func() (launch.GPUs, error) { return nil, open }, "--nproc-per-node", "gpu", "--", "train")
		if code != 2 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit code %d, stderr %q", open, code, errs)
		}
	}
	d = gpus(0)
	if code, _, errs := callOn(t, d, d.open, "--nproc-per-node", "gpu", "--", "train"); code != 2 || !strings.Contains(errs, "has no GPU") {
		t.Errorf("a driver without GPUs: exit code %d, stderr %q", code, errs)
	}
}

func TestANumberOfRanksNeedsNoDriverButABrokenOneIsTold(t *testing.T) {
	for _, open := range []error{launch.ErrNotBuilt, launch.ErrNoDriver} {
		if code, _, errs := callOn(t, nil, func() (launch.GPUs, error) { return nil, open }, "--", "train"); code != 0 || errs != "[0] log of rank 0\n" {
			t.Errorf("%v: exit code %d, stderr %q", open, code, errs)
		}
	}
	mismatch := func() (launch.GPUs, error) { return nil, errors.New("launch: library and module differ") }
	if code, _, errs := callOn(t, nil, mismatch, "--", "train"); code != 2 || !strings.Contains(errs, "library and module differ; or give --gpus none") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
	for _, args := range [][]string{{"--gpus", "none", "--", "train"}, {"--", "train", "--device", "cpu"}, {"--", "train", "--device=cpu"}} {
		if code, _, errs := callOn(t, nil, mismatch, args...); code != 0 {
			t.Errorf("%v: exit code %d, stderr %q", args, code, errs)
		}
	}
	code, _, errs := callOn(t, nil, mismatch, "--nproc-per-node", "gpu", "--", "train", "--device", "cpu")
	if code != 2 || !strings.Contains(errs, "told to use no GPU") {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}

func TestGPUsThatTheRanksWillNotUseAreTold(t *testing.T) {
	defer func() { onBus = fstest.MapFS{} }()
	for _, name := range []string{"proc/driver/nvidia/gpus/0000:01:00.0/information", "dev/nvidia0"} {
		onBus = fstest.MapFS{name: {}, "dev/nvidiactl": {}}
		code, _, errs := callOn(t, nil, func() (launch.GPUs, error) { return nil, launch.ErrNotBuilt }, "--", "train")
		if code != 0 || !strings.Contains(errs, "this node has 1 NVIDIA GPUs, and the ranks are given none: this program was built without -tags cuda") {
			t.Errorf("%s: exit code %d, stderr %q", name, code, errs)
		}
		if _, _, errs := callOn(t, nil, nil, "--gpus", "none", "--", "train"); strings.Contains(errs, "NVIDIA") {
			t.Errorf("--gpus none: stderr %q", errs)
		}
	}
}

func TestHiddenGPUsAreLeftAlone(t *testing.T) {
	d := gpus(1)
	var out, errs bytes.Buffer
	f := flags{getenv: func(string) string { return "" }, environ: []string{"CUDA_VISIBLE_DEVICES="}, open: d.open, root: onBus}
	if code := run(t.Context(), []string{"--splora", self(t), "--nproc-per-node", "2", "--", "train"}, f, &out, &errs); code != 0 {
		t.Errorf("exit code %d, stderr %s", code, errs.String())
	}
	if code := run(t.Context(), []string{"--splora", self(t), "--nproc-per-node", "gpu", "--", "train"}, f, &out, &errs); code != 2 || !strings.Contains(errs.String(), "hides all GPUs") {
		t.Errorf("exit code %d, stderr %s", code, errs.String())
	}
	if code, _, errs := callOn(t, nil, nil, "--gpu-tolerance-mib", "0", "--", "train"); code != 2 || !strings.Contains(errs, "must be positive") {
		t.Errorf("exit code %d, stderr %s", code, errs)
	}
}

func TestTheDeviceIsReadFromTrainsFlags(t *testing.T) {
	for want, args := range map[string][]string{"": {"train"}, "cpu": {"train", "--device", "cpu", "--lr", "1"}, "cuda:1": {"--device=cuda:1"}} {
		if got := device(args); got != want {
			t.Errorf("%v: %q, want %q", slices.Clone(args), got, want)
		}
	}
}
