package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/tensor"
)

// machine tells of GPUs, for doctor.
type machine struct {
	gpus    []launch.GPU
	health  launch.Health
	holders []launch.Holder // of the last GPU
	link    launch.Link
	driver  launch.Driver
	err     error // of Driver
}

func newMachine(n int) *machine {
	m := &machine{driver: launch.Driver{Version: "570.86.15", CUDA: "12.8", NVML: "12.570.86.15"}, link: launch.Link{Path: "NODE", NVLinks: 18, Peer: true},
		health: launch.Health{MemUsed: 4 << 20, MemTotal: 140 << 30, PowerW: 90, Util: 0, ClockMHz: 345, MaxClockMHz: 1980, TempC: 31, Throttle: launch.ThrottleIdle}}
	for i := range n {
		m.gpus = append(m.gpus, launch.GPU{UUID: fmt.Sprintf("GPU-%d", i), Name: "NVIDIA H200", PCI: fmt.Sprintf("0000:%02x:00.0", 27+i), NUMA: i % 2,
			Memory: 140 << 30, Capability: "9.0", ECC: "on"})
	}
	return m
}

func (m *machine) Driver() (launch.Driver, error)        { return m.driver, m.err }
func (m *machine) List() ([]launch.GPU, error)           { return m.gpus, nil }
func (m *machine) Link(a, b string) (launch.Link, error) { return m.link, nil }
func (m *machine) Watch([]string) (launch.Events, error) { return silent{}, nil }
func (m *machine) Close() error                          { return nil }
func (m *machine) Holders(id string) ([]launch.Holder, error) {
	if id == m.gpus[len(m.gpus)-1].UUID {
		return m.holders, nil
	}
	return nil, nil
}
func (m *machine) Health(id string) (launch.Health, error) {
	h := m.health
	if held, _ := m.Holders(id); len(held) > 0 {
		h.MemUsed += held[0].Memory
	}
	return h, nil
}

type silent struct{}

func (silent) Close() error { return nil }
func (silent) Next(wait time.Duration) (launch.Event, bool, error) {
	time.Sleep(min(wait, 10*time.Millisecond))
	return launch.Event{}, false, nil
}

// onMachine is doctor on a machine with n GPUs on the bus and driver m (nil: err).
func onMachine(n int, m *machine, err error) *doctor {
	root := fstest.MapFS{}
	for i := range n {
		dir := fmt.Sprintf("sys/bus/pci/devices/0000:%02x:00.0/", 27+i)
		root[dir+"vendor"], root[dir+"class"] = &fstest.MapFile{Data: []byte("0x10de\n")}, &fstest.MapFile{Data: []byte("0x030200\n")}
	}
	root["sys/bus/pci/devices/0000:01:00.0/vendor"] = &fstest.MapFile{Data: []byte("0x10de\n")} // its sound card
	root["sys/bus/pci/devices/0000:01:00.0/class"] = &fstest.MapFile{Data: []byte("0x040300\n")}
	return &doctor{root: root, open: func() (launch.GPUs, error) {
		if err != nil {
			return nil, err
		}
		return m, nil
	}, nccl: func() (Library, error) {
		return Library{Name: "NCCL", Path: "/usr/lib/libnccl.so.2", Version: "2.30.7", code: 23007}, nil
	}}
}

// look does what examine does with the GPUs, without starting ranks.
func (d *doctor) look() {
	d.Program.CUDA = true
	d.Host = readHost(d.root)
	d.checkHost()
	d.checkDriver()
	if d.gpus != nil {
		d.checkGPUs()
		d.checkNCCL()
	}
}

// finding is the worst check of that name.
func (d *doctor) finding(name string) (c Check) {
	for _, x := range d.Checks {
		if x.Name == name && (c.Name == "" || x.Status == "fail" || x.Status == "warn" && c.Status != "fail") {
			c = x
		}
	}
	return c
}

