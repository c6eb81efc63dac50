//go:build cuda

package libcuda

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/cu"
)

// TestEveryDriverFunctionThatIsCalledHasAJump reads what the compiled packages leave undefined, with whatever headers they were
// compiled: so it fails for a new header that renames a function.
func TestEveryDriverFunctionThatIsCalledHasAJump(t *testing.T) {
	text, err := os.ReadFile("symbols.txt")
	if err != nil {
		t.Fatal(err)
	}
	have := strings.Fields(string(text))
	if !slices.IsSorted(have) || len(slices.Compact(slices.Clone(have))) != len(have) {
		t.Error("symbols.txt is not sorted, or holds a name twice")
	}
	for _, pkg := range []string{"gorgonia.org/cu", "github.com/splora/splora/model/compute/cuda/internal/driver"} {
		out, err := exec.Command("go", "list", "-tags", "cuda", "-export", "-f", "{{.Export}}", pkg).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", pkg, err)
		}
		listing, err := exec.Command("nm", strings.TrimSpace(string(out))).Output() // it warns of the archive's Go parts
		if len(listing) == 0 {
			t.Fatalf("nm: %v", err)
		}
		n := 0
		for line := range strings.Lines(string(listing)) {
			f := strings.Fields(line)
			if len(f) != 2 || f[0] != "U" || !strings.HasPrefix(f[1], "cu") || strings.Contains(string(listing), " T "+f[1]+"\n") {
				continue // not undefined, not the driver's, or another C file's of the package
			}
			if n++; !slices.Contains(have, f[1]) {
				t.Errorf("%s calls %s: add it to symbols.txt and run go generate", pkg, f[1])
			}
		}
		if n < 5 {
			t.Errorf("only %d calls of the driver were found in %s: the test is broken", n, pkg)
		}
	}
}

func TestTheGeneratedFilesAreThoseOfTheList(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "gen.go", "-out", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range []string{"names.h", "tramp_linux_amd64.S", "tramp_linux_arm64.S", "stub/libcuda.a"} {
		got, err1 := os.ReadFile(f)
		want, err2 := os.ReadFile(filepath.Join(dir, f))
		if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen.go writes (%v, %v): run go generate", f, err1, err2)
		}
	}
}

func TestTheProgramAsksTheLoaderForNoCUDALibrary(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("readelf", "-d", exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("NEEDED")) || bytes.Contains(out, []byte("libcuda")) || bytes.Contains(out, []byte("libcublas")) {
		t.Errorf("dynamic section:\n%s", out)
	}
}

// TestStatusSaysWhyThereIsNoDriver holds on any machine: a driver that works gives 0, and only a missing library has a why.
func TestStatusSaysWhyThereIsNoDriver(t *testing.T) {
	if cu.Version() < -1 { // cu is linked: its init has called cuInit
		t.Fatal()
	}
	rc, why := Status()
	t.Logf("cuInit gave %d; the loader said %q", rc, why)
	if rc == NoLibrary != (why != "") {
		t.Errorf("cuInit gave %d, and the loader said %q", rc, why)
	}
}
