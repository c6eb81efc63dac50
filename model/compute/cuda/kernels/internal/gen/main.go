//go:build cuda

// Command gen compiles the CUDA kernels to PTX by NVRTC, on any x86-64 Linux; no GPU and no toolkit is needed:
//
//	python3 -m pip download --no-deps nvidia-cuda-nvrtc-cu11==11.8.89 && unzip -q nvidia_cuda_nvrtc_cu11-*.whl
//	go run -tags cuda ./model/compute/cuda/kernels/internal/gen -nvrtc nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2 [-dir DIR] [-check] [module …]
//	go run -tags cuda ./model/compute/cuda/kernels/internal/gen -ptxas PATH
//
// NVRTC of CUDA 11.8 writes PTX ISA 7.8, which every driver since then loads; a later one's PTX needs a later driver and is refused.
// With -check nothing is written: it fails where the PTX beside a source is not what the compiler gives.
package main

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef int (*create_fn)(void **, const char *, const char *, int, const char *const *, const char *const *);
typedef int (*compile_fn)(void *, int, const char *const *);
typedef int (*size_fn)(void *, size_t *);
typedef int (*text_fn)(void *, char *);

static int text(void *lib, void *prog, const char *size, const char *get, char **out) {
	size_t n = 0;
	size_fn s = (size_fn)dlsym(lib, size);
	text_fn g = (text_fn)dlsym(lib, get);
	if (!s || !g || s(prog, &n)) return 1;
	*out = malloc(n + 1);
	(*out)[n] = 0;
	return g(prog, *out);
}

// compile sets ptx, or log where the source is wrong.
static int compile(void *lib, const char *src, const char *name, int n, const char **flags, char **ptx, char **log) {
	void *prog;
	create_fn create = (create_fn)dlsym(lib, "nvrtcCreateProgram");
	compile_fn run = (compile_fn)dlsym(lib, "nvrtcCompileProgram");
	if (!create || !run || create(&prog, src, name, 0, 0, 0)) return -1;
	int rc = run(prog, n, flags);
	text(lib, prog, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", log);
	return rc ? rc : text(lib, prog, "nvrtcGetPTXSize", "nvrtcGetPTX", ptx);
}
*/
import "C"

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"unsafe"

	"github.com/splora/splora/model/compute/cuda/kernels"
)

func main() {
	lib := flag.String("nvrtc", "libnvrtc.so.11.2", "NVRTC of CUDA 11.8")
	dir := flag.String("dir", "model/compute/cuda/kernels", "folder of the sources")
	check := flag.Bool("check", false, "compare, do not write")
	ptxas := flag.String("ptxas", "", "write registers.txt with this assembler")
	flag.Parse()
	err := error(nil)
	if *ptxas != "" {
		err = registers(*ptxas, *dir)
	} else if flag.NArg() == 1 {
		err = one(*lib, *dir, flag.Arg(0), *check)
	} else {
		err = each(flag.Args(), "-nvrtc", *lib, "-dir", *dir, fmt.Sprintf("-check=%v", *check))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// each compiles every module in a process of its own: NVRTC numbers some labels through a process, and the PTX must not depend on that.
func each(modules []string, args ...string) error {
	if len(modules) == 0 {
		modules = kernels.Modules[:]
	}
	for _, m := range modules {
		cmd := exec.Command(os.Args[0], append(args, m)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	return nil
}

func one(lib, dir, module string, check bool) error {
	name := C.CString(lib)
	defer C.free(unsafe.Pointer(name))
	h := C.dlopen(name, C.RTLD_NOW)
	if h == nil {
		return errors.New(C.GoString(C.dlerror()))
	}
	if err := generate(h, dir, module, check); err != nil {
		return fmt.Errorf("%s.cu: %w", module, err)
	}
	return nil
}

// generate compiles one file.
func generate(lib unsafe.Pointer, dir, name string, check bool) error {
	stamp, err := kernels.Stamp(os.DirFS(dir), name)
	if err != nil {
		return err
	}
	ptx, err := compile(lib, dir, name)
	if err != nil {
		return err
	}
	if !bytes.Contains(ptx, []byte("\n.version 7.8\n")) {
		return errors.New("the PTX is not of ISA 7.8: use NVRTC of CUDA 11.8")
	}
	text, path := append([]byte(stamp+"\n"), ptx...), filepath.Join(dir, name+".ptx")
	if !check {
		return os.WriteFile(path, text, 0o644)
	}
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, text) {
		return errors.New("its .ptx is not what the compiler gives; run gen without -check")
	}
	return nil
}

func compile(lib unsafe.Pointer, dir, name string) ([]byte, error) {
	src, err := os.ReadFile(filepath.Join(dir, name+".cu"))
	if err != nil {
		return nil, err
	}
	var flags []*C.char
	for _, f := range append([]string{"-I" + dir}, kernels.Flags...) {
		flags = append(flags, C.CString(f))
	}
	var ptx, log *C.char
	text, file := C.CString(string(src)), C.CString(name+".cu")
	rc := C.compile(lib, text, file, C.int(len(flags)), &flags[0], &ptx, &log)
	if rc != 0 {
		return nil, fmt.Errorf("NVRTC error %d\n%s", rc, C.GoString(log))
	}
	return []byte(C.GoString(ptx)), nil
}
