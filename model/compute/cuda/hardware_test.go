package cuda_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/splora/splora/model/compute/cuda/kernels"
)

// hardware reads hardware.txt: each thing and its result, "" where it has not run.
func hardware(t *testing.T) (things []string, result map[string]string) {
	t.Helper()
	text, err := os.ReadFile("hardware.txt")
	if err != nil {
		t.Fatal(err)
	}
	result = map[string]string{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if _, twice := result[f[0]]; twice || len(f) < 2 {
			t.Fatalf("hardware.txt: %q", line)
		}
		things = append(things, f[0])
		if result[f[0]] = strings.Join(f[1:], " "); result[f[0]] == "not run" {
			result[f[0]] = ""
		}
	}
	return things, result
}

// TestWhatHasNotRunOnAGPU prints the list (go test -v), and lets nothing leave it without a committed result.
func TestWhatHasNotRunOnAGPU(t *testing.T) {
	things, result := hardware(t)
	for _, m := range kernels.Modules {
		if !slices.Contains(things, "kernels/"+m) {
			t.Errorf("hardware.txt says nothing of kernels/%s", m)
		}
	}
	for _, thing := range things {
		path := result[thing]
		if path == "" {
			t.Logf("not run on a GPU: %s", thing)
			continue
		}
		if !strings.HasPrefix(path, "cmd/splora-bench/results/") {
			t.Errorf("%s: the result %s is not under cmd/splora-bench/results", thing, path)
		}
		raw, err := os.ReadFile(filepath.Join("..", "..", "..", path))
		if err != nil || !slices.Contains(strings.Split(string(raw), "\n"), "ran "+thing) {
			t.Errorf("%s: %s has no line %q (%v)", thing, path, "ran "+thing, err)
		}
	}
}
