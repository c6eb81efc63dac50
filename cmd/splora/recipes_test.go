package main

import (
	"path/filepath"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
)

func TestEveryRecipeIsAValidConfiguration(t *testing.T) {
	files, err := filepath.Glob("recipes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		c := train.Defaults()
		if err := c.ReadYAML(f); err != nil {
			t.Error(err)
		}
		c.Model, c.Data, c.Out = "model", train.List{"rows.jsonl"}, "out"
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
