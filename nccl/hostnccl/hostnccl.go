// Package hostnccl builds a libnccl.so.2 for tests on machines without a GPU: NCCL's interface between processes of one host,
// over sockets, with host memory in the place of the device's. src/hostnccl.cc says what it does and which faults it can be
// made to have.
package hostnccl

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
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

// Build puts the library in dir, as libnccl.so.2, and gives its path.
func Build(dir string) (lib string, err error) {
	made, err := Library()
	if err != nil {
		return "", err
	}
	lib = filepath.Join(dir, soname)
	if err := os.Symlink(made, lib); err != nil {
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	return lib, nil
}

// Library gives the library, compiled once per version of its sources and kept in the user's cache, alone in its folder but for what
// it was made from.
func Library() (lib string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "splora")
	dir := filepath.Join(cache, "hostnccl-"+version())
	if lib = filepath.Join(dir, soname); exists(lib) {
		return lib, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "hostnccl-new-")
	if err != nil {
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := compile(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil && !exists(lib) { // else another process was faster
		return "", fmt.Errorf("hostnccl: %w", err)
	}
	return lib, nil
}

// version is a hash of the sources.
func version() string {
	h := sha256.New()
	for _, f := range []string{"comm.h", "hostnccl.cc", "hub.h", "reduce.h", "wire.h"} {
		b, err := sources.ReadFile("src/" + f)
		if err != nil {
			panic(err) // embedded
		}
		fmt.Fprintf(h, "%s %d\n%s", f, len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// compile makes dir/libnccl.so.2.
func compile(dir string) error {
	if err := os.CopyFS(dir, sources); err != nil {
		return fmt.Errorf("hostnccl: %w", err)
	}
	if err := gxx("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-class-memaccess", "-fPIC", "-pthread", "-c", "-o", object(dir), filepath.Join(dir, "src", "hostnccl.cc")); err != nil {
		return err
	}
	return gxx("-shared", "-pthread", "-o", filepath.Join(dir, soname), object(dir))
}

// Without makes of what Library gives another, in dir, that lacks some functions, as an older one would.
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
