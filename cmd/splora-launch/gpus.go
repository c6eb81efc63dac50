package main

import (
	"errors"
	"io/fs"
	"strings"
)

// gpus counts the GPUs that a rank can see: those that CUDA_VISIBLE_DEVICES lists, up to the first invalid
// entry as CUDA reads it, or else those of the NVIDIA driver. root is the file system.
func gpus(getenv func(string) string, root fs.FS) (int, error) {
	n := 0
	if list := getenv("CUDA_VISIBLE_DEVICES"); list != "" {
		for e := range strings.SplitSeq(list, ",") {
			if e = strings.TrimSpace(e); e == "" || strings.HasPrefix(e, "-") || e == "NoDevFiles" {
				break
			}
			n++
		}
		if n == 0 {
			return 0, errors.New("--nproc-per-node gpu: CUDA_VISIBLE_DEVICES hides all GPUs")
		}
		return n, nil
	}
	for _, pattern := range []string{"proc/driver/nvidia/gpus/*", "dev/nvidia[0-9]*"} {
		if found, _ := fs.Glob(root, pattern); len(found) > 0 {
			return len(found), nil
		}
	}
	return 0, errors.New("--nproc-per-node gpu: this node has no NVIDIA GPU: give a number, or cpu")
}
