package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/splora/splora/cmd/internal/train"
)

// tiny is a model folder that trains in milliseconds, and its shape.
func tiny(t *testing.T) (string, shape) {
	t.Helper()
	s, err := parseShape("64x19", 2, 97, 3)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.model(t.Context(), t.TempDir(), "2:4", "bfloat16")
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func tinyConfig(dir string, s shape) train.Config {
	c := train.Defaults()
	c.Model, c.Data, c.Out = dir, train.List{"-"}, "-"
	c.Seq, c.MicroBatch, c.Rank, c.MaxSteps, c.Threads = s.Seq, s.Batch, 4, 4, 2
	return c
}

func TestAMeasurementSaysWhatWasTrainedAndWhatItTook(t *testing.T) {
	dir, s := tiny(t)
	for _, method := range []string{"splora", "lora"} {
		for _, recompute := range []string{"none", "block"} {
			c := tinyConfig(dir, s)
			c.Method, c.Recompute = method, recompute
			began := time.Now().Add(-time.Hour)
			m, err := measure(c, began, observe{})
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Steps) != 3 || len(m.Work) != 3 || !(m.Step() > 0) || !(m.First >= 3600) {
				t.Errorf("%s %s: steps %v, work %v, first %v; want 3 of each, and a first step an hour after the beginning", method, recompute, m.Steps, m.Work, m.First)
			}
			if want := 2 * 4 * (4*(64+64) + 3*(64+172)); m.Trained != want {
				t.Errorf("%s %s: %d trained values, want %d", method, recompute, m.Trained, want)
			}
			// A random model knows nothing: ln V per token, a little more or less.
			if !(math.Abs(m.Loss-math.Log(97)) <= 0.3) {
				t.Errorf("%s %s: loss %v, ln 97 is %v", method, recompute, m.Loss, math.Log(97))
			}
			if !(m.Planned >= m.Stack+m.Base && m.Stack > 0 && m.Base > 0) {
				t.Errorf("%s %s: planned %d, base %d, stack %d", method, recompute, m.Planned, m.Base, m.Stack)
			}
			if m.Threads != 2 || m.Recompute != recompute || m.DType != "float32" {
				t.Errorf("%s %s: measured %+v", method, recompute, m)
			}
		}
	}
}

func TestKeepingActivationsPlansMoreThanRecomputingThem(t *testing.T) {
	dir, s := tiny(t)
	var stack [2]int
	for i, r := range []string{"none", "block"} {
		c := tinyConfig(dir, s)
		c.Recompute = r
		m, err := measure(c, time.Now(), observe{})
		if err != nil {
			t.Fatal(err)
		}
		stack[i] = m.Stack
	}
	if stack[0] <= stack[1] {
		t.Errorf("none plans %d bytes of activations, block %d", stack[0], stack[1])
	}
}

func TestThePeakCountsWhatThisProcessTouched(t *testing.T) {
	block := bytes.Repeat([]byte{1}, 64<<20)
	now, peak := resident()
	if now == 0 {
		t.Skip("this system does not tell what is resident")
	}
	if now < int64(len(block)) || peak < now {
		t.Errorf("%d bytes are resident and at most %d were, with %d allocated and written", now, peak, len(block))
	}
	runtime.KeepAlive(block)
}

func TestStepPrintsOneLineOfJSON(t *testing.T) {
	dir, _ := tiny(t)
	var out, errs bytes.Buffer
	code := run(context.Background(), []string{"step", "--model", dir, "--seq", "9", "--max-steps", "3", "--rank", "2", "--threads", "1"}, &out, &errs)
	var m Measurement
	if err := json.Unmarshal(out.Bytes(), &m); code != 0 || err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Fatalf("exit %d, %v: %s%s", code, err, &out, &errs)
	}
	if len(m.Steps) != 2 || m.PeakRSS < m.EmptyRSS {
		t.Errorf("measured %+v", m)
	}
}

func TestAWrongStepIsRefused(t *testing.T) {
	dir, _ := tiny(t)
	for _, args := range [][]string{
		{"step", "--model", dir, "--max-steps", "1"},
		{"step", "--model", dir, "--method", "full"},
		{"step", "--model", dir, "--save-every", "3"},
		{"step"},
	} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), args, &out, &errs); code != 2 || out.Len() > 0 {
			t.Errorf("%v: exit %d, %s%s", args, code, &out, &errs)
		}
	}
}
