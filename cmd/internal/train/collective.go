package train

import (
	"github.com/splora/splora/model/tensor"
)

// allReduce sets v to its sum over the ranks, broadcast to rank 0's.

func (t *trainer) allReduce(v tensor.Tensor) error {
	return t.collective(v, true, func(v tensor.Tensor) error { return t.Group.AllReduce(v) })
}

func (t *trainer) broadcast(v tensor.Tensor) error {
	return t.collective(v, !t.rank0(), func(v tensor.Tensor) error { return t.Group.Broadcast(v, 0) })
}

// collective runs f on v: in place, or, where the group works on host memory and v is on a device, on a copy that is taken back when
// f has changed it.
func (t *trainer) collective(v tensor.Tensor, changed bool, f func(tensor.Tensor) error) error {
	if v.Mem.Device == 0 || t.OnDevice || t.Group.Size() == 1 {
		return f(v)
	}
	if t.host.Len() < v.Len() {
		t.host = tensor.New(v.DType, 1, v.Len())
	}
	host := t.host.Window(0, 1, v.Len())
	t.be.Download(host.Mem.Host, v)
	if err := t.be.Sync(); err != nil {
		return err
	}
	err := f(host)
	if err == nil && changed {
		t.be.Upload(v, host.Mem.Host)
	}
	return err
}
