//go:build cuda

package cuda

import (
	"os/user"
	"path/filepath"
	"slices"
)

// folders are where NVIDIA's libraries may be beside where the loader looks: the toolkit's, and those that wheels bring into the
// site-packages of this machine's Pythons, the newest first. The environment is not asked: that is the caller's Config.Libraries.
func folders() (found []string) {
	prefixes := []string{"/usr/local", "/usr", "/opt/conda", "/opt/venv"}
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		prefixes = append(prefixes, u.HomeDir+"/.local", u.HomeDir+"/.pyenv/versions/*")
	}
	found = glob("/usr/local/cuda/lib64", "/usr/local/cuda/targets/*/lib")
	for _, p := range prefixes {
		found = append(found, glob(p+"/lib/python3*/*-packages/nvidia/*/lib")...)
	}
	return found
}

func glob(patterns ...string) (found []string) {
	for _, p := range patterns {
		list, _ := filepath.Glob(p) // the patterns are right
		slices.Reverse(list)
		found = append(found, list...)
	}
	return found
}
