package train

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/launch"
)

func TestTheGPUOfRankZeroIsInTheMetricsAndTheProgressLine(t *testing.T) {
	j := newJob(t, 2)
	j.LogEvery = 1
	j.env = func(r int, e *Env) {
		mem, sick := int64(r+1)<<30, false
		e.Health = func() (launch.Health, bool) {
			h := launch.Health{MemUsed: mem, PowerW: 655.25, Util: 98, Throttle: launch.ThrottleIdle}
			if sick {
				h.Throttle, h.PowerW, h.Util = launch.ThrottlePowerCap|launch.ThrottleHWThermal, -1, -1
			}
			sick = true
			return h, true
		}
	}
	mustRun(t, j)
	got := records(t, j.Out)
	if g := got[0].GPU; g == nil || *g != (GPU{MemBytes: 1 << 30, PowerW: 655.25, Util: 98}) {
		t.Errorf("first step: %+v", g)
	}
	if g := got[1].GPU; g == nil || *g != (GPU{MemBytes: 1 << 30, PowerW: -1, Util: -1, Throttle: "power cap, thermal (hardware)"}) {
		t.Errorf("second step: %+v", g)
	}
	for _, want := range []string{"  gpu 1.1 GB 655 W 98 %  eta", "  gpu 1.1 GB (power cap, thermal (hardware))  eta"} {
		if !strings.Contains(j.progress.String(), want) {
			t.Errorf("progress %s\nwant %q in it", j.progress.String(), want)
		}
	}
	line, _, _ := bytes.Cut(metricsOf(t, j.Out), []byte("\n"))
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"gpu_mem_bytes": float64(1 << 30), "gpu_power_w": 655.25, "gpu_util": 98.0, "gpu_throttle": ""} {
		if fields[name] != want {
			t.Errorf("%s is %v, want %v", name, fields[name], want)
		}
	}
}

func TestWithoutAGPUNoFieldSpeaksOfOne(t *testing.T) {
	for name, health := range map[string]func() (launch.Health, bool){
		"no GPU":                      nil,
		"a driver that answers never": func() (launch.Health, bool) { return launch.Health{}, false },
	} {
		j := newJob(t, 1)
		j.MaxSteps = 1
		j.env = func(_ int, e *Env) { e.Health = health }
		mustRun(t, j)
		if b := metricsOf(t, j.Out); bytes.Contains(b, []byte("gpu")) || strings.Contains(j.progress.String(), "gpu") {
			t.Errorf("%s: %s\n%s", name, b, j.progress.String())
		}
	}
}

func metricsOf(t *testing.T, out string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
