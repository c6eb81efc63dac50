//go:build cuda

package cublas

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wheel is a folder with NVIDIA's own cuBLAS, as its wheels for Python bring it.
func wheel(t *testing.T) string {
	t.Helper()
	home, _ := os.UserHomeDir()
	for _, p := range []string{home + "/.pyenv/versions/*", home + "/.local", "/usr/local", "/opt/conda", "/usr", os.Getenv("VIRTUAL_ENV")} {
		if list, _ := filepath.Glob(p + "/lib/python3*/*-packages/nvidia/*/lib/libcublas.so.1?"); len(list) > 0 {
			return filepath.Dir(list[0])
		}
	}
	t.Skip("no wheel with NVIDIA's cuBLAS (python -m pip install nvidia-cublas): the real library is not tried")
	return ""
}

func TestNVIDIAsOwnLibraryHasEveryCallAndRefusesToStartWithoutAGPU(t *testing.T) {
	dir := wheel(t)
	l, err := Load("", []string{"/nowhere", dir})
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(l.Path) != dir && strings.Contains(l.Path, "/") {
		t.Errorf("found %s", l.Path)
	}
	h, err := l.Start(0, 0, 0)
	if err == nil { // a GPU after all
		t.Logf("version %d", h.Version)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	t.Logf("%s: %v", l.Path, err)
	if !strings.Contains(err.Error(), l.Path) || !strings.Contains(err.Error(), "cuBLAS status") {
		t.Errorf("%v", err)
	}
}

func TestWithoutALibraryTheErrorSaysWhereItWasLookedForAndWhatBringsIt(t *testing.T) {
	_, err := Load("/nowhere/libcublas.so.12", nil)
	for _, part := range []string{"/nowhere/libcublas.so.12", "pip install nvidia-cublas"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	if _, err := Load("libc.so.6", nil); err == nil || !strings.Contains(err.Error(), "libc.so.6 has no cublasCreate_v2") {
		t.Errorf("%v", err)
	}
}
