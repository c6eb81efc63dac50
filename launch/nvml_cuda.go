//go:build cuda

package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// OpenGPUs opens the NVIDIA driver's library, libnvidia-ml.so.1. Without a driver the error is ErrNoDriver.
//
// The library's functions are looked up when they are first called, so a program starts where there is no driver. A linker
// that binds all names at the start instead, as Ubuntu's gcc is set up to, must be told: CGO_LDFLAGS=-Wl,-z,lazy.
func OpenGPUs() (GPUs, error) { return openNVML(nvml.New(), os.DirFS("/")) }

// nvmlGPUs is NVML as the launcher wants it: bytes, watts, percent, errors that name the call.
type nvmlGPUs struct {
	lib  nvml.Interface
	root fs.FS // the file system, for /sys and /proc
}

func openNVML(lib nvml.Interface, root fs.FS) (GPUs, error) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
		return &nvmlGPUs{lib, root}, nil
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, fmt.Errorf("%w: libnvidia-ml.so.1 is not on the loader's path; in a container start it with the NVIDIA runtime (--gpus all)", ErrNoDriver)
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: its library is here, but no kernel module: modprobe nvidia, and see dmesg", ErrNoDriver)
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return nil, errors.New("launch: the NVIDIA library and kernel module have different versions, as after an update: reboot, or reload the module")
	case nvml.ERROR_NO_PERMISSION:
		return nil, errors.New("launch: NVML may not open the GPUs: see the permissions of /dev/nvidia*, and the container's devices")
	default:
		return nil, fmt.Errorf("launch: NVML: init: %s", nvmlText(ret))
	}
}

// nvmlText is an error's name that needs no library.
func nvmlText(r nvml.Return) string { return fmt.Sprintf("%v (%d)", r, int(r)) }

func nvmlError(call string, r nvml.Return) error {
	if r == nvml.SUCCESS {
		return nil
	}
	return fmt.Errorf("NVML: %s: %s", call, nvmlText(r))
}

// has tells whether the driver's library knows a function: calling one that it lacks ends the process.
func (n *nvmlGPUs) has(symbol string) bool { return n.lib.Extensions().LookupSymbol(symbol) == nil }

func (n *nvmlGPUs) Close() error { return nvmlError("shutdown", n.lib.Shutdown()) }

func (n *nvmlGPUs) Driver() (d Driver, err error) {
	version, ret := n.lib.SystemGetDriverVersion()
	if err := nvmlError("driver version", ret); err != nil {
		return d, err
	}
	d.Version = version
	if v, ret := n.lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		d.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	d.NVML, _ = n.lib.SystemGetNVMLVersion()
	return d, nil
}

func (n *nvmlGPUs) List() ([]GPU, error) {
	count, ret := n.lib.DeviceGetCount()
	if err := nvmlError("count devices", ret); err != nil {
		return nil, err
	}
	var all [][]GPU // a GPU and its instances
	for i := range count {
		d, ret := n.lib.DeviceGetHandleByIndex(i)
		switch ret {
		case nvml.SUCCESS:
			all = append(all, n.device(i, d))
		case nvml.ERROR_NO_PERMISSION: // another job's: CUDA does not see it either
		default:
			all = append(all, []GPU{{UUID: fmt.Sprintf("GPU of NVML's index %d", i), NUMA: -1, Lost: nvmlText(ret)}})
		}
	}
	slices.SortStableFunc(all, func(a, b []GPU) int { return strings.Compare(a[0].PCI, b[0].PCI) })
	return slices.Concat(all...), nil
}

// device describes a GPU and the MIG instances on it.
func (n *nvmlGPUs) device(i int, d nvml.Device) []GPU {
	g := GPU{UUID: fmt.Sprintf("GPU of NVML's index %d", i), NUMA: -1}
	id, ret := d.GetUUID()
	if ret != nvml.SUCCESS {
		g.Lost = nvmlText(ret)
		return []GPU{g}
	}
	g.UUID = id
	g.Name, _ = d.GetName()
	if p, ret := d.GetPciInfo(); ret == nvml.SUCCESS {
		g.PCI = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
		g.NUMA = n.numa(g.PCI)
	}
	if major, minor, ret := d.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		g.Capability = fmt.Sprintf("%d.%d", major, minor)
	}
	_, g.Memory, ret = n.memory(d)
	if ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED {
		g.Lost = nvmlText(ret)
	}
	n.settings(d, &g)
	return append([]GPU{g}, n.instances(d, g)...)
}

// settings fills in what an administrator may have changed, and what has failed.
func (n *nvmlGPUs) settings(d nvml.Device, g *GPU) {
	if m, ret := d.GetComputeMode(); ret == nvml.SUCCESS {
		g.Mode = ComputeMode(m)
	}
	if n.has("nvmlDeviceGetMigMode") {
		current, _, ret := d.GetMigMode()
		g.MIG = ret == nvml.SUCCESS && current == nvml.DEVICE_MIG_ENABLE
	}
	if current, _, ret := d.GetEccMode(); ret == nvml.SUCCESS {
		g.ECC = map[nvml.EnableState]string{nvml.FEATURE_ENABLED: "on", nvml.FEATURE_DISABLED: "off"}[current]
	}
	if n.has("nvmlDeviceGetRemappedRows") {
		if _, _, pending, failed, ret := d.GetRemappedRows(); ret == nvml.SUCCESS {
			g.RemapPending, g.RemapFailed = pending, failed
			return
		}
	}
	if pending, ret := d.GetRetiredPagesPendingStatus(); ret == nvml.SUCCESS { // before Ampere
		g.RemapPending = pending == nvml.FEATURE_ENABLED
	}
}

