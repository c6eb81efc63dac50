// Package cmd_test keeps the rooms apart: who may import whom is policy, read from the sources.
package cmd_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/splora/splora"

// may lists, for each room, the rooms of ours that its code (not its tests) may import. A room ending in /... covers
// what lies below it.
var may = map[string][]string{
	"model":                       {},
	"model/tensor":                {},
	"data":                        {"data/tokenizer", "data/jinja"},
	"data/jinja":                  {},
	"data/tokenizer":              {},
	"launch":                      {},
	"nccl":                        {},
	"dist/rendezvous":             {},
	"dist":                        {"dist/rendezvous", "nccl"},
	"model/sparse":                {"model/tensor"},
	"model/safetensors":           {"model/tensor", "model/sparse"},
	"model/compute":               {"model/tensor", "model/sparse"},
	"model/compute/cpu":           {"model/tensor", "model/sparse", "model/compute"},
	"model/compute/cuda":          {"model/tensor", "model/sparse", "model/compute", "model/compute/cuda/kernels"},
	"model/compute/cuda/kernels":  {},
	"model/compute/cuda/cudatest": {"model/compute/cuda"},
	"model/compute/computetest":   {"model/tensor", "model/sparse", "model/compute"},
	"optim":                       {"model/tensor", "model/sparse", "model/compute"},
	"model/lora":                  {"model/tensor", "model/sparse", "model/compute"},
	"model/decoder":               {"model/tensor", "model/sparse", "model/compute", "model/lora"},
	"model/prune":                 {"model/tensor", "model/sparse", "model/compute", "model/lora"},
	"model/family":                {"model/tensor", "model/sparse", "model/safetensors", "model/compute", "model/lora", "model/decoder"},
	"cmd/internal/quickstart":     {"launch", "data", "data/tokenizer"},
	"cmd/splora":                  {"..."},
	"cmd/splora-launch":           {"..."},
	"cmd/splora-bench":            {"..."},
}

// barred is what no cmd/internal room may import: only cmd/* names a backend or a family.
var barred = []string{"model/compute/cpu", "model/compute/cuda", "model/family"}

func TestEachRoomImportsOnlyWhatItsLayerAllows(t *testing.T) {
	root, seen := "..", 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		room := filepath.ToSlash(rel)
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			if to, ours := strings.CutPrefix(unquote(im.Path.Value), module+"/"); ours {
				seen++
				if !allowed(room, to) {
					t.Errorf("%s imports %s: its layer does not allow that", path, to)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d imports of ours were found: the walk is broken", seen)
	}
}

// allowed: a room's own internal packages, what the table says, and for cmd/internal all but the barred rooms.
func allowed(room, to string) bool {
	if owner, _, internal := strings.Cut(to, "/internal"); internal && owner != "cmd" {
		return room == owner || strings.HasPrefix(room, owner+"/")
	}
	if owner, _, internal := strings.Cut(room, "/internal"); internal && owner != "cmd" {
		return to == owner || allowed(owner, to) // a tool beside its package
	}
	list, listed := may[room]
	if !listed && strings.HasPrefix(room, "cmd/internal/") {
		for _, b := range barred {
			if to == b {
				return false
			}
		}
		return !strings.HasPrefix(to, "cmd/splora")
	}
	for _, l := range list {
		if l == "..." || l == to {
			return true
		}
	}
	return false
}

func unquote(s string) string {
	s, _ = strconv.Unquote(s)
	return s
}

func TestTheLayerRuleRefusesWhatItShould(t *testing.T) {
	for _, c := range []struct {
		room, to string
		ok       bool
	}{
		{"model/tensor", "model/sparse", false},
		{"dist", "model/tensor", false},
		{"launch", "dist", false},
		{"model/decoder", "model/compute/cpu", false},
		{"cmd/internal/train", "model/family", false},
		{"cmd/internal/train", "model/decoder", true},
		{"cmd/splora", "model/compute/cpu", true},
		{"optim", "model/lora", false},
	} {
		if allowed(c.room, c.to) != c.ok {
			t.Errorf("%s → %s: allowed = %v", c.room, c.to, !c.ok)
		}
	}
}
