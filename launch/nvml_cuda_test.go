//go:build cuda

package launch

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// dgx is NVIDIA's own mock of a DGX H200 with what it leaves open filled in: the bus counts down, so that NVML's index
// says nothing about the order, and every fourth GPU is on another NUMA node.
func dgx(t *testing.T) (*server.Server, fstest.MapFS) {
	t.Helper()
	s, root := dgxh200.New(), fstest.MapFS{}
	for i, d := range s.Devices {
		d := d.(*server.Device)
		bus := uint32(0xf0 - 16*i)
		d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) { return nvml.PciInfo{Domain: 1, Bus: bus}, nvml.SUCCESS }
		root[fmt.Sprintf("sys/bus/pci/devices/0001:%02x:00.0/numa_node", bus)] = &fstest.MapFile{Data: fmt.Appendln(nil, i/4)}
		d.MemoryInfo.Used = 600 << 20
		d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) {
			return nvml.Memory_v2{Total: d.MemoryInfo.Total, Reserved: 597 << 20, Used: 600 << 20, Free: d.MemoryInfo.Total - 600<<20}, nvml.SUCCESS
		}
		d.GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return nvml.COMPUTEMODE_DEFAULT, nvml.SUCCESS }
		d.GetEccModeFunc = func() (nvml.EnableState, nvml.EnableState, nvml.Return) {
			return nvml.FEATURE_ENABLED, nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		d.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, nvml.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 655123, nvml.SUCCESS }
		d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 700000, nvml.SUCCESS }
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 98, Memory: 41}, nvml.SUCCESS }
		d.GetClockInfoFunc = func(c nvml.ClockType) (uint32, nvml.Return) {
			return map[nvml.ClockType]uint32{nvml.CLOCK_SM: 1755}[c], nvml.SUCCESS
		}
		d.GetMaxClockInfoFunc = func(c nvml.ClockType) (uint32, nvml.Return) {
			return map[nvml.ClockType]uint32{nvml.CLOCK_SM: 1980}[c], nvml.SUCCESS
		}
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 64, nvml.SUCCESS }
		d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) { return nvml.ClocksEventReasonSwPowerCap, nvml.SUCCESS }
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
		d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	}
	return s, root
}

func opened(t *testing.T, s nvml.Interface, root fstest.MapFS) GPUs {
	t.Helper()
	g, err := openNVML(s, root)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func device(s *server.Server, i int) *server.Device { return s.Devices[i].(*server.Device) }

func TestADGXIsListedByPCIAddressInBytes(t *testing.T) {
	s, root := dgx(t)
	g := opened(t, s, root)
	all, err := g.List()
	if err != nil || len(all) != 8 {
		t.Fatalf("%d GPUs, error %v", len(all), err)
	}
	for i, got := range all {
		want := GPU{UUID: device(s, 7-i).UUID, Name: "NVIDIA H200 141GB HBM3e", PCI: fmt.Sprintf("0001:%02x:00.0", 0x80+16*i), NUMA: (7 - i) / 4,
			Memory: 144384 << 20, Capability: "9.0", ECC: "on"}
		if got != want {
			t.Errorf("GPU %d: %+v, want %+v", i, got, want)
		}
	}
	if d, err := g.Driver(); err != nil || d != (Driver{Version: "550.54.15", CUDA: "12.4", NVML: "12.550.54.15"}) {
		t.Errorf("driver %+v, error %v", d, err)
	}
	if n, err := (Survey{}).Usable(g); n != 8 || err != nil {
		t.Errorf("%d usable, error %v", n, err)
	}
}

func TestHealthIsInBytesWattsAndPercent(t *testing.T) {
	s, root := dgx(t)
	g := opened(t, s, root)
	id := device(s, 3).UUID
	got, err := g.Health(id)
	want := Health{MemUsed: 3 << 20, MemTotal: 144384 << 20, PowerW: 655.123, PowerLimitW: 700, Util: 98, ClockMHz: 1755, MaxClockMHz: 1980, TempC: 64, Throttle: ThrottlePowerCap}
	if err != nil || got != want {
		t.Errorf("health %+v, error %v; want %+v", got, err, want)
	}
	d := device(s, 3)
	d.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, nvml.ERROR_NOT_SUPPORTED }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	if got, err := g.Health(id); err != nil || got.MemUsed != 600<<20 || got.PowerW != -1 || got.Util != -1 {
		t.Errorf("an older GPU: health %+v, error %v", got, err)
	}
	if _, err := g.Health("GPU-none"); err == nil || !strings.Contains(err.Error(), "find GPU-none") {
		t.Errorf("no such GPU: error %v", err)
	}
}

