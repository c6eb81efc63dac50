package kernels

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// Flags are what a module is compiled with.
var Flags = []string{"--gpu-architecture=compute_80", "--std=c++17", "-default-device"}

// Stamp is the first line of a module's PTX: the hash of its flags, its .cu and, in order of first inclusion, of what that includes.
// fsys is this folder.
func Stamp(fsys fs.FS, module string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, strings.Join(Flags, " "))
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return fmt.Errorf("kernels: %w", err)
		}
		h.Write(text)
		for _, m := range include.FindAllSubmatch(text, -1) {
			if err := add(string(m[1])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := add(module + ".cu"); err != nil {
		return "", err
	}
	return fmt.Sprintf("// sha256 %x", h.Sum(nil)), nil
}

// Stamps is the hash of all modules' stamps.
func Stamps(fsys fs.FS) (string, error) {
	h := sha256.New()
	for _, m := range Modules {
		s, err := Stamp(fsys, m)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, m, s)
	}
	return fmt.Sprintf("# sha256 %x", h.Sum(nil)), nil
}

var include = regexp.MustCompile(`(?m)^#include "([^"]+)"`)
