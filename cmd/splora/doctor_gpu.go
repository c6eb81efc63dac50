package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/splora/splora/launch"
)

// GPU is one that this process may see, with its health, who holds it, and why ranks cannot use it.
type GPU struct {
	launch.GPU
	Health  *launch.Health  `json:"health,omitempty"`
	Holders []launch.Holder `json:"holders,omitempty"`
	Why     string          `json:"unusable,omitempty"`
}

// GPULink is how two of them, by their place in the list, reach each other.
type GPULink struct {
	A int `json:"a"`
	B int `json:"b"`
	launch.Link
}

// Oldest driver and GPU that splora's kernels run on: their PTX is of ISA 7.8, which CUDA 11.8 brought, for compute capability 8.0.
const (
	oldestCUDA       = 11.8
	oldestCapability = 8.0
)

// checkDriver opens the driver, or says why there is none.
func (d *doctor) checkDriver() {
	g, err := d.open()
	hardware := len(d.Host.NVIDIA)
	switch {
	case errors.Is(err, launch.ErrNotBuilt):
		d.Program.CUDA = false
		if hardware > 0 {
			d.say("warn", "driver", `eval "$(.ci/cuda-env)"; go build -tags cuda -o bin/ ./cmd/...`,
				"this machine has %d NVIDIA GPUs, and this program was built without -tags cuda: it cannot use them", hardware)
			return
		}
		d.say("absent", "driver", "", "built without -tags cuda, and there is no NVIDIA GPU on the bus")
	case errors.Is(err, launch.ErrNoDriver) && hardware == 0:
		d.say("absent", "driver", "", "no NVIDIA GPU on the bus and no driver: the CPU computes")
	case errors.Is(err, launch.ErrNoDriver):
		d.say("fail", "driver", d.mendDriver(), "this machine has %d NVIDIA GPUs, but %s", hardware, say1(err))
	case err != nil:
		d.say("fail", "driver", "what it says; nvidia-smi should say the same", "%s", say1(err))
	default:
		d.gpus = g
		d.readDriver()
	}
}

func (d *doctor) mendDriver() string {
	switch {
	case d.Host.Nouveau:
		return "the kernel's own driver, nouveau, holds the GPU and cannot compute: install NVIDIA's driver, which blacklists it, and reboot"
	case d.Host.Module != "":
		return "the kernel module is loaded (" + d.Host.Module + "), its libraries are missing: in a container, start it with --gpus all and the NVIDIA container " +
			"toolkit; else install the driver's libraries of that version (Debian: libcuda1, libnvidia-ml1)"
	}
	return "install NVIDIA's driver (Debian: nvidia-driver; Ubuntu: ubuntu-drivers install) and load it: modprobe nvidia"
}

// readDriver asks which driver it is, and whether it is new enough.
func (d *doctor) readDriver() {
	v, err := d.gpus.Driver()
	if err != nil {
		d.say("fail", "driver", "nvidia-smi should say the same; reload the driver or reboot", "%s", say1(err))
		return
	}
	d.Driver = &v
	for i := range d.Libraries {
		if d.Libraries[i].Name == "NVML" {
			d.Libraries[i].Version = v.NVML
		}
	}
	if cuda, err := strconv.ParseFloat(v.CUDA, 64); err == nil && older(v.CUDA, oldestCUDA) {
		d.say("fail", "driver", "install driver 520 or later", "driver %s serves CUDA %g, and the kernels' PTX needs %g", v.Version, cuda, oldestCUDA)
		return
	}
	if m := d.Host.Module; m != "" && m != v.Version {
		d.say("warn", "driver", "reboot, or reload the kernel module", "the libraries are of driver %s, the kernel module of %s", v.Version, m)
		return
	}
	d.say("ok", "driver", "", "%s, for CUDA up to %s", v.Version, v.CUDA)
}

// older compares versions of the form major.minor: 12.10 is newer than 12.9.
func older(version string, than float64) bool {
	major, minor, _ := strings.Cut(version, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	than10 := int(than*10 + 0.5)
	return a < than10/10 || a == than10/10 && b < than10%10
}

// checkGPUs lists the GPUs, their health and links, and what is wrong with each.
func (d *doctor) checkGPUs() {
	all, err := launch.Survey{Env: d.env}.Take(d.gpus)
	if err != nil {
		d.say("fail", "GPUs", "see nvidia-smi -L", "%s", say1(err))
		return
	}
	for i, c := range all {
		g := GPU{GPU: c.GPU, Why: c.Why}
		if h, err := d.gpus.Health(c.UUID); err == nil {
			g.Health = &h
		}
		g.Holders, _ = d.gpus.Holders(c.UUID) // not every driver tells
		name := fmt.Sprintf("GPU %d", i)
		switch {
		case c.Why != "":
			d.say(d.gravity(c), name, c.Mend, "%s: %s", c.UUID, c.Why)
		case c.Capability != "" && older(c.Capability, oldestCapability):
			g.Why = "compute capability " + c.Capability
			d.say("warn", name, "choose others with CUDA_VISIBLE_DEVICES, or compute on the CPU", "%s (%s): compute capability %s, and the kernels need %.1f", c.UUID, c.Name, c.Capability, oldestCapability)
		default:
			d.say("ok", name, "", "%s can be used%s", c.Name, slowed(g.Health))
		}
		d.GPUs = append(d.GPUs, g)
	}
	d.readLinks()
	if d.usable() == 0 {
		d.say("fail", "GPUs", "what is said of each; or train with --device cpu", "none of %d can be used", len(all))
	}
}

// gravity: a fault of the GPU is broken, a setting or another user is not.
func (d *doctor) gravity(c launch.Candidate) string {
	if c.Lost != "" || c.RemapFailed || c.RemapPending {
		return "fail"
	}
	return "warn"
}

// slowed says why the GPU is slower than it could be.
func slowed(h *launch.Health) string {
	if h == nil || h.Throttle.Slow() == 0 {
		return ""
	}
	return fmt.Sprintf(", but is slowed down: %s, %d °C, %d of %d MHz", h.Throttle.Slow(), h.TempC, h.ClockMHz, h.MaxClockMHz)
}

// readLinks fills in the matrix of links, and warns of pairs that cannot reach each other.
func (d *doctor) readLinks() {
	var apart []string
	why := ""
	for a := range d.GPUs {
		for b := range d.GPUs {
			if a == b || d.GPUs[a].Lost != "" || d.GPUs[b].Lost != "" {
				continue
			}
			l, err := d.gpus.Link(d.GPUs[a].UUID, d.GPUs[b].UUID)
			if err != nil {
				continue // the GPU's own check says more
			}
			d.Links = append(d.Links, GPULink{a, b, l})
			if !l.Peer && a < b {
				apart, why = append(apart, fmt.Sprintf("%d-%d", a, b)), l.Why
			}
		}
	}
	if apart != nil {
		d.say("warn", "peer access", "NCCL then goes through the host's memory, which works and is slower; in a virtual machine ask for ACS to be off",
			"GPUs %s cannot read each other's memory: %s", strings.Join(apart, ", "), why)
	}
}