func TestDoctorOnThisMachineFindsNothingBroken(t *testing.T) {
	o := ok(t, "doctor")
	for _, want := range []string{"matrix product: on cpu", "2 ranks: met and reduced 1024 KiB over loopback, exactly", "threads", "open files"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("want %q in\n%s", want, o.stdout)
		}
	}
	v := object(t, ok(t, "doctor", "--json", "--ranks", "3").stdout)
	if v["ok"] != true || v["host"].(map[string]any)["memory_bytes"].(float64) < 1<<28 || !strings.Contains(fmt.Sprint(v["checks"]), "3 ranks") {
		t.Errorf("%v", v)
	}
	if o := splora(t, "doctor", "--as-rank"); o.code != exitUsage || !strings.Contains(o.stderr, "run splora doctor") {
		t.Errorf("a rank without a launcher: exit code %d, %s", o.code, o.stderr)
	}
	if o := splora(t, "doctor", "--ranks", "-1"); o.code != exitUsage {
		t.Errorf("exit code %d, %s", o.code, o.stderr)
	}
}

func TestDoctorSaysWhatADriverLacksAndHowToMendIt(t *testing.T) {
	old, broken := newMachine(1), newMachine(1)
	old.driver.CUDA = "11.4"
	broken.err = errors.New("NVML: driver version: ERROR_UNKNOWN (999)")
	module := func(d *doctor) {
		d.root.(fstest.MapFS)["proc/driver/nvidia/version"] = &fstest.MapFile{Data: []byte("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release\n")}
	}
	for name, c := range map[string]struct {
		d      *doctor
		change func(*doctor)
		status string
		says   string
		mend   string
	}{
		"not built, no GPU":     {onMachine(0, nil, launch.ErrNotBuilt), nil, "absent", "built without -tags cuda", ""},
		"not built, GPUs":       {onMachine(2, nil, launch.ErrNotBuilt), nil, "warn", "has 2 NVIDIA GPUs, and this program was built without", "go build -tags cuda"},
		"no driver, no GPU":     {onMachine(0, nil, launch.ErrNoDriver), nil, "absent", "the CPU computes", ""},
		"no driver":             {onMachine(1, nil, launch.ErrNoDriver), nil, "fail", "has 1 NVIDIA GPUs, but no NVIDIA driver", "modprobe nvidia"},
		"module, but libraries": {onMachine(1, nil, launch.ErrNoDriver), module, "fail", "no NVIDIA driver", "the kernel module is loaded (550.54.15)"},
		"nouveau": {onMachine(1, nil, launch.ErrNoDriver), func(d *doctor) {
			d.root.(fstest.MapFS)["proc/modules"] = &fstest.MapFile{Data: []byte("x 1 0\nnouveau 2 0 - Live\n")}
		}, "fail", "no NVIDIA driver", "nouveau"},
		"mismatch":       {onMachine(1, nil, errors.New("launch: the NVIDIA library and kernel module have different versions: reboot")), nil, "fail", "different versions: reboot", "nvidia-smi"},
		"too old":        {onMachine(1, old, nil), nil, "fail", "serves CUDA 11.4, and the kernels' PTX needs 11.8", "driver 520"},
		"does not tell":  {onMachine(1, broken, nil), nil, "fail", "ERROR_UNKNOWN", "reboot"},
		"another module": {onMachine(1, newMachine(1), nil), module, "warn", "libraries are of driver 570.86.15, the kernel module of 550.54.15", "reboot"},
		"well":           {onMachine(1, newMachine(1), nil), nil, "ok", "570.86.15, for CUDA up to 12.8", ""},
	} {
		if c.change != nil {
			c.change(c.d)
		}
		c.d.look()
		if f := c.d.finding("driver"); f.Status != c.status || !strings.Contains(f.Says, c.says) || !strings.Contains(f.Mend, c.mend) || (f.Mend == "") != (c.mend == "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestDoctorTellsAFaultyGPUFromABusyOne(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*machine)
		check  string
		status string
		says   string
		mend   string
	}{
		"well":        {func(*machine) {}, "GPU 1", "ok", "NVIDIA H200 can be used", ""},
		"busy":        {func(m *machine) { m.holders = []launch.Holder{{PID: 4242, Name: "python3", Memory: 71 << 30}} }, "GPU 1", "warn", "pid 4242 (python3, 72704 MiB)", "end what uses it"},
		"MIG":         {func(m *machine) { m.gpus[1].MIG = true }, "GPU 1", "warn", "MIG mode is on", "-mig 0"},
		"remap":       {func(m *machine) { m.gpus[1].RemapPending = true }, "GPU 1", "fail", "waits to be remapped", "--gpu-reset -i GPU-1"},
		"lost":        {func(m *machine) { m.gpus[1].Lost = "GPU_IS_LOST" }, "GPU 1", "fail", "GPU_IS_LOST", "dmesg"},
		"too old":     {func(m *machine) { m.gpus[1].Capability = "7.5" }, "GPU 1", "warn", "compute capability 7.5, and the kernels need 8.0", "CUDA_VISIBLE_DEVICES"},
		"hot":         {func(m *machine) { m.health.Throttle, m.health.TempC = launch.ThrottleHWThermal, 92 }, "GPU 1", "ok", "is slowed down: thermal (hardware), 92 °C", ""},
		"no peers":    {func(m *machine) { m.link = launch.Link{Path: "SYS", Why: "the chipset does not support it"} }, "peer access", "warn", "GPUs 0-1 cannot read each other's memory: the chipset", "slower"},
		"none usable": {func(m *machine) { m.gpus[0].MIG, m.gpus[1].MIG = true, true }, "GPUs", "fail", "none of 2 can be used", "--device cpu"},
	} {
		m := newMachine(2)
		c.change(m)
		d := onMachine(2, m, nil)
		d.look()
		if f := d.finding(c.check); f.Status != c.status || !strings.Contains(f.Says, c.says) || !strings.Contains(f.Mend, c.mend) || (f.Mend == "") != (c.mend == "") {
			t.Errorf("%s: %+v of %+v", name, f, d.Checks)
		}
	}
	d := onMachine(2, newMachine(2), nil)
	d.env = []string{"CUDA_VISIBLE_DEVICES=5"}
	d.look()
	if f := d.finding("GPUs"); f.Status != "fail" || !strings.Contains(f.Says, "there is no GPU 5") {
		t.Errorf("a wrong CUDA_VISIBLE_DEVICES: %+v", f)
	}
}

func TestDoctorJudgesNCCLByItsVersionAndWhetherItIsNeeded(t *testing.T) {
	missing := errors.New("nccl: no usable libnccl.so.2: not found")
	for name, c := range map[string]struct {
		gpus   int
		lib    Library
		err    error
		status string
		says   string
	}{
		"good":            {2, Library{Version: "2.30.7", code: 23007, Path: "/x"}, nil, "ok", "2.30.7 at /x"},
		"older":           {2, Library{Version: "2.18.3", code: 21803, lacks: []string{"ncclCommShrink"}}, nil, "ok", "too old for ncclCommShrink"},
		"advised against": {2, Library{Version: "2.28.7", code: 22807}, nil, "warn", "advises against"},
		"missing":         {2, Library{}, missing, "fail", "no usable libnccl.so.2"},
		"not needed":      {1, Library{}, missing, "warn", "no usable libnccl.so.2"},
	} {
		d := onMachine(c.gpus, newMachine(c.gpus), nil)
		d.nccl = func() (Library, error) { return c.lib, c.err }
		d.look()
		f := d.finding("NCCL")
		if f.Status != c.status || !strings.Contains(f.Says, c.says) || c.err != nil && !strings.Contains(f.Mend, "pip install nvidia-nccl-cu13") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestDoctorShowsGPUsAndTheirLinks(t *testing.T) {
	m := newMachine(2)
	m.holders = []launch.Holder{{PID: 7, Name: "Xorg", Memory: 40 << 20}}
	d := onMachine(2, m, nil)
	d.look()
	var b bytes.Buffer
	if err := d.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"driver    570.86.15, for CUDA up to 12.8; NVML 12.570.86.15; kernel module unknown\n",
		"gpu 1     GPU-1, NVIDIA H200 at 0000:1c:00.0, NUMA node 1, 140 GiB, compute capability 9.0, compute mode default, MIG off, ECC on\n" +
			"          now 0.0/140.0 GiB 90 W 0 % 345 MHz 31 °C\n          used by pid 7 (Xorg, 40 MiB)\n",
		"links          0     1\n        0      -  NV18\n        1   NV18     -\n",
		"library   NCCL 2.30.7 at /usr/lib/libnccl.so.2\n",
		"ok      GPU 1: NVIDIA H200 can be used\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}
}

// A build without CUDA cannot have such ranks; a build with it has no such GPU.
func TestARankThatCannotUseItsGPUIsBroken(t *testing.T) {
	t.Setenv(role, "splora")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := onMachine(2, newMachine(2), nil)
	d.self, d.env = self, append(os.Environ(), "LD_LIBRARY_PATH=")
	d.look()
	d.checkRanks(t.Context())
	if f := d.finding("2 ranks"); f.Status != "fail" || !strings.Contains(f.Says, "--device cuda: cuda: ") || f.Mend == "" {
		t.Errorf("%+v", f)
	}
}

func TestAMachineIsReadFromItsFiles(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	h := readHost(fstest.MapFS{
		"etc/os-release":                           file("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
		"proc/sys/kernel/osrelease":                file("6.1.0\n"),
		"proc/cpuinfo":                             file("processor\t: 0\nmodel name\t: EPYC\nflags\t\t: sse avx2 fma amx_bf16\n\nprocessor\t: 1\nmodel name\t: EPYC\n"),
		"proc/meminfo":                             file("MemTotal:       1024 kB\nMemAvailable:    512 kB\n"),
		"proc/self/cgroup":                         file("0::/slurm/job_1/step_0\n"),
		"sys/fs/cgroup/slurm/job_1/memory.max":     file("4096\n"),
		"sys/fs/cgroup/slurm/memory.max":           file("max\n"),
		"sys/fs/cgroup/slurm/job_1/step_0/cpu.max": file("350000 100000\n"),
		"sys/fs/cgroup/slurm/cpu.max":              file("max 100000\n"),
		"sys/devices/system/node/node1/cpulist":    file("4-7\n"),
		"sys/devices/system/node/node1/meminfo":    file("Node 1 MemTotal:       8 kB\nNode 1 MemFree: 1 kB\n"),
		"sys/devices/system/node/node0/cpulist":    file("0-3\n"),
		"sys/class/infiniband/mlx5_0/node_type":    file("1"),
		"sys/bus/pci/devices/0000:1b:00.0/vendor":  file("0x10de\n"),
		"sys/bus/pci/devices/0000:1b:00.0/class":   file("0x030200\n"),
		"sys/bus/pci/devices/0000:1c:00.0/vendor":  file("0x1af4\n"),
		"sys/bus/pci/devices/0000:1c:00.0/class":   file("0x030000\n"),
		"proc/driver/nvidia/version":               file("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\nGCC version: 12.2.0\n"),
	})
	if h.System != "Debian GNU/Linux 12 (bookworm)" || h.Kernel != "6.1.0" || h.CPU != "EPYC" || h.Threads != 2 || strings.Join(h.ISA, " ") != "avx2 fma amx_bf16" ||
		h.Memory != 1<<20 || h.Available != 1<<19 || h.CgroupMem != 4096 || h.CgroupCPU != 3.5 || !h.InfiniBand || h.Nouveau || h.Module != "570.86.15" ||
		len(h.NVIDIA) != 1 || len(h.NUMA) != 2 || h.NUMA[1] != (NUMANode{1, "4-7", 8 << 10}) || h.NUMA[0].CPUs != "0-3" {
		t.Errorf("%+v", h)
	}
	v1 := readHost(fstest.MapFS{
		"proc/self/cgroup": file("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n"),
		"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": file("8192\n"),
		"sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us":         file("50000\n"),
		"sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us":        file("100000\n"),
		"sys/fs/cgroup/memory/memory.limit_in_bytes":          file("9223372036854771712\n"),
	})
	if v1.CgroupMem != 8192 || v1.CgroupCPU != 0.5 {
		t.Errorf("cgroup of version 1: %d bytes, %v CPUs", v1.CgroupMem, v1.CgroupCPU)
	}
	if none := readHost(fstest.MapFS{}); none.CgroupMem != -1 || none.CgroupCPU != -1 || none.Threads < 1 || none.Memory != 0 {
		t.Errorf("a machine that tells nothing: %+v", none)
	}
}

func TestDoctorWarnsOfLimitsThatRunsFailAt(t *testing.T) {
	for name, c := range map[string]struct {
		host Host
		want string
	}{
		"open files":     {Host{OpenFiles: 256, CgroupMem: -1, Locked: -1}, "ulimit -n"},
		"memory":         {Host{OpenFiles: -1, Memory: 1 << 34, CgroupMem: 1 << 28, Locked: -1}, "docker run --memory"},
		"/dev/shm":       {Host{OpenFiles: -1, CgroupMem: -1, Locked: -1, Shm: 64 << 20, NVIDIA: []string{"a", "b"}}, "--shm-size"},
		"locked memory":  {Host{OpenFiles: -1, CgroupMem: -1, Locked: 64 << 10, InfiniBand: true}, "memlock"},
		"processor time": {Host{OpenFiles: -1, CgroupMem: -1, Locked: -1, CgroupCPU: 0.5}, "whole cores"},
	} {
		d := doctor{Diagnosis: Diagnosis{Host: c.host}}
		d.checkHost()
		if f := d.finding(name); len(d.Checks) != 1 || f.Status != "warn" || !strings.Contains(f.Mend, c.want) {
			t.Errorf("%s: %+v", name, d.Checks)
		}
	}
	fine := doctor{Diagnosis: Diagnosis{Host: Host{OpenFiles: -1, CgroupMem: -1, Locked: 1, Shm: 64 << 20, NVIDIA: []string{"a"}, CgroupCPU: -1}}}
	if fine.checkHost(); len(fine.Checks) != 0 {
		t.Errorf("%+v", fine.Checks)
	}
}

func TestAPortThatAnotherHoldsIsTold(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		port := 0
		if network == "tcp" {
			l, err := net.Listen("tcp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port = l.Addr().(*net.TCPAddr).Port
		} else {
			l, err := net.ListenPacket("udp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port = l.LocalAddr().(*net.UDPAddr).Port
		}
		if err := tryPort(port); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s port %d: error %v", network, port, err)
		}
	}
}

func TestAVersionIsReadOffALibrarysFileOrItsWheel(t *testing.T) {
	dir := t.TempDir()
	touch := func(name string) {
		t.Helper()
		if err := os.MkdirAll(dir+"/"+name[:strings.LastIndexByte(name, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	touch("lib/libcuda.so.570.86.15")
	os.Symlink("libcuda.so.570.86.15", dir+"/lib/libcuda.so.1")
	touch("site-packages/nvidia/cublas/lib/libcublas.so.12")
	touch("site-packages/nvidia_cublas_cu12-12.8.4.1.dist-info/METADATA")
	touch("other/libcublas.so.12")
	for path, want := range map[string]string{"lib/libcuda.so.1": "570.86.15", "site-packages/nvidia/cublas/lib/libcublas.so.12": "12.8.4.1", "other/libcublas.so.12": "", "none": ""} {
		if got := versionOf(dir + "/" + path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	d := doctor{env: []string{"LD_LIBRARY_PATH=/no/such:" + dir + "/lib:" + dir + "/site-packages/nvidia/cublas/lib"}}
	d.findLibraries()
	byName := map[string]string{}
	for _, l := range d.Libraries {
		byName[l.Name] = l.Version
	}
	if byName["CUDA driver"] != "570.86.15" {
		t.Errorf("%+v", d.Libraries)
	}
}

func TestVersionsAreComparedByTheirNumbers(t *testing.T) {
	for _, c := range []struct {
		version string
		than    float64
		want    bool
	}{{"11.8", 11.8, false}, {"11.7", 11.8, true}, {"12.0", 11.8, false}, {"11.10", 11.8, false}, {"7.5", 8, true}, {"8.0", 8, false}, {"10.0", 8, false}} {
		if got := older(c.version, c.than); got != c.want {
			t.Errorf("%s older than %v: %v", c.version, c.than, got)
		}
	}
}

// wrong is a processor that multiplies a little wrong.
type wrong struct{ *cpu.Backend }

func (w wrong) Gemm(dst tensor.Tensor, alpha float32, a tensor.Tensor, ta bool, b tensor.Tensor, tb bool, beta float32) {
	w.Backend.Gemm(dst, alpha*1.001, a, ta, b, tb, beta)
}

func TestAProductThatIsALittleWrongIsFound(t *testing.T) {
	be := cpu.New(cpu.Config{Threads: 1})
	defer be.Close()
	for _, c := range []struct {
		p    func() (Product, error)
		want string
	}{
		{func() (Product, error) { return product(be, tensor.F32) }, "ok"},
		{func() (Product, error) { return product(wrong{be}, tensor.F32) }, "fail"},
		{func() (Product, error) { return Product{}, errors.New("cuda:0: launch failed") }, "fail"},
	} {
		var d doctor
		p, err := c.p()
		if d.sayProduct(p, err); d.Checks[0].Status != c.want {
			t.Errorf("%+v, want %s", d.Checks, c.want)
		}
	}
	var nan doctor
	zero := 0.0
	if nan.sayProduct(Product{Float32: zero / zero}, nil); nan.Checks[0].Status != "fail" {
		t.Errorf("NaN: %+v", nan.Checks)
	}
}
