//go:build cuda

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/splora/splora/model/compute/cuda/kernels"
)

var (
	function = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	spills   = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	used     = regexp.MustCompile(`Used (\d+) registers`)
)

// registers writes what ptxas (of the PyPI wheel nvidia-cuda-nvcc-cu12, say) makes of every kernel.
func registers(ptxas, dir string) error {
	stamp, err := kernels.Stamps(os.DirFS(dir))
	if err != nil {
		return err
	}
	version, err := exec.Command(ptxas, "--version").Output()
	if err != nil {
		return err
	}
	last := strings.Split(strings.TrimSpace(string(version)), "\n")
	text := fmt.Sprintf("%s\n# %s: registers of a thread, bytes of spill stores and loads; gen -ptxas writes this\n", stamp, last[len(last)-1])
	for _, m := range kernels.Modules {
		for _, arch := range []string{"sm_80", "sm_90"} {
			rows, err := assemble(ptxas, filepath.Join(dir, m+".ptx"), arch)
			if err != nil {
				return err
			}
			text += rows
		}
	}
	return os.WriteFile(filepath.Join(dir, "registers.txt"), []byte(text), 0o644)
}

// assemble gives a row for every kernel of a module.
func assemble(ptxas, file, arch string) (rows string, err error) {
	out, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, file).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", file, err, out)
	}
	name, spill := "", []string{"", "0", "0", "0"}
	for _, line := range strings.Split(string(out), "\n") {
		if m := function.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := spills.FindStringSubmatch(line); m != nil {
			spill = m
		} else if m := used.FindStringSubmatch(line); m != nil && name != "" {
			rows += fmt.Sprintf("%-8s%-28s%4s registers %5s stores %5s loads\n", arch, name, m[1], spill[2], spill[3])
			name = ""
		}
	}
	return rows, nil
}
