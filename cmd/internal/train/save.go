package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/tensor"
)

// save publishes OUT/checkpoint-N. Rank 0 writes; the others need not wait, for they hold the same numbers.
func (t *trainer) save() error {
	if t.rank0() {
		if err := t.saveCheckpoint(); err != nil {
			return err
		}
	}
	if t.Reached != nil {
		t.Reached(t.state.Step)
	}
	return nil
}

// saveCheckpoint is rank 0's. The metrics of the steps before are made durable first.
func (t *trainer) saveCheckpoint() error {
	t.Group.SetProgress(t.state.Step, "saving a checkpoint")
	if err := t.metrics.f.Sync(); err != nil {
		return explain(err)
	}
	dir := checkpointDir(t.Out, t.state.Step)
	if err := t.publish(dir); err != nil {
		return fmt.Errorf("saving %s: %w", dir, err)
	}
	if err := publishLatest(t.Out, t.state.Step); err != nil {
		return err
	}
	return dropOld(t.Out, t.KeepLast)
}

// publish makes dir a whole checkpoint.
func (t *trainer) publish(dir string) error {
	return publishDir(dir, func(tmp string) error {
		if err := t.writeAdapter(tmp); err != nil {
			return err
		}
		if err := t.writeOptimizer(filepath.Join(tmp, optimizerFile)); err != nil {
			return err
		}
		if err := safetensors.WriteFile(filepath.Join(tmp, configFile), t.Config.YAML()); err != nil {
			return err
		}
		return t.state.write(tmp)
	})
}

// writeOptimizer writes AdamW's m and v as two flat vectors in the adapters' order.
func (t *trainer) writeOptimizer(path string) error {
	n := t.ad.Len()
	w, err := safetensors.Create(path, []safetensors.Spec{
		{Name: "m", DType: safetensors.F32, Shape: []int{n}},
		{Name: "v", DType: safetensors.F32, Shape: []int{n}},
	}, map[string]string{"step": strconv.Itoa(t.state.Step)}, 0)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name string
		v    tensor.Tensor
	}{{"m", t.ad.M}, {"v", t.ad.V}} {
		if err := w.Write(x.name, t.onHost(x.v).Mem.Host); err != nil {
			w.Abort()
			return err
		}
	}
	return w.Close()
}

// onHost is a flat vector as it stands in host memory: the vector itself, or a device's in the rank's one copy, valid until the next
// call.
func (t *trainer) onHost(v tensor.Tensor) tensor.Tensor {
	if v.Mem.Host != nil {
		return v
	}
	if t.host.Len() < v.Len() {
		t.host = tensor.New(v.DType, 1, v.Len())
	}
	host := t.host.Window(0, 1, v.Len())
	t.be.Download(host.Mem.Host, v)
	return host
}

// readCheckpoint sets the adapters and the moments to a checkpoint's.
func (t *trainer) readCheckpoint(dir string) error {
	if err := t.readAdapter(dir); err != nil {
		return err
	}
	f, err := safetensors.Open(filepath.Join(dir, optimizerFile))
	if err != nil {
		return err
	}
	defer f.Close()
	for name, to := range map[string]tensor.Tensor{"m": t.ad.M, "v": t.ad.V} {
		x, ok := f.Tensor(name)
		if !ok || x.DType != safetensors.F32 || len(x.Data) != to.Bytes() {
			return fmt.Errorf("%s: %q is not %d float32 values: it belongs to other adapters", f.Path, name, t.ad.Len())
		}
		t.be.Upload(to, x.Data)
	}
	return t.be.Sync()
}

// keepBest notes an evaluation, and publishes OUT/best when it is the best one. It tells whether patience has ended.
func (t *trainer) keepBest(loss float64) (enough bool, err error) {
	if t.state.Best == nil || loss < *t.state.Best {
		t.state.Best, t.state.BestStep, t.state.SinceBest = &loss, t.state.Step, 0
		if t.KeepBest && t.rank0() {
			err = t.publish(filepath.Join(t.Out, "best"))
		}
		return false, err
	}
	t.state.SinceBest++
	return t.Patience > 0 && t.state.SinceBest >= t.Patience, nil
}

// finish writes the final adapter, once every rank is done.
func (t *trainer) finish(ctx context.Context) error {
	if t.rank0() {
		if err := t.writeAdapter(t.Out); err != nil {
			return err
		}
		t.say("done: %d steps; the adapter is in %s", t.state.Step, t.Out)
	}
	return t.Group.Barrier(ctx)
}

// setAsideAfter renames checkpoints of later steps than the one that a run goes on from: they are of a future that will not
// be, and are kept for whoever wants them.
func setAsideAfter(out string, step int) error {
	steps, err := checkpoints(out)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearch(steps, step)
	if found {
		at++
	}
	if at == len(steps) {
		return nil
	}
	if at > 0 { // latest never names what is not there
		err = publishLatest(out, steps[at-1])
	} else if err = os.Remove(filepath.Join(out, latestFile)); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	for _, s := range steps[at:] {
		if err := os.Rename(checkpointDir(out, s), unused(filepath.Join(out, fmt.Sprintf("abandoned-checkpoint-%d", s)))); err != nil {
			return err
		}
	}
	return nil
}

// unused is path, or where that stands already path-2, path-3, …
func unused(path string) string {
	name := path
	for n := 2; ; n++ {
		if _, err := os.Lstat(name); err != nil { // if it is not that nothing is there, the renaming says so
			return name
		}
		name = fmt.Sprintf("%s-%d", path, n)
	}
}

// publishLatest makes OUT/latest name a checkpoint.
func publishLatest(out string, step int) error {
	return publishFile(filepath.Join(out, latestFile), []byte(filepath.Base(checkpointDir(out, step))+"\n"))
}
