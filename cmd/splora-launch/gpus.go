package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/splora/splora/launch"
)

// openGPUs asks for the NVIDIA driver where the ranks may want one: nil without an error where there is none.
func (f *flags) openGPUs(c *launch.Config, args []string) error {
	switch f.gpus {
	case "auto", "none":
	default:
		return fmt.Errorf("--gpus %q is neither auto nor none", f.gpus)
	}
	if f.toleranceMiB < 1 || f.health <= 0 {
		return errors.New("--gpu-tolerance-mib and --health-every must be positive")
	}
	c.GPUTolerance, c.HealthEvery = int64(f.toleranceMiB)<<20, f.health
	if f.gpus == "none" || device(args) == "cpu" {
		if f.nproc == "gpu" {
			return errors.New("--nproc-per-node gpu: the ranks are told to use no GPU, by --gpus none or --device cpu: give a number, or cpu")
		}
		return nil
	}
	if f.nproc != "gpu" && launch.HidesGPUs(c.Env) {
		return nil
	}
	g, err := f.open()
	if err == nil {
		err = f.found(c, g)
	}
	none := errors.Is(err, launch.ErrNotBuilt) || errors.Is(err, launch.ErrNoDriver) || errors.Is(err, errNoGPU)
	switch {
	case err != nil && f.nproc == "gpu":
		return fmt.Errorf("--nproc-per-node gpu: %s; or give a number, or cpu", strings.TrimPrefix(err.Error(), "launch: "))
	case none:
		f.note = unused(f.root, err)
		return nil
	case err != nil:
		return fmt.Errorf("%s; or give --gpus none if the ranks need no GPU", strings.TrimPrefix(err.Error(), "launch: "))
	}
	return nil
}

// unused warns of GPUs that the ranks will not use; empty: there are none.
func unused(root fs.FS, why error) string {
	for _, pattern := range []string{"proc/driver/nvidia/gpus/*", "dev/nvidia[0-9]*"} {
		if found, _ := fs.Glob(root, pattern); len(found) > 0 {
			return fmt.Sprintf("this node has %d NVIDIA GPUs, and the ranks are given none: %s; --gpus none accepts that", len(found), strings.TrimPrefix(why.Error(), "launch: "))
		}
	}
	return ""
}

var errNoGPU = errors.New("the NVIDIA driver has no GPU")

// found keeps the driver if it has GPUs, and else closes it.
func (f *flags) found(c *launch.Config, g launch.GPUs) error {
	all, err := g.List()
	if err == nil && len(all) == 0 {
		err = errNoGPU
	}
	if err != nil {
		return errors.Join(err, g.Close())
	}
	c.GPUs = g
	return nil
}

// usable is what --nproc-per-node gpu stands for.
func usable(c *launch.Config) (int, error) {
	n, err := launch.Survey{Env: c.Env, Tolerance: c.GPUTolerance, Job: c.Job}.Usable(c.GPUs)
	if err != nil {
		return 0, fmt.Errorf("--nproc-per-node gpu: %s", strings.TrimPrefix(err.Error(), "launch: "))
	}
	return n, nil
}

// device is the --device of splora train.
func device(args []string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--device="); ok {
			return v
		}
		if a == "--device" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}
