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
	w := newWorld(t)
	for _, f := range files {
		c := train.Defaults()
		if err := c.ReadYAML(f); err != nil {
			t.Error(err)
		}
		c.Model, c.Data, c.Out = "model", train.List{"rows.jsonl"}, "out"
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		// What a user wants to know first, before there is any data.
		small := []string{"--seq", "64", "--targets", "q_proj"}
		must(t, append([]string{"plan", "--config", f, "--model", w.path("model")}, small...)...)
	}
}
