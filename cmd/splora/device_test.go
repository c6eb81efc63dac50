package main

import (
	"strings"
	"testing"

	"github.com/splora/splora/model/compute/cpu"
)

func TestADeviceIsAutoCPUOrANumberedGPU(t *testing.T) {
	for name, want := range map[string]struct {
		n       int
		gpu, ok bool
	}{"auto": {0, false, true}, "cpu": {0, false, true}, "cuda": {0, true, true}, "cuda:3": {3, true, true},
		"cuda:": {}, "cuda:-1": {}, "cuda3": {}, "gpu": {}, "CPU": {}, "cuda:1:2": {}} {
		n, gpu, err := parseDevice(name)
		if (err == nil) != want.ok || n != want.n || gpu != want.gpu {
			t.Errorf("%q: %d, %v, %v", name, n, gpu, err)
		}
	}
}

func TestARankWithoutAGPUComputesOnTheCPUUnlessToldOtherwise(t *testing.T) {
	for _, name := range []string{"auto", "cpu", ""} {
		be, err := openDevice(name, false, 1, func(s string) { t.Errorf("%q notes %q", name, s) })
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := be.Backend.(*cpu.Backend); !ok || be.gpu != nil {
			t.Errorf("%q gives %s", name, be.Name())
		}
		be.Close()
	}
}

func TestAWrongDeviceIsAWrongUse(t *testing.T) {
	for _, args := range [][]string{
		{"train", "--model", "m", "--data", "d", "--out", "o", "--device", "tpu"},
		{"eval", "--model", "m", "--data", "d", "--device", "tpu"},
	} {
		if o := splora(t, args...); o.code != exitUsage || !strings.Contains(o.stderr, `--device "tpu"`) {
			t.Errorf("%v: exit code %d, %s", args, o.code, o.stderr)
		}
	}
}
