//go:build cuda

package cuda

import (
	"strings"
	"testing"
)

func TestAnOldDriverAndAnOldGPUAreTold(t *testing.T) {
	for _, c := range []struct {
		version, major, minor int
		says                  string
	}{{11080, 8, 0, ""}, {13020, 12, 1, ""}, {12040, 9, 0, ""}, {12040, 7, 5, "compute capability 7.5"}, {11070, 9, 0, "CUDA 11.7"}, {-1, 9, 0, "update the driver"}} {
		err := able(c.version, c.major, c.minor)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAKernelThatWantsMoreSharedMemoryThanThereIsIsTold(t *testing.T) {
	if err := shares(99<<10, 99<<10); err != nil {
		t.Error(err)
	}
	if err := shares(101<<10, 99<<10); err == nil || !strings.Contains(err.Error(), "103424 bytes") || !strings.Contains(err.Error(), "at most 101376") {
		t.Error(err)
	}
}

func TestTheLastOperationsAreToldNewestFirst(t *testing.T) {
	var r recent
	if r.String() != "" {
		t.Errorf("%q of nothing", r.String())
	}
	for _, op := range strings.Fields("a b c d e f g h i j") {
		r.add(op)
	}
	if r.String() != "j, i, h, g, f, e, d, c" {
		t.Errorf("%q", r.String())
	}
}
