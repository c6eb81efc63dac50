package kernels

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryPTXIsOfItsSource(t *testing.T) {
	for _, m := range Modules {
		want, err := Stamp(os.DirFS("."), m)
		if err != nil {
			t.Fatal(err)
		}
		line, text, _ := strings.Cut(string(PTX(m)), "\n")
		if line != want {
			t.Errorf("%s.ptx is stale: compile it again (internal/gen says how)", m)
		}
		if !strings.Contains(text, "\n.version 7.8\n.target sm_80\n") || !strings.HasSuffix(text, "}\n\n\x00") {
			t.Errorf("%s.ptx is not the whole of PTX 7.8 for sm_80", m)
		}
	}
}

func TestRegistersAreThoseOfTheKernelsAndFewAreSpilled(t *testing.T) {
	text, err := os.ReadFile("registers.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Stamps(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] != want {
		t.Errorf("registers.txt is stale: internal/gen -ptxas writes it")
	}
	kernels := 0
	for _, m := range Modules {
		kernels += strings.Count(string(PTX(m)), ".visible .entry ")
	}
	if len(lines[2:]) != 2*kernels {
		t.Errorf("%d rows for %d kernels on two architectures", len(lines[2:]), kernels)
	}
	for _, line := range lines[2:] {
		var arch, name string
		var registers, stores, loads int
		if _, err := fmt.Sscanf(line, "%s %s %d registers %d stores %d loads", &arch, &name, &registers, &stores, &loads); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if registers > 255 || stores > 96 || loads > 128 {
			t.Errorf("%s spills: its speed is not what its source promises", line)
		}
	}
}

func TestEveryFileIsAModule(t *testing.T) {
	for _, pattern := range []string{"*.cu", "*.ptx"} {
		list, err := filepath.Glob(pattern)
		if err != nil || len(list) != len(Modules) {
			t.Errorf("%d modules, %s gives %v, %v", len(Modules), pattern, list, err)
		}
	}
}

func TestAStampTellsOfEveryChange(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.cu": "#include \"b.cuh\"\nx", "b.cuh": "#include \"c.cuh\"\ny", "c.cuh": "z"} {
		write(t, dir, name, text)
	}
	stamp := func() string {
		s, err := Stamp(os.DirFS(dir), "a")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := stamp()
	if before != stamp() {
		t.Fatal("a stamp changes by itself")
	}
	write(t, dir, "c.cuh", "zz")
	if before == stamp() {
		t.Error("a change two inclusions away is not seen")
	}
	if _, err := Stamp(os.DirFS(dir), "none"); err == nil {
		t.Error("a missing source has a stamp")
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
