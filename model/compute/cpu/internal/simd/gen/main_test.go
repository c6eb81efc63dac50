package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheCommittedAssemblyIsWhatTheGeneratorPrints(t *testing.T) {
	for name, want := range files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is stale: run go generate in model/compute/cpu/internal/simd", name)
		}
	}
}
