//go:build cuda

// Package cudatest runs the tests of the CUDA backend where there is no GPU: on a stand-in for the driver and cuBLAS that runs the same
// kernels, compiled for the host. A machine with a driver uses that.
//
// The stand-in is found by the loader, as the real libraries are; so Main starts the test program anew with LD_LIBRARY_PATH.
package cudatest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/splora/splora/model/compute/cuda"
)

// variable holds the stand-in's folder in the program that was started anew, or why there is none.
const variable = "SPLORA_TEST_HOSTGPU"

// Main is m.Run with a device. It is all that a TestMain does.
func Main(m *testing.M) {
	if os.Getenv(variable) == "" && !Driver() {
		restart()
	}
	os.Exit(m.Run())
}

// Driver reports whether the machine has a driver of its own.
func Driver() bool {
	return exec.Command("nvidia-smi", "-L").Run() == nil
}

// restart replaces this program by itself, with the stand-in where the loader finds it.
func restart() {
	dir, err := Build()
	if err != nil {
		os.Setenv(variable, "none: "+err.Error())
		return
	}
	env := append(os.Environ(), variable+"="+dir, "LD_LIBRARY_PATH="+dir+":"+os.Getenv("LD_LIBRARY_PATH"))
	exe, err := os.Executable()
	if err == nil {
		err = syscall.Exec(exe, os.Args, env)
	}
	fmt.Fprintln(os.Stderr, "cudatest:", err)
	os.Exit(1)
}

// StandIn is the folder of the stand-in; "" where the tests run on a GPU.
func StandIn() string { return os.Getenv(variable) }

// Build compiles the stand-in into the user's cache, unless that is done, and gives its folder.
func Build() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "splora", "hostgpu")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // other packages' tests build it, too
		return "", err
	}
	_, here, _, _ := runtime.Caller(0)
	out, err := exec.Command(filepath.Join(filepath.Dir(here), "..", "hostgpu", "build.sh"), dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("hostgpu/build.sh: %w: %s", err, out)
	}
	return dir, nil
}

// Open gives a backend that the test closes. Without a GPU and without a stand-in the test is skipped.
func Open(t testing.TB, c cuda.Config) *cuda.Backend {
	t.Helper()
	if why, none := strings.CutPrefix(StandIn(), "none: "); none {
		t.Skip("neither a GPU nor a stand-in: " + why)
	}
	b, err := cuda.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}
