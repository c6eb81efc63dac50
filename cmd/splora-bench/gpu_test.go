package main

import (
	"math/bits"
	"strings"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

func TestTheFormsHaveThePublishedNumbersOfWeights(t *testing.T) {
	// Counted by transformers: the parameters of model.layers.*, norms left out.
	for name, want := range map[string]int{"7b": 6_476_005_376, "13b": 12_687_769_600, "32b": 31_205_621_760, "70b": 68_451_041_280} {
		f, err := formNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := f.config(2048)
		if err != nil {
			t.Fatal(err)
		}
		if got := linearWeights(c); got != want {
			t.Errorf("%s: %d weights in the linears, want %d", name, got, want)
		}
	}
}

// ledger is memory that counts what is asked of it.
type ledger struct {
	compute.Backend
	n int
}

func (l *ledger) Alloc(n int) tensor.Mem {
	l.n += (n + 255) / 256 * 256
	return l.Backend.Alloc(n)
}

func TestMadeWeightsAreOfThePatternAndTheirSizeIsKnownBefore(t *testing.T) {
	f, err := formNamed("tiny")
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.config(64)
	if err != nil {
		t.Fatal(err)
	}
	be := cpu.New(cpu.Config{Threads: 1})
	defer be.Close()
	mem, count := &ledger{Backend: be}, &counter{align: 256}
	m, err := newMaker(mem, sparse.Pattern{N: 2, M: 4}, 7)
	if err != nil {
		t.Fatal(err)
	}
	w, err := m.model(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Memory = count
	if _, err := m.model(c); err != nil || count.n != mem.n {
		t.Errorf("%d bytes were counted, %d allocated (%v)", count.n, mem.n, err)
	}
	for _, b := range w.Blocks {
		for _, l := range b.Linears {
			if l.W.NNZ() != l.W.Out*l.W.In/2 {
				t.Errorf("%s keeps %d of %d", l.Name, l.W.NNZ(), l.W.Out*l.W.In)
			}
			for i, v := range l.W.Bits.Host {
				if bits.OnesCount8(v&15) != 2 || bits.OnesCount8(v>>4) != 2 {
					t.Fatalf("%s: byte %d of the mask is %08b", l.Name, i, v)
				}
			}
		}
	}
}

func TestAStepOfMadeWeightsTrains(t *testing.T) {
	be := cpu.New(cpu.Config{Threads: 1})
	defer be.Close()
	o := gpuStep{Config: train.Defaults(), shape: "tiny", pattern: "2:4"}
	o.Seq, o.DType, o.Rank = 33, "bfloat16", 4
	var m GPUMeasurement
	tr, err := o.open(be, &m)
	if err != nil {
		t.Fatal(err)
	}
	first, err := tr.step(0)
	if err != nil {
		t.Fatal(err)
	}
	if !(first > 5 && first < 7) { // ln 320 = 5.77
		t.Errorf("the loss of a model that knows nothing is %v", first)
	}
	if m.Linears != 2*(128*128*2+64*128*2+3*128*384) || m.Trained != 2*4*(2*(128+128)+2*(64+128)+3*(128+384)) || m.DType != "bfloat16" {
		t.Errorf("%+v", m)
	}
}

func TestTheTableComparesWithTheFastestOfThePeers(t *testing.T) {
	g := gpuTable{setting: gpuSetting{"7b", 1000, 1, "block"}}
	for _, r := range []struct {
		who, method string
		step        float64
		used        int
	}{{whoSplora, "splora", 1, 10e9}, {whoTorch, "lora", 2, 30e9}, {whoTorch, "lora-half", 0.5, 20e9}, {whoTorch, "splora-naive", 3, 40e9}} {
		g.add(gpuRecord{Who: r.who, Method: r.method, GPUMeasurement: &GPUMeasurement{Steps: []float64{r.step, r.step, 9}, Used: r.used, Linears: 1e9, Product: 12e12}})
	}
	g.add(gpuRecord{Who: whoTorch, Method: "spp", Error: "out of memory"})
	text := g.String()
	for _, want := range []string{"ratios to torch lora-half and torch splora-naive", "splora splora  1.0000      1000            50.0 %         0.50 x      3.00 x  10.00       0.50", "failed"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestTheProductsAreComparedByTheirMedians(t *testing.T) {
	p := GPUProduct{Out: 4096, In: 11008, Tokens: 2048, Rank: 16, Dense: []float64{3e-3, 1e-3, 2e-3}, Sparse: []float64{4e-3, 1e-3, 0.5e-3},
		Ops: []cuda.Time{{Op: "gemm", Calls: 2, Seconds: 3e-3}, {Op: "merge_bf16_bf16", Calls: 2, Seconds: 1e-3}, {Op: "spmm_bf16", Calls: 2, Seconds: 1e-3}, {Op: "compress_bf16", Calls: 4, Seconds: 2e-3}}}
	want := "4096 x 11008  2.000  0.500    1.500       1.000  0.500    0.500  2.00 x                3.00 x"
	if text := productTable([]GPUProduct{p}); !strings.Contains(text, want) || !strings.Contains(text, "2048 tokens, rank 16") {
		t.Errorf("no %q in\n%s", want, text)
	}
}

// TestABackendWithoutSparseTensorCoresIsNotMeasured: the CPU's walk is another thing.
func TestABackendWithoutSparseTensorCoresIsNotMeasured(t *testing.T) {
	be := cpu.New(cpu.Config{Threads: 1})
	defer be.Close()
	o := gpuProduct{shape: "tiny", tokens: 8, rank: 2, turns: 1, repeat: 1}
	if _, err := o.measure(struct{ compute.Backend }{be}); err == nil || !strings.Contains(err.Error(), "sparse tensor cores") {
		t.Error(err)
	}
	o.tokens = 0
	if _, err := o.measure(be); err == nil || !strings.Contains(err.Error(), "--tokens") {
		t.Error(err)
	}
}

func TestWithoutTheTagTheGPUCommandSaysHowToBuildIt(t *testing.T) {
	var out, errs strings.Builder
	code := run(t.Context(), []string{"gpu-step", "--shape", "tiny", "--device", "99"}, &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "-tags cuda") && !strings.Contains(errs.String(), "cuda") {
		t.Errorf("%d: %s", code, &errs)
	}
	if code := run(t.Context(), []string{"gpu", "--out", t.TempDir(), "--shapes", "8b"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), `--shape "8b"`) {
		t.Errorf("%d: %s", code, &errs)
	}
}

func TestATestThatWasSkippedOrRanOnAStandInProvesNothing(t *testing.T) {
	for out, want := range map[string]string{
		"=== RUN TestX\n--- PASS: TestX (0.1s)\n":                    "",
		"--- PASS: TestX\n--- SKIP: TestY (0.00s)\n  no NCCL":        "TestY",
		"cuda:0 (Host stand-in, 8.0 GiB)\n--- PASS: TestX (0.10s)\n": "stand-in",
	} {
		err := proves(out)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", out, err)
		}
	}
}
