package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// gpuTests are the tests that need a GPU, package by package, and what of model/compute/cuda/hardware.txt they prove when they all
// pass on one. A test that is skipped proves nothing, and a stand-in is no GPU.
var gpuTests = [...]struct {
	pkg, run string
	ran      []string
}{
	{"model/compute/cuda", "Conforms|SameBits|SparseTensorCores|Device|Uploads|Arena|Failure|Times|Repeated", []string{"kernels/elementwise", "kernels/rows", "kernels/norm", "kernels/loss", "kernels/update",
		"kernels/gemm", "kernels/merge", "kernels/compress", "kernels/spmm", "kernels/adapter", "kernels/attention", "kernels/attention_dq", "kernels/attention_dkv", "cuda/open", "cuda/pinned-copies", "cuda/arena-and-usage",
		"cuda/event-times", "cublas/float32", "cublas/bfloat16", "conformance/float32", "conformance/bfloat16"}},
	{"model/decoder", "OnTheDevice", []string{"decoder/goldens", "decoder/sparse-tensor-cores"}},
	{"launch", "TheMachinesDriver", []string{"nvml/enumerate"}},
	{"cmd/splora", "OnTheGPU|MemoryOfTheDevice", []string{"splora/train", "splora/eval", "splora/generate"}},
	{"cmd/splora", "MachinesGPU", []string{"splora/doctor", "nvml/memory-wait"}},
	{"cmd/splora", "TwoRanksOverNCCL", []string{"nccl/communicator", "nccl/collectives", "dist/two-ranks-one-gpu"}},
}

// gpus are the machine's GPUs and their driver as NVIDIA's own tool lists them.
func gpus(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=name,uuid,driver_version,memory.total", "--format=csv,noheader").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("there is no GPU, and a test on a stand-in proves nothing of one: nvidia-smi: %w %s", err, lastLine(string(out)))
	}
	return string(out), nil
}

// tests runs the test programs one after the other, and writes what they print.
func (b *gpuBench) tests(ctx context.Context) error {
	list, err := gpus(ctx)
	if err != nil {
		return err
	}
	rec, err := b.appendTo("gpu-tests.txt", nil)
	if err != nil {
		return err
	}
	defer rec.Close()
	if _, err := io.WriteString(rec, list); err != nil {
		return err
	}
	var first error
	for _, t := range gpuTests {
		out, err := b.test(ctx, t.pkg, t.run)
		if _, werr := io.WriteString(rec, out); werr != nil {
			return werr
		}
		if err == nil {
			err = proves(out)
		}
		if err != nil {
			fmt.Fprintf(rec, "FAILED %s: %v\n", t.pkg, err)
			fmt.Fprintf(b.out, "%s failed: %v\n", t.pkg, err)
			first = firstError(first, fmt.Errorf("%s: %w", t.pkg, err))
			continue
		}
		for _, thing := range t.ran {
			fmt.Fprintf(rec, "ran %s\n", thing)
		}
		fmt.Fprintf(b.out, "%s passed\n", t.pkg)
	}
	return first
}

// proves reports why tests that passed say nothing of a GPU.
func proves(out string) error {
	if strings.Contains(out, "stand-in") || strings.Contains(out, "no driver here") {
		return fmt.Errorf("there is no GPU: this was a stand-in")
	}
	if i := strings.Index(out, "--- SKIP: "); i >= 0 {
		return fmt.Errorf("a test was skipped: %.60s", out[i+len("--- SKIP: "):])
	}
	return nil
}

// test runs one package's tests, in that package's folder.
func (b *gpuBench) test(ctx context.Context, pkg, run string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, b.budget)
	defer stop()
	dir := filepath.Join(b.source, filepath.FromSlash(pkg))
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("--source %s is not splora's source tree: %w", b.source, err)
	}
	c := exec.CommandContext(ctx, "go", "test", "-count=1", "-tags", "cuda", "-v", "-run", run, ".")
	if b.programs != "" {
		program, err := filepath.Abs(filepath.Join(b.programs, filepath.Base(pkg)+".test"))
		if err != nil {
			return "", err
		}
		c = exec.CommandContext(ctx, program, "-test.v", "-test.run", run)
	}
	var out bytes.Buffer
	c.Dir, c.Stdout, c.Stderr = dir, &out, &out
	err := c.Run()
	if err == nil && strings.Contains(out.String(), "no tests to run") {
		err = fmt.Errorf("no test matches %q", run)
	}
	return out.String(), err
}
