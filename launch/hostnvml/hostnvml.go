// Package hostnvml builds a libnvidia-ml.so.1 for tests on machines without a GPU: the NVIDIA driver's management library, which
// tells of the GPUs that a file describes. src/hostnvml.cc has the file's words.
package hostnvml

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src/hostnvml.cc
var source []byte

// ErrNoCompiler: this machine has no g++.
var ErrNoCompiler = errors.New("hostnvml: no g++ on this machine to build the stand-in for NVML with")

// Build compiles the library to dir/libnvidia-ml.so.1, without some of its functions, as an older driver's would be.
func Build(dir string, without ...string) (lib string, err error) {
	cxx, err := exec.LookPath("g++")
	if err != nil {
		return "", ErrNoCompiler
	}
	src, script := filepath.Join(dir, "hostnvml.cc"), filepath.Join(dir, "hostnvml.map")
	hidden := ""
	if len(without) > 0 {
		hidden = " local: " + strings.Join(without, "; ") + ";"
	}
	lib = filepath.Join(dir, "libnvidia-ml.so.1")
	err = errors.Join(os.WriteFile(src, source, 0o644), os.WriteFile(script, []byte("{ global: nvml*;"+hidden+" };\n"), 0o644))
	if err != nil {
		return "", fmt.Errorf("hostnvml: %w", err)
	}
	args := []string{"-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fPIC", "-pthread", "-shared", "-Wl,-soname,libnvidia-ml.so.1",
		"-Wl,--version-script=" + script, "-o", lib, src}
	if out, err := exec.Command(cxx, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("hostnvml: g++ %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return lib, nil
}
