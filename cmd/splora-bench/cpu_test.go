package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain lets this test's program stand for splora-bench where it starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"step", "gpu-step", "gpu-product", "collective-rank"}, os.Args[1]) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(tests(m))
}

// script writes an executable that stands for Python.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// cpuRun measures a tiny shape once, with python as the peer's interpreter.
func cpuRun(t *testing.T, python string, more ...string) (stdout string, raw []map[string]any) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "raw.jsonl")
	args := append([]string{"cpu", "--shapes", "64x8", "--layers", "1", "--vocab", "65", "--rank", "2", "--steps", "2", "--rounds", "2", "--threads", "1",
		"--recompute", "none", "--python", python, "--out", file}, more...)
	var out, errs bytes.Buffer
	if code := run(context.Background(), args, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &out, &errs)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		raw = append(raw, m)
	}
	return out.String(), raw
}

func TestWithoutAPeerThereIsANoteAndATable(t *testing.T) {
	for _, c := range []struct{ python, note string }{
		{filepath.Join(t.TempDir(), "nowhere"), "no such file"},
		{script(t, "echo 'PackageNotFoundError: No package metadata was found for peft' >&2; exit 1"), "No package metadata was found for peft"},
		{script(t, "echo hello"), "needs torch, transformers and peft"},
	} {
		out, raw := cpuRun(t, c.python)
		if !strings.Contains(out, "no PyTorch beside it: "+c.python) || !strings.Contains(out, c.note) {
			t.Errorf("no note of %q in:\n%s", c.note, out)
		}
		if !strings.Contains(out, "ratios to splora lora") || len(raw) != 1+2*2+1 || !strings.Contains(out, "where a step of") {
			t.Errorf("%d records and\n%s", len(raw), out)
		}
	}
}

func TestTheRawFileBeginsWithTheCommandAndTakesTurns(t *testing.T) {
	_, raw := cpuRun(t, "", "--peers", "", "--methods", "splora,lora:rank=3")
	h := raw[0]
	for _, key := range []string{"command", "versions", "cpu", "cpus", "load_average", "time"} {
		if h[key] == nil || h["kind"] != "header" {
			t.Errorf("the header %v has no %s", h, key)
		}
	}
	var order []string
	if last := raw[len(raw)-1]; last["kind"] != "ops" || last["ops"] == nil {
		t.Errorf("the last record %v does not say where the time goes", last)
	}
	for _, r := range raw[1 : len(raw)-1] {
		order = append(order, r["method"].(string))
		if r["planned_bytes"].(float64) <= r["stack_bytes"].(float64) || r["setting"].(map[string]any)["threads"] != 1.0 {
			t.Errorf("record %v", r)
		}
	}
	if got := strings.Join(order, " "); got != "splora lora:rank=3 splora lora:rank=3" {
		t.Errorf("measured in the order %s", got)
	}
	if two, three := raw[1]["trained_values"].(float64), raw[2]["trained_values"].(float64); 3*two != 2*three {
		t.Errorf("rank 2 trains %v values, rank 3 %v", two, three)
	}
}

func TestAPeerIsToldTheSettingAndItsFiguresAreRead(t *testing.T) {
	python := script(t, `if [ "$1" = -c ]; then echo '{"torch":"9","transformers":"8","peft":"7","python":"6"}'; exit; fi
grep -q MergeAgain || exit 3
case "$*" in
"- --method lora --recompute none --pattern 2:4 --dtype float32 --alpha 32 --hidden 64 --inter 172 --layers 1 --heads 1 --vocab 65 --seq 8 --batch 1 --rank 2 --steps 3 --threads 1 --began "*)
  [ "$OMP_NUM_THREADS" = 1 ] && echo noise && echo '{"steps_s":[3,1,2],"work_s":[1],"first_step_s":9,"making_s":4,"peak_rss_bytes":7000000,"empty_rss_bytes":3000000}' ;;
*) echo 'RuntimeError: out of luck' >&2; exit 1 ;;
esac`)
	out, raw := cpuRun(t, python)
	if !strings.Contains(out, "torch splora-naive failed: exit status 1: RuntimeError: out of luck") {
		t.Errorf("the failure is not told:\n%s", out)
	}
	want := []string{"torch", "lora", "2.000", "4", "1.00", "x", "1.00", "1.00", "7", "1.00", "4", "1.00", "-", "5.00"}
	if !hasRow(out, want) {
		t.Errorf("no row %v in:\n%s", want, out)
	}
	if !hasRow(out, []string{"torch", "splora-naive", "failed"}) || len(raw) != 1+2*5+1 {
		t.Errorf("%d records and\n%s", len(raw), out)
	}
	if v := raw[0]["versions"].(map[string]any); v["torch"] != "9" || v["go"] == nil {
		t.Errorf("versions %v", v)
	}
}

func hasRow(table string, want []string) bool {
	for line := range strings.Lines(table) {
		if strings.Join(strings.Fields(line), " ") == strings.Join(want, " ") {
			return true
		}
	}
	return false
}

func TestWhatCannotBeMeasuredIsRefused(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--shapes", "512"}, {"--shapes", "100x64"}, {"--shapes", "512x64y"}, {"--shapes", ""}, {"--recompute", "some"}, {"--methods", "full"}, {"--peers", "qlora"},
		{"--patterns", "5:4"}, {"--dtypes", "float16"}, {"--storage", "int3"}, {"--steps", "0"}, {"--threads", "0"}, {"--peers", "", "--out", there}, {"more"},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), append([]string{"cpu"}, args...), &out, &errs); code != 2 {
			t.Errorf("%v: exit %d, %s%s", args, code, &out, &errs)
		}
	}
}

func TestASignalEndsTheRunInWords(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"cpu", "--shapes", "64x8", "--layers", "1", "--vocab", "65", "--peers", ""}, &out, &errs)
	if code != 1 || errs.String() != "splora-bench: stopped on a signal; --out has what was measured\n" || out.Len() > 0 {
		t.Errorf("exit %d: %s%s", code, &out, &errs)
	}
}
