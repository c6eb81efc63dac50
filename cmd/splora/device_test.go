package main

import (
	"encoding/json"
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
		be, err := openDevice(name, false, 1, false, func(s string) { t.Errorf("%q notes %q", name, s) })
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

func TestAPlanForAGPUNeedsNone(t *testing.T) {
	w := newWorld(t)
	var host, device struct {
		Linears int `json:"linears_bytes"`
		Tables  int `json:"tables_bytes"`
		Process int `json:"process_bytes"`
		Total   int `json:"total_bytes"`
		Plan    struct{ Slot, Stack, Rope, Adapters, Gradients, Moments, Scratch int }
		Device  *struct{ Before, Library, Own, Arena int }
	}
	for to, args := range map[any][]string{&host: {"cpu"}, &device: {"cuda", "--dtype", "bfloat16"}} {
		args = append([]string{"plan", "--model", w.path("model"), "--json", "--rank", "3", "--device"}, args...)
		if err := json.Unmarshal([]byte(ok(t, args...).stdout), to); err != nil {
			t.Fatal(err)
		}
	}
	if host.Device != nil || device.Device == nil {
		t.Fatalf("%+v, %+v", host, device)
	}
	d, p := device.Device, device.Plan
	if device.Process != 0 || device.Linears != host.Linears || device.Tables != host.Tables || 2*p.Slot != host.Plan.Slot {
		t.Errorf("%+v, on the host %+v", device, host)
	}
	if sum := device.Linears + device.Tables + p.Slot + p.Stack + p.Rope + p.Adapters + p.Gradients + p.Moments + p.Scratch; device.Total != sum || d.Arena != sum+d.Own {
		t.Errorf("in all %d and an arena of %d; the parts are %d, and %d of the backend's own", device.Total, d.Arena, sum, d.Own)
	}
	if d.Before == 0 || d.Library == 0 || d.Own < 32<<20 {
		t.Errorf("%+v", d)
	}
}
