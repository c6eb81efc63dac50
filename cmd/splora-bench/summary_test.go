package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheSummaryOfARawFileHasItsMediansAndRatios(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw.jsonl")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	e := json.NewEncoder(f)
	one := setting{shape{Hidden: 64, Seq: 10}, "none", 2, "float32", "2:4"}
	two := setting{shape{Hidden: 64, Seq: 10}, "block", 2, "bfloat16", "0.7"}
	put := func(v any) {
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	put(header{Kind: "header", Command: []string{"splora-bench"}})
	for round := range 3 {
		k := float64(round + 1)
		put(record{Kind: "run", Who: whoSplora, Method: "splora", Setting: one, Round: round + 1, Measurement: at(k, 30e6, 0)})
		put(record{Kind: "run", Who: whoTorch, Method: "lora", Setting: one, Round: round + 1, Measurement: at(3*k, 100e6, 0)})
		put(record{Kind: "run", Who: whoTorch, Method: "splora-naive", Setting: one, Round: round + 1, Measurement: at(9*k, 100e6, 0)})
		put(record{Kind: "run", Who: whoTorch, Method: "splora-recompute", Setting: one, Round: round + 1, Measurement: at(5*k, 100e6, 0)})
	}
	put(record{Kind: "ops", Who: whoSplora, Method: "splora", Setting: one, Measurement: at(77, 1, 0)})
	put(record{Kind: "run", Who: whoSplora, Method: "splora:memory=fused", Setting: two, Round: 1, Measurement: at(0.25, 9e6, 0)})
	put(record{Kind: "run", Who: whoTorch, Method: "lora", Setting: two, Round: 1, Error: "out of luck"})
	f.Close()
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"summary", file}, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	for _, want := range []string{
		"| 64 · 10 | float32 | 2:4 | none | 2 | 2 s, 30 MB | 6 s, 100 MB | 10 s, 100 MB (recompute) | 3.00 (3.00) | 5.00 (5.00) | 0.30 |\n",
		"| 64 · 10 | bfloat16 | 0.7 | block | 2 | 0.25 s, 9 MB splora:memory=fused | – | – | – | – | – |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
}

func TestASummaryOfWhatIsNoRawFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw.jsonl")
	if err := os.WriteFile(file, []byte("hidden 512\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"summary", file}, {"summary", file + "x"}} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), args, &out, &errs); code != 1 || !strings.Contains(errs.String(), "raw.jsonl") {
			t.Errorf("%v: exit %d, %s", args, code, &errs)
		}
	}
}

func TestTheBreakdownSumsKindsAndNamesTheRest(t *testing.T) {
	m := *at(2, 0, 0)
	m.Backend, m.Peak = "cpu", 5e9
	m.Ops = []Op{
		{Name: "gemm", Calls: 2, Seconds: 0.5, Flops: 1e9, Alone: 0.2}, {Name: "gemm", Shape: "other", Calls: 1, Seconds: 0.5, Flops: 2e9, Alone: 0.4},
		{Name: "norm", Calls: 4, Seconds: 0.25, Bytes: 1e9},
	}
	text := breakdown(m)
	for _, want := range [][]string{{"gemm", "3", "1000.0", "50.0", "%", "4", "5", "0.0"}, {"norm", "4", "250.0", "12.5", "%", "16.0"}, {"rest", "750.0", "37.5", "%"}} {
		if !hasRow(text, want) {
			t.Errorf("no row %v in:\n%s", want, text)
		}
	}
	if !strings.Contains(text, "products, merges and attention: 50 % of the step; by themselves they would take 40 % of it") {
		t.Errorf("the whole is not told:\n%s", text)
	}
}

func TestTheSummarysExampleIsOfFilesThatAreThere(t *testing.T) {
	t.Chdir("../..")
	words := strings.Fields(newSummary().Example)
	files, err := filepath.Glob(words[len(words)-1])
	if err != nil || len(files) == 0 {
		t.Fatalf("%q: %v, %v", words, files, err)
	}
	var out, errs bytes.Buffer
	if code := run(context.Background(), append([]string{"summary"}, files...), &out, &errs); code != 0 || !strings.Contains(out.String(), "| 512 · 512 |") {
		t.Errorf("exit %d: %s\n%s", code, &errs, &out)
	}
}
