package main

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// Host is the machine as this process may use it. What is not known is 0, or −1 where 0 means something.
type Host struct {
	System     string     `json:"system"` // Debian GNU/Linux 12 (bookworm)
	Kernel     string     `json:"kernel"`
	CPU        string     `json:"cpu"`
	Threads    int        `json:"threads"` // of all CPUs
	Usable     int        `json:"usable_threads"`
	ISA        []string   `json:"isa"` // those that splora's kernels, or a BLAS, may use
	NUMA       []NUMANode `json:"numa"`
	Memory     int64      `json:"memory_bytes"`
	Available  int64      `json:"available_bytes"`
	CgroupMem  int64      `json:"cgroup_memory_bytes"` // −1: no limit
	CgroupCPU  float64    `json:"cgroup_cpus"`         // −1: no limit
	Shm        int64      `json:"dev_shm_bytes"`
	OpenFiles  int64      `json:"open_files"`    // limit; −1: none
	Locked     int64      `json:"locked_bytes"`  // limit of locked memory; −1: none
	Processes  int64      `json:"max_processes"` // limit; −1: none
	NVIDIA     []string   `json:"nvidia_pci"`    // addresses of NVIDIA's GPUs on the bus, driver or not
	Module     string     `json:"nvidia_module,omitempty"`
	Nouveau    bool       `json:"nouveau"` // the driver that cannot compute is loaded
	InfiniBand bool       `json:"infiniband"`
}

// NUMANode is a group of CPUs with memory of their own.
type NUMANode struct {
	ID     int    `json:"id"`
	CPUs   string `json:"cpus"`
	Memory int64  `json:"memory_bytes"`
}

// readHost reads /proc, /sys and /etc below root, and the limits of this process.
func readHost(root fs.FS) Host {
	h := Host{Usable: runtime.GOMAXPROCS(0), CgroupMem: -1, CgroupCPU: -1}
	h.System = strings.Trim(field(text(root, "etc/os-release"), "PRETTY_NAME", "="), `"`)
	h.Kernel = strings.TrimSpace(text(root, "proc/sys/kernel/osrelease"))
	h.readCPU(root)
	h.Memory, h.Available = kilo(field(text(root, "proc/meminfo"), "MemTotal", ":")), kilo(field(text(root, "proc/meminfo"), "MemAvailable", ":"))
	h.readCgroup(root)
	h.readNUMA(root)
	h.readNVIDIA(root)
	ib, _ := fs.ReadDir(root, "sys/class/infiniband")
	h.InfiniBand = len(ib) > 0
	h.Shm = capacity("/dev/shm")
	h.OpenFiles, h.Locked, h.Processes = limit(unix.RLIMIT_NOFILE), limit(unix.RLIMIT_MEMLOCK), limit(unix.RLIMIT_NPROC)
	return h
}

func text(root fs.FS, name string) string {
	b, _ := fs.ReadFile(root, name) // absent: unknown
	return string(b)
}

// field finds "name<sep>value" in lines.
func field(s, name, sep string) string {
	for line := range strings.Lines(s) {
		if k, v, ok := strings.Cut(line, sep); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// kilo reads "12 kB" in bytes.
func kilo(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(s, "kB")), 10, 64)
	return n << 10
}

var worthKnowing = []string{"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
	"asimd", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"}

func (h *Host) readCPU(root fs.FS) {
	info := text(root, "proc/cpuinfo")
	h.CPU = field(info, "model name", ":")
	flags := strings.Fields(field(info, "flags", ":") + " " + field(info, "Features", ":"))
	for _, f := range worthKnowing {
		if slices.Contains(flags, f) {
			h.ISA = append(h.ISA, f)
		}
	}
	for line := range strings.Lines(info) {
		if strings.HasPrefix(line, "processor") {
			h.Threads++
		}
	}
	if h.Threads == 0 {
		h.Threads = runtime.NumCPU()
	}
}

// readCgroup reads the limits of version 2, else of version 1, at the root that a container sees, and along this process's path.
func (h *Host) readCgroup(root fs.FS) {
	for _, dir := range cgroups(text(root, "proc/self/cgroup")) {
		least(&h.CgroupMem, text(root, dir+"/memory.max"))
		least(&h.CgroupMem, text(root, dir+"/memory.limit_in_bytes"))
		quota, period := pair(text(root, dir+"/cpu.max"))
		if quota == "" {
			quota, period = strings.TrimSpace(text(root, dir+"/cpu.cfs_quota_us")), strings.TrimSpace(text(root, dir+"/cpu.cfs_period_us"))
		}
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if cpus := q / p; err1 == nil && err2 == nil && q > 0 && (h.CgroupCPU < 0 || cpus < h.CgroupCPU) {
			h.CgroupCPU = cpus
		}
	}
}

// cgroups are the folders that may hold limits of a process whose /proc/self/cgroup is self.
func cgroups(self string) []string {
	dirs := []string{"sys/fs/cgroup", "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu"}
	for line := range strings.Lines(self) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for p := parts[2]; p != "/" && p != "." && p != ""; p = path.Dir(p) {
			for _, controller := range append([]string{""}, strings.Split(parts[1], ",")...) {
				dirs = append(dirs, path.Join("sys/fs/cgroup", controller, p))
			}
		}
	}
	return dirs
}

