package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/splora/splora/model/family"
)

// The walk over the kept weights and the dense slot are two programs for one formula: loss and every adapter's gradient agree to the
// rounding of float32 sums, and differ, for they sum in other orders.
func TestTheTwinsOfAStepAgreeInLossAndInEveryGradient(t *testing.T) {
	for _, flags := range [][]string{
		{"--seq", "130", "--rank", "5", "--micro-batch", "2"},
		{"--seq", "77", "--recompute", "none", "--targets", "q_proj,down_proj", "--rslora"},
	} {
		o := sizeConfig{layers: 2, vocab: 300, pattern: "2:4"}
		r, err := o.parse("192x130")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir() + "/model"
		if err := family.Init(t.Context(), dir, family.InitConfig{Config: r.shape.config(), Pattern: "2:4", Packed: true, Seed: 4}); err != nil {
			t.Fatal(err)
		}
		twin, err := o.compareTwin(append([]string{"--model", dir, "--memory", "fused"}, flags...))
		if err != nil {
			t.Fatal(err)
		}
		if !(twin.LossOff <= 1e-6) || !(twin.WorstOff <= 3e-5) || !(twin.AllOff <= 1e-5) {
			t.Errorf("%v: %+v", flags, *twin)
		}
		if !(twin.Norm > 1) || twin.Walked != 14 || twin.AllOff == 0 || twin.Worst == "" {
			t.Errorf("%v: nothing was compared: %+v", flags, *twin)
		}
	}
}

func TestAGradientOfAnotherLayerShowsInTheTwins(t *testing.T) {
	if d := offBy([]float32{1, 2, 2.5}, []float32{1, 2, 2}); !(math.Abs(d-0.5/3) < 1e-9) {
		t.Errorf("distance %v", d)
	}
	if d := offBy([]float32{float32(math.NaN())}, []float32{1}); d <= 1 {
		t.Errorf("NaN is %v off", d)
	}
}

func TestAFormThatThereIsNotIsRefused(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"size", "--format", "foo"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), `--format "foo": packed or hf`) {
		t.Errorf("exit %d: %s", code, &errs)
	}
}

func TestAShapeThatIsNoneIsToldOfItsFlag(t *testing.T) {
	for command, flag := range map[string]string{"size": "--runs", "cpu": "--shapes"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{command, flag, "foo"}, &out, &errs); code != 2 || !strings.Contains(errs.String(), flag) || !strings.Contains(errs.String(), `"foo"`) {
			t.Errorf("%s: exit %d: %s", command, code, &errs)
		}
	}
}

func TestARunIsReadAsShapeAndFlags(t *testing.T) {
	o := sizeConfig{layers: 3, vocab: 99, pattern: "2:4", format: "packed"}
	r, err := o.parse("13bx256:dtype=bfloat16:rank=8")
	if err != nil || r.shape.Hidden != 5120 || r.shape.Inter != 13824 || r.shape.Layers != 40 || r.shape.Seq != 256 || strings.Join(r.flags, " ") != "--memory fused --dtype=bfloat16 --rank=8" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = o.parse("64x32"); err != nil || r.shape.Layers != 3 || r.shape.Vocab != 99 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"", "7b", "70bx1", "65x32", "64"} {
		if _, err := o.parse(bad); err == nil {
			t.Errorf("%q is a run", bad)
		}
	}
}
