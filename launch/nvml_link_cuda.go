//go:build cuda

package launch

import (
	"errors"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func (n *nvmlGPUs) Link(a, b string) (l Link, err error) {
	_, da, err1 := n.handle(a)
	_, db, err2 := n.handle(b)
	if err := errors.Join(err1, err2); err != nil {
		return l, err
	}
	if level, ret := da.GetTopologyCommonAncestor(db); ret == nvml.SUCCESS {
		l.Path = map[nvml.GpuTopologyLevel]string{nvml.TOPOLOGY_INTERNAL: "PIX", nvml.TOPOLOGY_SINGLE: "PIX", nvml.TOPOLOGY_MULTIPLE: "PXB",
			nvml.TOPOLOGY_HOSTBRIDGE: "PHB", nvml.TOPOLOGY_NODE: "NODE", nvml.TOPOLOGY_SYSTEM: "SYS"}[level]
	}
	l.NVLinks = n.nvlinks(da, db)
	status, ret := da.GetP2PStatus(db, nvml.P2P_CAPS_INDEX_READ)
	l.Peer = ret == nvml.SUCCESS && status == nvml.P2P_STATUS_OK
	if !l.Peer {
		l.Why = p2pText(status, ret)
	}
	return l, nil
}

// nvlinks counts the active links of a that lead to b, or to a switch that leads everywhere.
func (n *nvmlGPUs) nvlinks(a, b nvml.Device) (count int) {
	to, ret := b.GetPciInfo()
	if ret != nvml.SUCCESS {
		return 0
	}
	for i := range nvml.NVLINK_MAX_LINKS {
		if state, ret := a.GetNvLinkState(i); ret != nvml.SUCCESS || state != nvml.FEATURE_ENABLED {
			continue
		}
		kind, ret := a.GetNvLinkRemoteDeviceType(i)
		far, ret2 := a.GetNvLinkRemotePciInfo(i)
		direct := ret2 == nvml.SUCCESS && far.Domain == to.Domain && far.Bus == to.Bus && far.Device == to.Device
		if direct || ret == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH {
			count++
		}
	}
	return count
}

func p2pText(s nvml.GpuP2PStatus, ret nvml.Return) string {
	if ret != nvml.SUCCESS {
		return nvmlText(ret)
	}
	switch s {
	case nvml.P2P_STATUS_CHIPSET_NOT_SUPPORTED:
		return "the chipset does not support it"
	case nvml.P2P_STATUS_GPU_NOT_SUPPORTED:
		return "the GPU does not support it"
	case nvml.P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED:
		return "the bus between them does not support it"
	case nvml.P2P_STATUS_DISABLED_BY_REGKEY:
		return "disabled by a driver setting"
	case nvml.P2P_STATUS_NOT_SUPPORTED:
		return "not supported"
	}
	return "unknown"
}
