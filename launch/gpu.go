package launch

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// GPUs is what the launcher asks of the NVIDIA driver. OpenGPUs gives the machine's; a test tells its own story.
// All methods may be called from several goroutines. A GPU goes by its UUID, never by an index: CUDA orders
// devices by speed unless told otherwise, NVML by PCI address.
type GPUs interface {
	Driver() (Driver, error)
	List() ([]GPU, error)                  // by PCI address; the MIG instances of a GPU follow it
	Health(uuid string) (Health, error)    // now
	Holders(uuid string) ([]Holder, error) // processes with a context or memory on it
	Watch(uuids []string) (Events, error)  // faults from now on
	Link(a, b string) (Link, error)        // how two GPUs reach each other
	Close() error
}

// Events are the faults that the driver reports. Next waits up to wait for one; ok is false when none came.
type Events interface {
	Next(wait time.Duration) (e Event, ok bool, err error)
	Close() error
}

// What OpenGPUs may end with, beside faults of a driver that is there.
var (
	ErrNotBuilt = errors.New("launch: this program was built without -tags cuda and cannot ask the NVIDIA driver: build it with go build -tags cuda")
	ErrNoDriver = errors.New("launch: no NVIDIA driver")
)

// Driver is which driver answers.
type Driver struct {
	Version string `json:"version"`      // 570.86.15
	CUDA    string `json:"cuda"`         // newest CUDA that it serves, 12.8
	NVML    string `json:"nvml_version"` // of the library
}

// GPU is a device, or a MIG instance of one, as it was when it was listed.
type GPU struct {
	UUID         string      `json:"uuid"` // GPU-… or MIG-…
	Parent       string      `json:"parent,omitempty"`
	Name         string      `json:"name"`
	PCI          string      `json:"pci"`          // 0000:1b:00.0
	NUMA         int         `json:"numa"`         // node of the CPUs and memory beside it; −1 = unknown
	Memory       int64       `json:"memory_bytes"` // all of it
	Capability   string      `json:"compute_capability,omitempty"`
	Mode         ComputeMode `json:"compute_mode"`
	MIG          bool        `json:"mig"`           // MIG mode is on: only its instances can compute
	ECC          string      `json:"ecc,omitempty"` // on, off; empty = it has none
	RemapPending bool        `json:"remap_pending"` // a memory row, or page, is retired at the next reset
	RemapFailed  bool        `json:"remap_failed"`  // no spare rows are left
	Lost         string      `json:"lost,omitempty"`
}

// ComputeMode is how many processes may use a GPU.
type ComputeMode int

// As NVML numbers them.
const (
	ModeDefault          ComputeMode = 0
	ModeExclusiveThread  ComputeMode = 1
	ModeProhibited       ComputeMode = 2
	ModeExclusiveProcess ComputeMode = 3
)

func (m ComputeMode) String() string {
	switch m {
	case ModeDefault:
		return "default"
	case ModeExclusiveThread:
		return "exclusive thread"
	case ModeProhibited:
		return "prohibited"
	case ModeExclusiveProcess:
		return "exclusive process"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// MarshalText writes the mode's name.
func (m ComputeMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// exclusive: one process only.
func (m ComputeMode) exclusive() bool { return m == ModeExclusiveProcess || m == ModeExclusiveThread }

// Health is a sample. What a device does not tell is −1.
type Health struct {
	MemUsed     int64    `json:"mem_used_bytes"` // by all processes
	MemTotal    int64    `json:"mem_total_bytes"`
	PowerW      float64  `json:"power_w"`
	PowerLimitW float64  `json:"power_limit_w"`
	Util        int      `json:"util"` // percent of the last sample period in which a kernel ran
	ClockMHz    int      `json:"clock_mhz"`
	MaxClockMHz int      `json:"max_clock_mhz"`
	TempC       int      `json:"temp_c"`
	Throttle    Throttle `json:"throttle"`
}

// Throttle is the set of reasons why the clocks are below their maximum, in NVML's bits.
type Throttle uint64

// Reasons, in NVML's bits.
const (
	ThrottleIdle       Throttle = 1 << 0
	ThrottleAppClocks  Throttle = 1 << 1
	ThrottlePowerCap   Throttle = 1 << 2 // at its power limit: usual under full load
	ThrottleHW         Throttle = 1 << 3
	ThrottleSyncBoost  Throttle = 1 << 4
	ThrottleSWThermal  Throttle = 1 << 5
	ThrottleHWThermal  Throttle = 1 << 6
	ThrottlePowerBrake Throttle = 1 << 7
	ThrottleDisplay    Throttle = 1 << 8
	ThrottleBoardLimit Throttle = 1 << 9
	ThrottleReliable   Throttle = 1 << 10
)

func (t Throttle) String() string {
	names := []string{"idle", "application clocks", "power cap", "hardware slowdown", "sync boost", "thermal (software)", "thermal (hardware)",
		"power brake", "display clocks", "board limit", "reliability"}
	var on []string
	for i, n := range names {
		if t&(1<<i) != 0 {
			on = append(on, n)
		}
	}
	if rest := t >> len(names); rest != 0 {
		on = append(on, fmt.Sprintf("reason %#x", uint64(rest)<<len(names)))
	}
	return strings.Join(on, ", ")
}

// MarshalText writes the reasons' names.
func (t Throttle) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Slow is those of the reasons that make a rank a straggler: heat, a failing supply, a fault. The power cap and
// idling are not among them.
func (t Throttle) Slow() Throttle {
	return t & (ThrottleHW | ThrottleSWThermal | ThrottleHWThermal | ThrottlePowerBrake | ThrottleReliable)
}

// Holder is a process on a GPU.
type Holder struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`         // empty = not visible from here, as in a container
	Memory int64  `json:"memory_bytes"` // −1 = not told
}

func (h Holder) String() string {
	name := h.Name
	if name == "" {
		name = "a process that is not visible from here"
	}
	if h.Memory < 0 {
		return fmt.Sprintf("pid %d (%s)", h.PID, name)
	}
	return fmt.Sprintf("pid %d (%s, %s)", h.PID, name, mib(h.Memory))
}

// Link is how two GPUs reach each other.
type Link struct {
	Path    string `json:"path"`    // NV, PIX, PXB, PHB, NODE or SYS, as nvidia-smi topo names them
	NVLinks int    `json:"nvlinks"` // links of a that lead to b or to a switch
	Peer    bool   `json:"peer"`    // they can read each other's memory
	Why     string `json:"why,omitempty"`
}

func (l Link) String() string {
	if l.NVLinks > 0 {
		return fmt.Sprintf("NV%d", l.NVLinks)
	}
	return l.Path
}

func mib(b int64) string { return fmt.Sprintf("%d MiB", b>>20) }