// Calling a function that the driver's library lacks ends the process, so it must be asked for first.
func TestADriverWithoutTheNewerFunctionsIsAskedByTheOlderOnes(t *testing.T) {
	s, root := dgx(t)
	s.LookupSymbolFunc = func(name string) error {
		for _, old := range []string{"nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetMigMode"} {
			if name == old {
				return errors.New("undefined symbol " + name)
			}
		}
		return nil
	}
	for i := range s.Devices {
		d := device(s, i)
		d.GetMemoryInfo_v2Func, d.GetCurrentClocksEventReasonsFunc, d.GetRemappedRowsFunc, d.GetMigModeFunc = nil, nil, nil, nil // a call panics
		d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) { return nvml.ClocksThrottleReasonHwThermalSlowdown, nvml.SUCCESS }
		d.GetRetiredPagesPendingStatusFunc = func() (nvml.EnableState, nvml.Return) { return nvml.FEATURE_ENABLED, nvml.SUCCESS }
	}
	g := opened(t, s, root)
	all, err := g.List()
	if err != nil || !all[0].RemapPending || all[0].MIG {
		t.Errorf("%+v, error %v", all, err)
	}
	if h, err := g.Health(all[0].UUID); err != nil || h.MemUsed != 600<<20 || h.Throttle != ThrottleHWThermal {
		t.Errorf("health %+v, error %v", h, err)
	}
}

func TestSettingsAndFaultsOfADeviceAreRead(t *testing.T) {
	s, root := dgx(t)
	device(s, 7).GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return nvml.COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.SUCCESS }
	device(s, 6).GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 1, true, false, nvml.SUCCESS }
	device(s, 5).GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 8, false, true, nvml.SUCCESS }
	device(s, 4).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
	device(s, 3).GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, nvml.ERROR_GPU_IS_LOST }
	device(s, 3).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	handle := s.DeviceGetHandleByIndexFunc
	s.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		switch i {
		case 0:
			return nil, nvml.ERROR_NO_PERMISSION // another job's
		case 1:
			return nil, nvml.ERROR_UNKNOWN
		}
		return handle(i)
	}
	delete(root, "sys/bus/pci/devices/0001:d0:00.0/numa_node") // of index 2
	all, err := opened(t, s, root).List()
	if err != nil || len(all) != 7 {
		t.Fatalf("%+v, error %v", all, err)
	}
	by := map[string]GPU{}
	for _, g := range all {
		by[g.UUID] = g
	}
	at := func(i int) GPU { return by[device(s, i).UUID] }
	if at(7).Mode != ModeExclusiveProcess || !at(6).RemapPending || !at(5).RemapFailed || at(3).Lost == "" || at(2).NUMA != -1 ||
		by["GPU of NVML's index 4"].Lost == "" || !strings.Contains(by["GPU of NVML's index 1"].Lost, "999") {
		t.Errorf("%+v", all)
	}
}

