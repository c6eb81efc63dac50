package train

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	"github.com/splora/splora/launch"
)

// GPU is rank 0's GPU in a record, as the driver saw it at most a second before the step's end. A run without GPUs has none of it.
type GPU struct {
	MemBytes int64   `json:"gpu_mem_bytes"` // in use, by all processes
	PowerW   float64 `json:"gpu_power_w"`   // −1: the device does not tell; so below
	Util     int     `json:"gpu_util"`      // percent of the driver's last sample period in which a kernel ran
	Throttle string  `json:"gpu_throttle"`  // why its clocks are below their maximum; "" = they are not
}

// gpu is the rank's GPU now; nil without one, or when the driver does not answer.
func (t *trainer) gpu() *GPU {
	if t.Health == nil {
		return nil
	}
	h, ok := t.Health()
	if !ok {
		return nil
	}
	return &GPU{MemBytes: h.MemUsed, PowerW: h.PowerW, Util: h.Util, Throttle: (h.Throttle &^ launch.ThrottleIdle).String()}
}

// line is the GPU's part of the progress line.
func (g *GPU) line() string {
	if g == nil {
		return ""
	}
	s := "  gpu " + humanize.Bytes(uint64(g.MemBytes))
	if g.PowerW >= 0 {
		s += fmt.Sprintf(" %.0f W", g.PowerW)
	}
	if g.Util >= 0 {
		s += fmt.Sprintf(" %d %%", g.Util)
	}
	if g.Throttle != "" {
		s += " (" + g.Throttle + ")"
	}
	return s
}

// fields are the same for a structured log.
func (g *GPU) fields() []zap.Field {
	if g == nil {
		return nil
	}
	return []zap.Field{zap.Int64("gpu_mem_bytes", g.MemBytes), zap.Float64("gpu_power_w", g.PowerW), zap.Int("gpu_util", g.Util), zap.String("gpu_throttle", g.Throttle)}
}
