package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/compute/cuda"
)

// hardware is what a command computes on.
type hardware struct {
	compute.Backend
	gpu *cuda.Backend // nil: the CPU
}

// deviceFlag is the flag of commands that take no training configuration.
func deviceFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "device", "auto", "auto, cpu or cuda[:N]; auto takes an NVIDIA GPU if the program was built for one and there is one")
	complete(c, "device", "auto", "cpu", "cuda")
}

// openDevice starts the backend of that name. auto takes a GPU unless the program was built without, the machine has none, or a
// launcher gave this rank none (gpu false), and then says why not; a GPU that is there but cannot be used is an error. "" is cpu. fused is
// --memory fused, which a GPU must be told of: it has not been measured there, and so is not what auto takes.
func openDevice(name string, gpu bool, threads int, fused bool, note func(string)) (hardware, error) {
	n, cudaOnly, err := parseDevice(name)
	if err != nil {
		return hardware{}, err
	}
	if cudaOnly || name == "auto" && gpu {
		b, err := cuda.Open(cuda.Config{Device: n, Libraries: libraries(), SparseCores: fused})
		switch {
		case err == nil:
			return hardware{b, b}, nil
		case cudaOnly:
			return hardware{}, fmt.Errorf("--device %s: %w", name, err)
		case errors.Is(err, cuda.ErrNotBuilt):
		case errors.Is(err, cuda.ErrNoDriver), errors.Is(err, cuda.ErrNoDevice):
			note("computing on the CPU: " + err.Error())
		default:
			return hardware{}, err
		}
	}
	if threads < 0 || threads > compute.MaxThreads {
		return hardware{}, usagef("--threads %d: from 0 to %d", threads, compute.MaxThreads)
	}
	return hardware{Backend: cpu.New(cpu.Config{Threads: threads})}, nil
}

// parseDevice reads auto, cpu, cuda or cuda:N; must says that nothing else will do.
func parseDevice(name string) (n int, must bool, err error) {
	rest, isCUDA := strings.CutPrefix(name, "cuda")
	switch {
	case name == "auto" || name == "cpu" || name == "":
		return 0, false, nil
	case isCUDA && rest == "":
		return 0, true, nil
	case isCUDA && strings.HasPrefix(rest, ":"):
		if n, err := strconv.Atoi(rest[1:]); err == nil && n >= 0 {
			return n, true, nil
		}
	}
	return 0, false, usagef("--device %q: auto, cpu, cuda or cuda:N", name)
}

// libraries are the folders that the environment names in which NVIDIA's libraries may be: a toolkit's, and those that wheels bring
// into the active Python's site-packages.
func libraries() (found []string) {
	for variable, below := range map[string]string{
		"CUDA_HOME":    "lib64",
		"VIRTUAL_ENV":  "lib/python3*/site-packages/nvidia/*/lib",
		"CONDA_PREFIX": "lib/python3*/site-packages/nvidia/*/lib",
	} {
		if dir := os.Getenv(variable); dir != "" {
			list, _ := filepath.Glob(filepath.Join(dir, below))
			found = append(found, list...)
		}
	}
	return found
}
