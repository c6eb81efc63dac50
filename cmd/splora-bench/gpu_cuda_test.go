//go:build cuda

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute/cuda/cudatest"
)

// tests runs them with a device, or a stand-in of one.
func tests(m *testing.M) int {
	cudatest.Main(m)
	return 0
}

// TestTheGPUCommandMeasuresAndKeepsWhatItMeasured runs a tiny shape on whatever device there is.
func TestTheGPUCommandMeasuresAndKeepsWhatItMeasured(t *testing.T) {
	if why, none := strings.CutPrefix(cudatest.StandIn(), "none: "); none {
		t.Skip("neither a GPU nor a stand-in: " + why)
	}
	dir := t.TempDir()
	var out, errs bytes.Buffer
	args := []string{"gpu", "--out", dir, "--parts", "products,steps,large", "--shapes", "tiny", "--seq", "24", "--steps", "1", "--rank", "4", "--recompute", "block", "--peers", ""}
	if code := run(t.Context(), args, &out, &errs); code != 0 {
		t.Fatalf("%d\n%s%s", code, &out, &errs)
	}
	for name, methods := range map[string]int{"gpu-steps.jsonl": 3, "gpu-large.jsonl": 1} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		if len(lines) != 1+methods || !strings.Contains(lines[0], `"kind":"header"`) {
			t.Fatalf("%s has %d lines", name, len(lines))
		}
		var r gpuRecord
		if err := json.Unmarshal([]byte(lines[1]), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Steps) != 1 || len(r.Ops) == 0 || r.Planned == 0 || r.Used > r.Planned || !(r.Product > 0) || !(r.Loss > 5 && r.Loss < 7) {
			t.Errorf("%s: %+v", name, *r.GPUMeasurement)
		}
	}
	for _, part := range []string{"device time of a step of splora splora:", "device time of a step of splora splora:memory=fused:", "spmm_bf16", "384 x 128"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, &out)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "gpu-products.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) != 4 {
		t.Fatalf("gpu-products.jsonl has %d lines", len(lines))
	}
	for _, line := range lines[1:] {
		var p GPUProduct
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if len(p.Dense) == 0 || len(p.Dense) != len(p.Sparse) || len(p.Ops) != 4 || !(p.Ratio() > 0) || !(p.Apart <= 1e-2) || p.Tokens != 24 {
			t.Errorf("%+v", p)
		}
	}
}
