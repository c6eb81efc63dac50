package nccl

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
)

const soname = "libnccl.so.2"

// wheel is where pip puts the library, below site-packages.
const wheel = "nvidia/nccl/lib/" + soname

// sitePackages below a prefix such as /usr or a virtual environment.
var sitePackages = []string{"lib/python3*/site-packages", "lib/python3*/dist-packages", "lib/python3/dist-packages", "lib64/python3*/site-packages"}

// open the library: the one at path, a file or a folder (a library folder, a site-packages, the prefix of a Python), or, if
// path is "", the loader's, then the newest that a pip of this machine or user has installed.
func open(path string) (abi, string, error) {
	if !built {
		_, err := dlopen("")
		return nil, "", err
	}
	if path != "" {
		return openGiven(path)
	}
	lib, first := dlopen(soname)
	if first == nil {
		return lib, loaded(), nil
	}
	tried := []string{first.Error()}
	for _, p := range installed(prefixes()) {
		lib, err := dlopen(p)
		if err == nil {
			return lib, p, nil
		}
		tried = append(tried, err.Error())
	}
	return nil, "", fmt.Errorf("nccl: no usable %s: %s; no other in Python's site-packages under %s; install NCCL (Debian, Ubuntu: libnccl2 from NVIDIA's repository; pip: nvidia-nccl-cu13 or -cu12) or give its path",
		soname, strings.Join(tried, "; "), strings.Join(prefixes(), ", "))
}

func openGiven(path string) (abi, string, error) {
	found := []string{path}
	if st, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, "", fmt.Errorf("nccl: %s: no such library", path)
		}
		return nil, "", fmt.Errorf("nccl: %w", err)
	} else if st.IsDir() {
		if found = append(existing(filepath.Join(path, soname), filepath.Join(path, wheel)), installed([]string{path})...); len(found) == 0 {
			return nil, "", fmt.Errorf("nccl: %s holds neither %s nor Python packages with %s", path, soname, wheel)
		}
	}
	lib, err := dlopen(found[0])
	if err != nil {
		return nil, "", fmt.Errorf("nccl: %w", err)
	}
	return lib, found[0], nil
}

// prefixes under which Pythons live on this machine, without asking the environment.
func prefixes() []string {
	ps := []string{"/usr/local", "/usr", "/opt/conda", "/opt/venv"}
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		ps = append(ps, filepath.Join(u.HomeDir, ".local"), filepath.Join(u.HomeDir, ".pyenv/versions/*"), filepath.Join(u.HomeDir, "miniconda3"))
	}
	return ps
}

// installed wheels of NCCL under the prefixes, newest Python first.
func installed(prefixes []string) []string {
	var found []string
	for _, p := range prefixes {
		var here []string
		for _, s := range sitePackages {
			more, _ := filepath.Glob(filepath.Join(p, s, wheel)) // the pattern is well-formed
			here = append(here, more...)
		}
		slices.SortFunc(here, func(a, b string) int { return cmp.Or(python(b)-python(a), strings.Compare(a, b)) })
		found = append(found, slices.Compact(here)...)
	}
	return found
}

// python is the 12 of …/python3.12/…, 0 if it says none.
func python(path string) int {
	var minor int
	_, v, _ := strings.Cut(path, "/python3.")
	fmt.Sscanf(v, "%d/", &minor)
	return minor
}

func existing(paths ...string) []string {
	return slices.DeleteFunc(paths, func(p string) bool { _, err := os.Stat(p); return err != nil })
}

// loaded is the path of the library that the loader has chosen, from the process's own map.
func loaded() string {
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if i := strings.IndexByte(line, '/'); i >= 0 && strings.Contains(line, "libnccl.so") {
			return strings.TrimSpace(line[i:])
		}
	}
	return soname
}
