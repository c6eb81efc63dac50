package launch

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
)

// gpuEnviron is what rank i gets beside the contract when it has a GPU: that GPU alone, and what NCCL needs to
// know of this job. What the user has set stays.
func (l *launcher) gpuEnviron(r *rank, s seat, dir string) []string {
	env := []string{"CUDA_VISIBLE_DEVICES=" + s.UUID}
	set := func(name, value string) {
		if _, ok := lookup(l.Env, name); !ok && value != "" {
			env = append(env, name+"="+value)
		}
	}
	set("NCCL_DEBUG", "WARN")
	set("NCCL_DEBUG_FILE", l.ncclLog(dir))
	set("NCCL_SOCKET_IFNAME", interfaceOf(l.Bind))
	set("NCCL_RAS_ADDR", l.ras)
	if s.of > 1 {
		set("NCCL_MULTI_RANK_GPU_ENABLE", "1")                                                    // NCCL ≥ 2.30.3
		set("NCCL_HOSTID", fmt.Sprintf("%s-%d-%d-%d", l.Job, l.NodeRank, r.LocalRank, r.Attempt)) // before: another host has another GPU
	}
	return env
}

// ncclLog is where NCCL's warnings go: into the log directory, or among what the rank says.
func (l *launcher) ncclLog(dir string) string {
	if l.LogDir == "" {
		return "/dev/stderr"
	}
	return filepath.Join(dir, "nccl.%h.%p")
}

// interfaceOf names the network interface that has the address, as NCCL wants it; empty when it is any or none.
func interfaceOf(bind string) string {
	want := net.ParseIP(bind)
	if want == nil || want.IsUnspecified() {
		return ""
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(want) {
				return "=" + i.Name
			}
		}
	}
	return ""
}

// rasAddress is a free port for NCCL's status service, which all ranks of this launcher share: the default one is
// the same for all jobs of a host.
func rasAddress() string {
	h, err := reserve("127.0.0.1", -1)
	if err != nil {
		return ""
	}
	defer h.release()
	return "localhost:" + strconv.Itoa(h.port)
}
