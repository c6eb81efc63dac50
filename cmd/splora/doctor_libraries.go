package main

import (
	"path/filepath"
	"regexp"
	"strings"
)

// Library is one of NVIDIA's.
type Library struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`

	code  int      // NCCL's number of the version
	lacks []string // functions
}

// Where loaders look, and where drivers and containers put libraries.
var loaderFolders = []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib/x86_64-linux-gnu", "/lib64",
	"/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib"}

// findLibraries looks for the files: it loads none of them.
func (d *doctor) findLibraries() {
	d.Libraries = []Library{}
	folders := append(strings.Split(lookup(d.env, "LD_LIBRARY_PATH"), ":"), loaderFolders...)
	folders = append(folders, libraries()...)
	for _, l := range []struct {
		name  string
		files []string
	}{
		{"CUDA driver", []string{"libcuda.so.1"}},
		{"NVML", []string{"libnvidia-ml.so.1"}},
		{"cuBLAS", []string{"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"}},
	} {
		if p := first(folders, l.files); p != "" {
			d.Libraries = append(d.Libraries, Library{Name: l.name, Path: p, Version: versionOf(p)})
		}
	}
}

func lookup(env []string, name string) (value string) {
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// first finds the first of files that is in one of the folders.
func first(folders, files []string) string {
	for _, f := range files {
		for _, dir := range folders {
			if dir != "" && holds(dir, f) {
				return filepath.Join(dir, f)
			}
		}
	}
	return ""
}

var (
	fileVersion  = regexp.MustCompile(`\.so\.(\d+\.\d+[\d.]*)$`)
	wheelVersion = regexp.MustCompile(`^nvidia_[a-z]+(?:_cu\d+)?-([\d.]+)\.dist-info$`)
)

// versionOf reads a version off the name of the file that the library's name leads to, or off its wheel's.
func versionOf(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if m := fileVersion.FindStringSubmatch(filepath.Base(real)); m != nil {
			return m[1]
		}
	}
	before, part, ok := strings.Cut(path, "/nvidia/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "lib"), ".")
	dirs, _ := filepath.Glob(filepath.Join(before, "nvidia_"+name+"*.dist-info"))
	for _, d := range dirs {
		if m := wheelVersion.FindStringSubmatch(filepath.Base(d)); m != nil && strings.Contains(part, "cu") {
			return m[1]
		}
	}
	return ""
}

// checkNCCL opens the library that ranks on GPUs would use.
func (d *doctor) checkNCCL() {
	l, err := d.nccl()
	if err != nil {
		status := "warn"
		if d.usable() > 1 {
			status = "fail"
		}
		d.say(status, "NCCL", "pip install nvidia-nccl-cu13 (CUDA 12: -cu12); or libnccl2 of NVIDIA's package repository", "%s", say1(err))
		return
	}
	d.Libraries = append(d.Libraries, l)
	switch {
	case l.code >= 22803 && l.code <= 22808:
		d.say("warn", "NCCL", "pip install -U nvidia-nccl-cu13 (CUDA 12: -cu12)", "%s at %s: NVIDIA advises against 2.28.3 to 2.28.8", l.Version, l.Path)
	case len(l.lacks) > 0:
		d.say("ok", "NCCL", "", "%s at %s; too old for %s, which splora can do without", l.Version, l.Path, strings.Join(l.lacks, ", "))
	default:
		d.say("ok", "NCCL", "", "%s at %s", l.Version, l.Path)
	}
	if d.cublas() == "" {
		d.say("warn", "cuBLAS", "pip install nvidia-cublas (CUDA 12: nvidia-cublas-cu12); or the toolkit, with CUDA_HOME or LD_LIBRARY_PATH leading to it",
			"libcublas.so.13, .12 or .11 is in none of the folders that splora knows")
	}
}

func (d *doctor) cublas() string {
	for _, l := range d.Libraries {
		if l.Name == "cuBLAS" {
			return l.Path
		}
	}
	return ""
}