// least lowers n to the number in s, if there is one that limits anything.
func least(n *int64, s string) {
	v, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err == nil && v < 1<<60 && (*n < 0 || v < *n) {
		*n = v
	}
}

func pair(s string) (a, b string) {
	if f := strings.Fields(s); len(f) == 2 {
		return f[0], f[1]
	}
	return "", ""
}

func (h *Host) readNUMA(root fs.FS) {
	dirs, _ := fs.Glob(root, "sys/devices/system/node/node[0-9]*")
	for _, dir := range dirs {
		id, _ := strconv.Atoi(strings.TrimPrefix(path.Base(dir), "node"))
		n := NUMANode{ID: id, CPUs: strings.TrimSpace(text(root, dir+"/cpulist"))}
		n.Memory = kilo(field(text(root, dir+"/meminfo"), fmt.Sprintf("Node %d MemTotal", id), ":"))
		h.NUMA = append(h.NUMA, n)
	}
	slices.SortFunc(h.NUMA, func(a, b NUMANode) int { return a.ID - b.ID })
}

// readNVIDIA looks for NVIDIA's GPUs on the bus, and for the kernel's drivers.
func (h *Host) readNVIDIA(root fs.FS) {
	dirs, _ := fs.Glob(root, "sys/bus/pci/devices/*")
	for _, d := range dirs {
		class := strings.TrimSpace(text(root, d+"/class"))
		display := strings.HasPrefix(class, "0x0300") || strings.HasPrefix(class, "0x0302")
		if display && strings.TrimSpace(text(root, d+"/vendor")) == "0x10de" {
			h.NVIDIA = append(h.NVIDIA, path.Base(d))
		}
	}
	for _, word := range strings.Fields(text(root, "proc/driver/nvidia/version")) {
		if major, _, ok := strings.Cut(word, "."); ok && h.Module == "" {
			if _, err := strconv.Atoi(major); err == nil {
				h.Module = word
			}
		}
	}
	for line := range strings.Lines(text(root, "proc/modules")) {
		h.Nouveau = h.Nouveau || strings.HasPrefix(line, "nouveau ")
	}
}

func limit(which int) int64 {
	var l unix.Rlimit
	if unix.Getrlimit(which, &l) != nil {
		return 0
	}
	if uint64(l.Cur) >= math.MaxInt64 { // RLIM_INFINITY, however the system writes it
		return -1
	}
	return int64(l.Cur)
}

// capacity is the size of the file system at path.
func capacity(path string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return 0
	}
	return int64(s.Blocks) * int64(s.Bsize)
}

// checkHost judges limits that runs have been seen to fail at.
func (d *doctor) checkHost() {
	h := d.Host
	if h.OpenFiles >= 0 && h.OpenFiles < 1024 {
		d.say("warn", "open files", "ulimit -n 65536, or LimitNOFILE= of the service", "a process may have %d: a rank opens model, data and connections", h.OpenFiles)
	}
	if h.Memory > 0 && h.CgroupMem >= 0 && h.CgroupMem < 1<<30 {
		d.say("warn", "memory", "give the container or the job more (docker run --memory, #SBATCH --mem)", "the cgroup allows %s", humanize.IBytes(uint64(h.CgroupMem)))
	}
	if gpus := len(h.NVIDIA); gpus > 1 && h.Shm > 0 && h.Shm < 1<<30 {
		d.say("warn", "/dev/shm", "docker run --ipc=host, or --shm-size=8g; in Kubernetes an emptyDir of medium Memory at /dev/shm",
			"it holds %s, and NCCL keeps buffers of each pair of GPUs there", humanize.IBytes(uint64(h.Shm)))
	}
	if h.InfiniBand && h.Locked >= 0 {
		d.say("warn", "locked memory", "ulimit -l unlimited (docker run --ulimit memlock=-1; LimitMEMLOCK=infinity of slurmd)",
			"a process may lock %s, and InfiniBand needs to lock its buffers", humanize.IBytes(uint64(h.Locked)))
	}
	if h.CgroupCPU > 0 && h.CgroupCPU < 1 {
		d.say("warn", "processor time", "give the container or the job whole cores", "the cgroup allows %.2g of a core", h.CgroupCPU)
	}
}
