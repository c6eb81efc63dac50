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

func TestTheCollectiveIsMeasuredAlsoWithoutAPeer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw.jsonl")
	var out, errs bytes.Buffer
	args := []string{"collective", "--world", "3", "--megabytes", "0.01,1.5", "--times", "2", "--rounds", "2", "--python", "/nonexistent/python", "--out", file}
	if code := run(context.Background(), args, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &out, &errs)
	}
	if !strings.Contains(errs.String(), "no gloo beside it") || !strings.Contains(out.String(), "between 3 processes") {
		t.Errorf("%s%s", &errs, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want a header and two measurements:\n%s", len(lines), text)
	}
	var rec collectiveRecord
	if err := json.Unmarshal([]byte(lines[2]), &rec); err != nil || rec.Round != 2 || rec.World != 3 || len(rec.Seconds) != 2 || len(rec.Seconds[1]) != 2 || rec.Seconds[1][0] <= 0 {
		t.Errorf("%+v, %v", rec, err)
	}
}

func TestAVectorMustHaveASize(t *testing.T) {
	for _, mb := range []string{"NaN", "Inf", "-Inf", "-1", "0", "1e-9", "1e300", "1,NaN"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"collective", "--megabytes", mb}, &out, &errs); code != 2 || !strings.Contains(errs.String(), "--megabytes") {
			t.Errorf("%s MiB: exit %d: %s", mb, code, &errs)
		}
	}
}