func TestMIGInstancesFollowTheirGPUAndAreMeasuredByThemselves(t *testing.T) {
	s, root := dgx(t)
	d := device(s, 7)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	inst := &mock.Device{
		GetUUIDFunc: func() (string, nvml.Return) { return "MIG-1", nvml.SUCCESS },
		GetNameFunc: func() (string, nvml.Return) { return "NVIDIA H200 MIG 1g.18gb", nvml.SUCCESS },
		GetMemoryInfo_v2Func: func() (nvml.Memory_v2, nvml.Return) {
			return nvml.Memory_v2{Total: 18 << 30, Free: 17 << 30}, nvml.SUCCESS
		},
		GetDeviceHandleFromMigDeviceHandleFunc: func() (nvml.Device, nvml.Return) { return d, nvml.SUCCESS },
	}
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i == 2 {
			return inst, nvml.SUCCESS
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	byUUID := s.DeviceGetHandleByUUIDFunc
	s.DeviceGetHandleByUUIDFunc = func(id string) (nvml.Device, nvml.Return) {
		if id == "MIG-1" {
			return inst, nvml.SUCCESS
		}
		return byUUID(id)
	}
	g := opened(t, s, root)
	all, err := g.List()
	if err != nil || len(all) != 9 || !all[0].MIG || all[1].UUID != "MIG-1" || all[1].Parent != d.UUID || all[1].MIG || all[1].Memory != 18<<30 ||
		!strings.Contains(all[1].Name, "1g.18gb") || all[1].PCI != all[0].PCI {
		t.Fatalf("%+v, error %v", all, err)
	}
	if h, err := g.Health("MIG-1"); err != nil || h.MemUsed != 1<<30 || h.MemTotal != 18<<30 || h.PowerW != 655.123 {
		t.Errorf("health %+v, error %v", h, err)
	}
}

func TestHoldersAreNamedAndMemoryThatIsNotToldIsUnknown(t *testing.T) {
	s, root := dgx(t)
	d := device(s, 0)
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 11, UsedGpuMemory: 71 << 30}, {Pid: 12, UsedGpuMemory: ^uint64(0)}, {Pid: 13, UsedGpuMemory: 1}}, nvml.SUCCESS
	}
	d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 14, UsedGpuMemory: 2}, {Pid: 11, UsedGpuMemory: 71 << 30}}, nvml.SUCCESS
	}
	root["proc/11/comm"] = &fstest.MapFile{Data: []byte("python3\n")}
	root["proc/14/comm"] = &fstest.MapFile{Data: []byte("Xorg\n")}
	s.SystemGetProcessNameFunc = func(pid int) (string, nvml.Return) {
		if pid == 12 {
			return "/usr/bin/vllm", nvml.SUCCESS
		}
		return "", nvml.ERROR_NOT_FOUND
	}
	got, err := opened(t, s, root).Holders(d.UUID)
	want := []Holder{{11, "python3", 71 << 30}, {12, "/usr/bin/vllm", -1}, {13, "", 1}, {14, "Xorg", 2}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, error %v, want %+v", got, err, want)
	}
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NO_PERMISSION }
	if _, err := opened(t, s, root).Holders(d.UUID); err == nil || !strings.Contains(err.Error(), "processes on "+d.UUID) {
		t.Errorf("error %v", err)
	}
}

// eventful makes the GPUs report what queue holds.
func eventful(s *server.Server, can uint64, queue chan nvml.EventData) (set *mock.EventSet, registered map[string]uint64) {
	registered = map[string]uint64{}
	set = &mock.EventSet{FreeFunc: func() nvml.Return { return nvml.SUCCESS }}
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return set, nvml.SUCCESS }
	s.EventSetWaitFunc = func(_ nvml.EventSet, ms uint32) (nvml.EventData, nvml.Return) {
		select {
		case e := <-queue:
			return e, nvml.SUCCESS
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return nvml.EventData{}, nvml.ERROR_TIMEOUT
		}
	}
	for i := range s.Devices {
		d := device(s, i)
		d.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return can, nvml.SUCCESS }
		d.RegisterEventsFunc = func(types uint64, _ nvml.EventSet) nvml.Return { registered[d.UUID] = types; return nvml.SUCCESS }
	}
	return set, registered
}

func TestEventsAreAskedForAsFarAsTheGPUReportsThem(t *testing.T) {
	s, root := dgx(t)
	queue := make(chan nvml.EventData, 8)
	set, registered := eventful(s, nvml.EventTypeXidCriticalError|nvml.EventTypeDoubleBitEccError|nvml.EventTypeClock, queue)
	a, b := device(s, 0), device(s, 1)
	ev, err := opened(t, s, root).Watch([]string{a.UUID, b.UUID})
	if err != nil || len(registered) != 2 || registered[a.UUID] != 10 {
		t.Fatalf("registered %v, error %v", registered, err)
	}
	if _, ok, err := ev.Next(time.Millisecond); ok || err != nil {
		t.Errorf("nothing happened: %v, error %v", ok, err)
	}
	queue <- nvml.EventData{Device: b, EventType: nvml.EventTypeXidCriticalError, EventData: 79}
	queue <- nvml.EventData{Device: a, EventType: nvml.EventTypeDoubleBitEccError, EventData: 5}
	queue <- nvml.EventData{Device: a, EventType: nvml.EventTypeGpuUnavailableError}
	queue <- nvml.EventData{Device: a, EventType: nvml.EventTypeGpuRecoveryAction}
	queue <- nvml.EventData{Device: a, EventType: nvml.EventTypeClock}
	for _, want := range []Event{{UUID: b.UUID, Kind: EventXid, Xid: 79}, {UUID: a.UUID, Kind: EventDoubleBit}, {UUID: a.UUID, Kind: EventUnavailable}, {UUID: a.UUID, Kind: EventRecovery}, {}} {
		e, ok, err := ev.Next(time.Second)
		e.When = time.Time{}
		if err != nil || ok != (want.UUID != "") || e != want {
			t.Errorf("%+v, %v, error %v; want %+v", e, ok, err, want)
		}
	}
	if err := ev.Close(); err != nil || len(set.FreeCalls()) != 1 {
		t.Errorf("error %v, freed %d times", err, len(set.FreeCalls()))
	}
}