// numa reads the node of a PCI address: NVML's own figure is that of the GPU's memory, where that is a node.
func (n *nvmlGPUs) numa(pci string) int {
	return readInt(n.root, "sys/bus/pci/devices/"+pci+"/numa_node", -1)
}

// instances lists the MIG instances of a GPU.
func (n *nvmlGPUs) instances(d nvml.Device, parent GPU) []GPU {
	if !parent.MIG || !n.has("nvmlDeviceGetMigDeviceHandleByIndex") {
		return nil
	}
	most, _ := d.GetMaxMigDeviceCount()
	var list []GPU
	for i := range most {
		m, ret := d.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		g := parent
		g.Parent, g.MIG = parent.UUID, false
		g.UUID, ret = m.GetUUID()
		if name, ret := m.GetName(); ret == nvml.SUCCESS {
			g.Name = name
		}
		if _, g.Memory, _ = n.memory(m); ret == nvml.SUCCESS {
			list = append(list, g)
		}
	}
	return list
}

// memory is what is in use, without what the driver keeps for itself where it can tell, and all there is, in bytes. Releases do not
// agree on whether "used" holds what is reserved; what is neither free nor reserved does not depend on that.
func (n *nvmlGPUs) memory(d nvml.Device) (used, total int64, ret nvml.Return) {
	if n.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := d.GetMemoryInfo_v2(); ret == nvml.SUCCESS {
			return int64(m.Total - m.Free - m.Reserved), int64(m.Total), ret
		}
	}
	m, ret := d.GetMemoryInfo()
	return int64(m.Used), int64(m.Total), ret
}

// handle finds a GPU or MIG instance, and the GPU under it.
func (n *nvmlGPUs) handle(uuid string) (d, whole nvml.Device, err error) {
	d, ret := n.lib.DeviceGetHandleByUUID(uuid)
	if err := nvmlError("find "+uuid, ret); err != nil {
		return nil, nil, err
	}
	if !strings.HasPrefix(uuid, "MIG-") {
		return d, d, nil
	}
	whole, ret = d.GetDeviceHandleFromMigDeviceHandle()
	return d, whole, nvmlError("find the GPU of "+uuid, ret)
}

func (n *nvmlGPUs) Health(uuid string) (h Health, err error) {
	d, whole, err := n.handle(uuid)
	if err != nil {
		return h, err
	}
	used, total, ret := n.memory(d)
	if err := nvmlError("memory of "+uuid, ret); err != nil {
		return h, err
	}
	h = Health{MemUsed: used, MemTotal: total, PowerW: -1, PowerLimitW: -1, Util: -1, ClockMHz: -1, MaxClockMHz: -1, TempC: -1}
	if mw, ret := whole.GetPowerUsage(); ret == nvml.SUCCESS {
		h.PowerW = float64(mw) / 1000
	}
	if mw, ret := whole.GetEnforcedPowerLimit(); ret == nvml.SUCCESS {
		h.PowerLimitW = float64(mw) / 1000
	}
	if u, ret := whole.GetUtilizationRates(); ret == nvml.SUCCESS {
		h.Util = int(u.Gpu)
	}
	if mhz, ret := whole.GetClockInfo(nvml.CLOCK_SM); ret == nvml.SUCCESS {
		h.ClockMHz = int(mhz)
	}
	if mhz, ret := whole.GetMaxClockInfo(nvml.CLOCK_SM); ret == nvml.SUCCESS {
		h.MaxClockMHz = int(mhz)
	}
	if c, ret := whole.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
		h.TempC = int(c)
	}
	h.Throttle = n.throttle(whole)
	return h, nil
}

// throttle asks by the function's name of the driver: it was renamed in release 535.
func (n *nvmlGPUs) throttle(d nvml.Device) Throttle {
	ask := d.GetCurrentClocksThrottleReasons
	if n.has("nvmlDeviceGetCurrentClocksEventReasons") {
		ask = d.GetCurrentClocksEventReasons
	}
	bits, ret := ask()
	if ret != nvml.SUCCESS {
		return 0
	}
	return Throttle(bits)
}

func (n *nvmlGPUs) Holders(uuid string) ([]Holder, error) {
	d, _, err := n.handle(uuid)
	if err != nil {
		return nil, err
	}
	compute, ret := d.GetComputeRunningProcesses()
	if err := nvmlError("processes on "+uuid, ret); err != nil {
		return nil, err
	}
	graphics, _ := d.GetGraphicsRunningProcesses() // data-centre GPUs have none
	var out []Holder
	for _, p := range append(compute, graphics...) {
		h := Holder{PID: int(p.Pid), Name: n.process(int(p.Pid)), Memory: -1}
		if p.UsedGpuMemory != ^uint64(0) { // not available
			h.Memory = int64(p.UsedGpuMemory)
		}
		if !slices.ContainsFunc(out, func(o Holder) bool { return o.PID == h.PID }) {
			out = append(out, h)
		}
	}
	return out, nil
}

// process names a process: by /proc, or as the driver knows it.
func (n *nvmlGPUs) process(pid int) string {
	if b, err := fs.ReadFile(n.root, "proc/"+strconv.Itoa(pid)+"/comm"); err == nil {
		return strings.TrimSpace(string(b))
	}
	name, ret := n.lib.SystemGetProcessName(pid)
	if ret != nvml.SUCCESS {
		return ""
	}
	return name
}
