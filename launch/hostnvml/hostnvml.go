// Package hostnvml builds a libnvidia-ml.so.1 for tests on machines without a GPU: the NVIDIA driver's management library, which
// tells of the GPUs that a file describes. src/hostnvml.cc has the file's words.
package hostnvml

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src/hostnvml.cc
var source []byte

const soname = "libnvidia-ml.so.1"

// ErrNoCompiler: this machine has no g++.
var ErrNoCompiler = errors.New("hostnvml: no g++ on this machine to build the stand-in for NVML with")

// Library gives the library, without some of its functions, as an older driver's would be. It is compiled once and kept in
// the user's cache, in a folder of its own.
func Library(without ...string) (lib string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "splora")
	sum := sha256.Sum256(append([]byte(strings.Join(without, ",")+"\n"), source...))
	dir := filepath.Join(cache, "hostnvml-"+hex.EncodeToString(sum[:8]))
	if lib = filepath.Join(dir, soname); exists(lib) {
		return lib, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("hostnvml: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "hostnvml-new-")
	if err != nil {
		return "", fmt.Errorf("hostnvml: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := compile(tmp, without); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil && !exists(lib) { // else another process was faster
		return "", fmt.Errorf("hostnvml: %w", err)
	}
	return lib, nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func compile(dir string, without []string) error {
	cxx, err := exec.LookPath("g++")
	if err != nil {
		return ErrNoCompiler
	}
	src, script := filepath.Join(dir, "hostnvml.cc"), filepath.Join(dir, "hostnvml.map")
	hidden := ""
	if len(without) > 0 {
		hidden = " local: " + strings.Join(without, "; ") + ";"
	}
	err = errors.Join(os.WriteFile(src, source, 0o644), os.WriteFile(script, []byte("{ global: nvml*;"+hidden+" };\n"), 0o644))
	if err != nil {
		return fmt.Errorf("hostnvml: %w", err)
	}
	args := []string{"-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-pthread", "-shared", "-Wl,-soname," + soname,
		"-Wl,--version-script=" + script, "-o", filepath.Join(dir, soname), src}
	if out, err := exec.Command(cxx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("hostnvml: g++ %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