func TestAGPUThatReportsNoErrorsIsNotWatched(t *testing.T) {
	s, root := dgx(t)
	set, _ := eventful(s, nvml.EventTypeClock, nil)
	if _, err := opened(t, s, root).Watch([]string{device(s, 0).UUID}); err == nil || !strings.Contains(err.Error(), "reports no errors") || len(set.FreeCalls()) != 1 {
		t.Errorf("error %v, freed %d times", err, len(set.FreeCalls()))
	}
}

func TestALostGPUIsNamedOnceAlthoughItCannotSayWhoItIs(t *testing.T) {
	s, root := dgx(t)
	queue := make(chan nvml.EventData, 1)
	eventful(s, nvml.EventTypeXidCriticalError, queue)
	a, b := device(s, 0), device(s, 1)
	g := opened(t, s, root)
	ev, err := g.Watch([]string{a.UUID, b.UUID})
	if err != nil {
		t.Fatal(err)
	}
	b.GetMemoryInfo_v2Func = func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, nvml.ERROR_GPU_IS_LOST }
	b.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	nameless := &mock.Device{GetUUIDFunc: func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }}
	queue <- nvml.EventData{Device: nameless, EventType: nvml.EventTypeXidCriticalError, EventData: 79}
	if e, ok, err := ev.Next(time.Second); !ok || err != nil || e.UUID != b.UUID || e.Xid != 79 {
		t.Errorf("%+v, %v, error %v", e, ok, err)
	}
	s.EventSetWaitFunc = func(nvml.EventSet, uint32) (nvml.EventData, nvml.Return) {
		return nvml.EventData{}, nvml.ERROR_GPU_IS_LOST
	}
	if e, ok, err := ev.Next(time.Millisecond); !ok || err != nil || e.UUID != b.UUID || e.Kind != EventUnavailable {
		t.Errorf("%+v, %v, error %v", e, ok, err)
	}
	began := time.Now()
	if _, ok, err := ev.Next(20 * time.Millisecond); ok || err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("a lost GPU is reported again, or in a busy loop: %v, error %v", ok, err)
	}
	s.EventSetWaitFunc = func(nvml.EventSet, uint32) (nvml.EventData, nvml.Return) { return nvml.EventData{}, nvml.ERROR_UNKNOWN }
	if _, _, err := ev.Next(time.Millisecond); err == nil {
		t.Error("an error of the driver is lost")
	}
}

func TestLinksCountNVLinksToTheOtherGPUOrToASwitch(t *testing.T) {
	s, root := dgx(t)
	a, b := device(s, 0), device(s, 1)
	pci, _ := b.GetPciInfo()
	a.GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) { return nvml.TOPOLOGY_NODE, nvml.SUCCESS }
	a.GetP2PStatusFunc = func(nvml.Device, nvml.GpuP2PCapsIndex) (nvml.GpuP2PStatus, nvml.Return) {
		return nvml.P2P_STATUS_OK, nvml.SUCCESS
	}
	a.GetNvLinkStateFunc = func(i int) (nvml.EnableState, nvml.Return) {
		if i >= 6 {
			return 0, nvml.ERROR_INVALID_ARGUMENT
		}
		return map[bool]nvml.EnableState{true: nvml.FEATURE_ENABLED}[i != 5], nvml.SUCCESS
	}
	a.GetNvLinkRemoteDeviceTypeFunc = func(i int) (nvml.IntNvLinkDeviceType, nvml.Return) {
		return map[bool]nvml.IntNvLinkDeviceType{true: nvml.NVLINK_DEVICE_TYPE_SWITCH}[i == 0], nvml.SUCCESS
	}
	a.GetNvLinkRemotePciInfoFunc = func(i int) (nvml.PciInfo, nvml.Return) {
		if i == 1 || i == 2 {
			return pci, nvml.SUCCESS
		}
		return nvml.PciInfo{Bus: 3}, nvml.SUCCESS
	}
	g := opened(t, s, root)
	if l, err := g.Link(a.UUID, b.UUID); err != nil || l != (Link{Path: "NODE", NVLinks: 3, Peer: true}) || l.String() != "NV3" {
		t.Errorf("%+v, error %v", l, err)
	}
	a.GetNvLinkStateFunc = func(int) (nvml.EnableState, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	a.GetP2PStatusFunc = func(nvml.Device, nvml.GpuP2PCapsIndex) (nvml.GpuP2PStatus, nvml.Return) {
		return nvml.P2P_STATUS_CHIPSET_NOT_SUPPORTED, nvml.SUCCESS
	}
	if l, err := g.Link(a.UUID, b.UUID); err != nil || l.Peer || l.Why != "the chipset does not support it" || l.String() != "NODE" {
		t.Errorf("%+v, error %v", l, err)
	}
	if _, err := g.Link(a.UUID, "GPU-none"); err == nil {
		t.Error("a link to nowhere")
	}
}

