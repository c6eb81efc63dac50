//go:build linux

package launch

import (
	"slices"
	"strings"
	"testing"
)

func uuids(gpus []GPU) (out []string) {
	for _, g := range gpus {
		out = append(out, g.UUID)
	}
	return out
}

func TestVisibleDevicesAreIndicesUUIDsOrBeginningsOfThem(t *testing.T) {
	s := h200s(4)
	s.gpus = slices.Insert(s.gpus, 2, GPU{UUID: "MIG-11", Parent: s.uuid(1), Name: "MIG 1g.18gb"}, GPU{UUID: "MIG-12", Parent: s.uuid(1)})
	g0, g1, g2, g3 := s.uuid(0), s.uuid(1), s.uuid(4), s.uuid(5)
	for _, c := range []struct {
		env  string
		want []string // nil: an error with text in it
		text string
	}{
		{"", []string{g0, g1, g2, g3}, ""},
		{"CUDA_VISIBLE_DEVICES=2,0", []string{g2, g0}, ""},
		{"CUDA_VISIBLE_DEVICES= 3 , 1 ", []string{g3, g1}, ""},
		{"CUDA_VISIBLE_DEVICES=0,-1,1", []string{g0}, ""},
		{"CUDA_VISIBLE_DEVICES=1,NoDevFiles", []string{g1}, ""},
		{"CUDA_VISIBLE_DEVICES=" + g3 + "," + g0, []string{g3, g0}, ""},
		{"CUDA_VISIBLE_DEVICES=GPU-a,GPU-b", []string{g3, g2}, ""},
		{"CUDA_VISIBLE_DEVICES=MIG-12,0", []string{"MIG-12", g0}, ""},
		{"CUDA_VISIBLE_DEVICES=", nil, "hides all GPUs"},
		{"CUDA_VISIBLE_DEVICES=-1", nil, "hides all GPUs"},
		{"CUDA_VISIBLE_DEVICES=4", nil, "there is no GPU 4: this machine has 4"},
		{"CUDA_VISIBLE_DEVICES=0,0", nil, "0 is named twice"},
		{"CUDA_VISIBLE_DEVICES=0," + g0, nil, "is named twice"},
		{"CUDA_VISIBLE_DEVICES=GPU-x", nil, "no GPU or MIG instance"},
		{"CUDA_VISIBLE_DEVICES=GPU-", nil, "is the beginning of 4 UUIDs"},
		{"CUDA_VISIBLE_DEVICES=MIG-1", nil, "is the beginning of 2 UUIDs"},
		{"CUDA_VISIBLE_DEVICES=x", nil, "no GPU or MIG instance of this machine is x"},
	} {
		var env []string
		if c.env != "" {
			env = []string{"CUDA_VISIBLE_DEVICES=overridden", c.env}
		}
		got, err := visible(s.gpus, env)
		if HidesGPUs(env) != (c.text == "hides all GPUs") {
			t.Errorf("%s hides all GPUs: %v", c.env, HidesGPUs(env))
		}
		if c.want != nil && (err != nil || !slices.Equal(uuids(got), c.want)) || c.want == nil && (err == nil || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v, error %v; want %v %s", c.env, uuids(got), err, c.want, c.text)
		}
	}
}

// CUDA counts the fastest first, the driver by the bus: an index means one GPU only where both agree.
func TestAnIndexAmongGPUsOfSeveralModelsIsRefusedUnlessTheOrderIsSaid(t *testing.T) {
	s := h200s(2)
	s.gpus[0].Name = "NVIDIA T4"
	_, err := visible(s.gpus, []string{"CUDA_VISIBLE_DEVICES=0"})
	if err == nil || !strings.Contains(err.Error(), "CUDA_DEVICE_ORDER=PCI_BUS_ID") || !strings.Contains(err.Error(), s.uuid(0)) {
		t.Errorf("error %v", err)
	}
	for _, env := range [][]string{{"CUDA_VISIBLE_DEVICES=0", "CUDA_DEVICE_ORDER=PCI_BUS_ID"}, {"CUDA_VISIBLE_DEVICES=" + s.uuid(0)}} {
		if got, err := visible(s.gpus, env); err != nil || len(got) != 1 || got[0].Name != "NVIDIA T4" {
			t.Errorf("%v: %v, error %v", env, got, err)
		}
	}
}
