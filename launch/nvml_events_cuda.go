//go:build cuda

package launch

import (
	"fmt"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlEvents is an NVML event set.
type nvmlEvents struct {
	n     *nvmlGPUs
	set   nvml.EventSet
	uuids []string
	lost  map[string]bool // reported as lost
}

func (n *nvmlGPUs) Watch(uuids []string) (Events, error) {
	set, ret := n.lib.EventSetCreate()
	if err := nvmlError("create an event set", ret); err != nil {
		return nil, err
	}
	e := &nvmlEvents{n: n, set: set, lost: map[string]bool{}}
	var last error
	for _, id := range uuids {
		if err := e.register(id); err != nil {
			last = err
			continue
		}
		e.uuids = append(e.uuids, id)
	}
	if len(e.uuids) == 0 && last != nil {
		_ = e.Close() // last says more
		return nil, last
	}
	return e, nil
}

// register asks for those of the wanted events that the GPU can report.
func (e *nvmlEvents) register(uuid string) error {
	_, whole, err := e.n.handle(uuid)
	if err != nil {
		return err
	}
	can, ret := whole.GetSupportedEventTypes()
	if err := nvmlError("events of "+uuid, ret); err != nil {
		return err
	}
	want := uint64(nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError | nvml.EventTypeGpuUnavailableError | nvml.EventTypeGpuRecoveryAction)
	if can&want == 0 {
		return fmt.Errorf("NVML: %s reports no errors", uuid)
	}
	return nvmlError("watch "+uuid, whole.RegisterEvents(can&want, e.set))
}

func (e *nvmlEvents) Close() error { return nvmlError("free the event set", e.set.Free()) }

func (e *nvmlEvents) Next(wait time.Duration) (Event, bool, error) {
	data, ret := e.n.lib.EventSetWait(e.set, uint32(max(1, wait.Milliseconds())))
	switch ret {
	case nvml.SUCCESS:
		return e.event(data)
	case nvml.ERROR_TIMEOUT:
		return Event{}, false, nil
	case nvml.ERROR_GPU_IS_LOST:
		return e.gone(wait)
	}
	return Event{}, false, nvmlError("wait for events", ret)
}

// event reads one. A device that cannot say any more who it is, is the one that is lost.
func (e *nvmlEvents) event(data nvml.EventData) (Event, bool, error) {
	out := Event{When: time.Now()}
	switch data.EventType {
	case nvml.EventTypeXidCriticalError:
		out.Kind, out.Xid = EventXid, int(data.EventData)
	case nvml.EventTypeDoubleBitEccError:
		out.Kind = EventDoubleBit
	case nvml.EventTypeGpuUnavailableError:
		out.Kind = EventUnavailable
	case nvml.EventTypeGpuRecoveryAction:
		out.Kind = EventRecovery
	default:
		return Event{}, false, nil
	}
	id, ret := data.Device.GetUUID()
	if ret == nvml.SUCCESS {
		out.UUID = strings.TrimRight(id, "\x00")
		return out, true, nil
	}
	for _, id := range e.uuids {
		if _, err := e.n.Health(id); err != nil {
			out.UUID = id
			return out, true, nil
		}
	}
	return Event{}, false, nvmlError("name the GPU of an event", ret)
}

// gone finds which GPU the driver has lost, once for each; from then on NVML's wait returns at once.
func (e *nvmlEvents) gone(wait time.Duration) (Event, bool, error) {
	for _, id := range e.uuids {
		if e.lost[id] {
			continue
		}
		if _, err := e.n.Health(id); err != nil {
			e.lost[id] = true
			return Event{UUID: id, Kind: EventUnavailable, When: time.Now()}, true, nil
		}
	}
	time.Sleep(wait)
	return Event{}, false, nil
}
