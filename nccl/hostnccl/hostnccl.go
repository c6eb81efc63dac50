// Package hostnccl builds a libnccl.so.2 for tests on machines without a GPU: NCCL's interface between processes of one host,
// over sockets, with host memory in the place of the device's. src/hostnccl.cc says what it does and which faults it can be
// made to have.
package hostnccl

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src
var sources embed.FS

const soname = "libnccl.so.2"

// ErrNoCompiler: this machine has no g++.
var ErrNoCompiler = errors.New("hostnccl: no g++ on this machine to build the stand-in for NCCL with")

// Build compiles the library to dir/libnccl.so.2, which it returns.
func Build(dir string) (lib string, err error) {
	if err := os.CopyFS(dir, sources); err != nil {
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	if err := gxx("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-class-memaccess", "-fPIC", "-pthread", "-c", "-o", object(dir), filepath.Join(dir, "src", "hostnccl.cc")); err != nil {
		return "", err
	}
	lib = filepath.Join(dir, soname)
	return lib, gxx("-shared", "-pthread", "-o", lib, object(dir))
}

// Without makes of a library that Build made another, in dir, that lacks some functions, as an older one would.
func Without(lib, dir string, functions ...string) (string, error) {
	script := filepath.Join(dir, "hidden.map")
	if err := os.WriteFile(script, []byte("{ global: *; local: "+strings.Join(functions, "; ")+"; };\n"), 0o644); err != nil {
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	out := filepath.Join(dir, soname)
	return out, gxx("-shared", "-pthread", "-Wl,--version-script="+script, "-o", out, object(filepath.Dir(lib)))
}

func object(dir string) string { return filepath.Join(dir, "hostnccl.o") }

func gxx(args ...string) error {
	cxx, err := exec.LookPath("g++")
	if err != nil {
		return ErrNoCompiler
	}
	if out, err := exec.Command(cxx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("hostnccl: g++ %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