func TestADriverThatIsNotThereIsToldFromOneThatIsBroken(t *testing.T) {
	for ret, want := range map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND:       "libnvidia-ml.so.1 is not on the loader's path",
		nvml.ERROR_DRIVER_NOT_LOADED:       "modprobe nvidia",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "different versions",
		nvml.ERROR_NO_PERMISSION:           "/dev/nvidia*",
		nvml.ERROR_UNKNOWN:                 "(999)",
	} {
		s := dgxh200.New()
		s.InitFunc = func() nvml.Return { return ret }
		_, err := openNVML(s, fstest.MapFS{})
		none := ret == nvml.ERROR_LIBRARY_NOT_FOUND || ret == nvml.ERROR_DRIVER_NOT_LOADED
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNoDriver) != none {
			t.Errorf("%v: error %v, want %q in it", ret, err, want)
		}
	}
}

// TestTheMachinesDriver… asks the real one, and prints what it says: every call that the launcher and doctor make. Without a
// driver it is skipped, which counts as not run.
func TestTheMachinesDriverIsAskedForAllThatTheLauncherWants(t *testing.T) {
	g, err := OpenGPUs()
	if errors.Is(err, ErrNoDriver) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	d, err := g.Driver()
	if t.Logf("driver %+v", d); err != nil || older(d.CUDA) {
		t.Errorf("driver %+v, error %v", d, err)
	}
	all, err := g.List()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d GPUs, error %v", len(all), err)
	}
	for i, d := range all {
		if t.Logf("%+v", d); d.Lost != "" || !strings.HasPrefix(d.root(), "GPU-") || d.Name == "" || d.PCI == "" || d.Memory < 1<<30 || d.Capability == "" {
			t.Errorf("GPU %d: %+v", i, d)
		}
		h, err := g.Health(d.UUID)
		if t.Logf("%v, %+v", h, h); err != nil || !(h.MemTotal == d.Memory && h.MemUsed >= 0 && h.MemUsed <= h.MemTotal) {
			t.Errorf("GPU %d: %+v, error %v", i, h, err)
		}
		if d.Parent == "" && (h.PowerW > 2000 || h.TempC > 120 || h.Util > 100 || h.ClockMHz > h.MaxClockMHz && h.MaxClockMHz > 0) {
			t.Errorf("GPU %d: %+v in the wrong units", i, h)
		}
		holders, err := g.Holders(d.UUID)
		t.Logf("holders %v, error %v", holders, err)
		for j := range i {
			l, err := g.Link(d.UUID, all[j].UUID)
			t.Logf("link to GPU %d: %+v, error %v", j, l, err)
		}
	}
	ev, err := g.Watch([]string{all[0].root()})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if e, ok, err := ev.Next(300 * time.Millisecond); ok || err != nil || time.Since(began) < 250*time.Millisecond {
		t.Errorf("%+v, %v, error %v after %v, and nothing has happened", e, ok, err, time.Since(began))
	}
	if err := ev.Close(); err != nil {
		t.Error(err)
	}
	candidates, err := Survey{}.Take(g)
	t.Logf("%+v, error %v", candidates, err)
}

// older than CUDA 11.8, which splora's kernels need.
func older(cuda string) bool {
	var major, minor int
	_, err := fmt.Sscanf(cuda, "%d.%d", &major, &minor)
	return err != nil || major < 11 || major == 11 && minor < 8
}

func TestAMachineWithoutADriverSaysThatThereIsNone(t *testing.T) {
	g, err := OpenGPUs()
	if err == nil {
		g.Close()
		t.Skip("this machine has a driver")
	}
	if !errors.Is(err, ErrNoDriver) || !strings.Contains(err.Error(), "libnvidia-ml.so.1 is not on the loader's path") {
		t.Errorf("error %v", err)
	}
}
