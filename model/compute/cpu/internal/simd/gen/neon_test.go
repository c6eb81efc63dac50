package main

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// known are instructions as GNU as 2.40 encodes them.
var known = map[string]uint32{
	"fmla v8.4s, v3.4s, v31.4s": 0x4e3fcc68, "fmls v8.4s, v3.4s, v31.4s": 0x4ebfcc68, "fadd v8.4s, v3.4s, v31.4s": 0x4e3fd468,
	"fsub v8.4s, v3.4s, v31.4s": 0x4ebfd468, "fmul v8.4s, v3.4s, v31.4s": 0x6e3fdc68, "fdiv v8.4s, v3.4s, v31.4s": 0x6e3ffc68,
	"faddp v8.4s, v3.4s, v31.4s": 0x6e3fd468, "fmaxnmp v8.4s, v3.4s, v31.4s": 0x6e3fc468, "sub v8.4s, v3.4s, v31.4s": 0x6ebf8468,
	"fmax v8.4s, v3.4s, v31.4s": 0x4e3ff468, "fmin v8.4s, v3.4s, v31.4s": 0x4ebff468, "fmaxnm v8.4s, v3.4s, v31.4s": 0x4e3fc468,
	"fminnm v8.4s, v3.4s, v31.4s": 0x4ebfc468, "fcmeq v8.4s, v3.4s, v31.4s": 0x4e3fe468, "fcmgt v8.4s, v3.4s, v31.4s": 0x6ebfe468,
	"cmhi v8.4s, v3.4s, v31.4s": 0x6ebf3468,
	"fsqrt v8.4s, v3.4s":        0x6ea1f868, "fneg v8.4s, v3.4s": 0x6ea0f868, "frintn v8.4s, v3.4s": 0x4e218868, "fcvtns v8.4s, v3.4s": 0x4e21a868,
	"fmla v31.4s, v3.4s, v17.s[3]": 0x4fb1187f, "fmla v1.4s, v2.4s, v3.s[0]": 0x4f831041, "fmul v1.4s, v2.4s, v3.s[1]": 0x4fa39041,
	"shll v3.4s, v3.4h, #16": 0x2e613863, "fcvtl v3.4s, v3.4h": 0x0e217863,
}

// wordsOf are the instructions written as words in a text, by their own.
func wordsOf(text string) map[string]uint32 {
	found := map[string]uint32{}
	for _, m := range regexp.MustCompile(`WORD \$0x([0-9a-f]{8}) // (.*)`).FindAllStringSubmatch(text, -1) {
		var w uint32
		fmt.Sscanf(m[1], "%x", &w)
		found[m[2]] = w
	}
	return found
}

func TestEveryKindOfWordIsAKnownOne(t *testing.T) {
	a := new(asm)
	for op := range three {
		a.v3(op, "V8", "V3", "V31")
	}
	for op := range two {
		a.v2(op, "V8", "V3")
	}
	a.byElement("fmla", "V31", "V3", "V17", 3)
	a.byElement("fmla", "V1", "V2", "V3", 0)
	a.byElement("fmul", "V1", "V2", "V3", 1)
	a.widen("BF16", "V3")
	a.widen("F16", "V3")
	if got := wordsOf(a.String()); !maps.Equal(got, known) {
		t.Errorf("got %x\nwant %x", got, known)
	}
}

// TestGNUAssemblesEveryWordFromItsText needs as for arm64: Debian's binutils-aarch64-linux-gnu.
func TestGNUAssemblesEveryWordFromItsText(t *testing.T) {
	as, err := exec.LookPath("aarch64-linux-gnu-as")
	if err != nil {
		t.Skip(err)
	}
	all := maps.Clone(known)
	for _, text := range neonFiles() {
		maps.Copy(all, wordsOf(text))
	}
	texts := slices.Sorted(maps.Keys(all))
	object, image := filepath.Join(t.TempDir(), "o"), filepath.Join(t.TempDir(), "bin")
	assemble := exec.Command(as, "-o", object, "-")
	assemble.Stdin = strings.NewReader(strings.Join(texts, "\n") + "\n")
	for _, c := range []*exec.Cmd{assemble, exec.Command("aarch64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", object, image)} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	code, err := os.ReadFile(image)
	if err != nil || len(code) != 4*len(texts) {
		t.Fatalf("%d bytes for %d instructions, %v", len(code), len(texts), err)
	}
	for i, text := range texts {
		if got := binary.LittleEndian.Uint32(code[4*i:]); got != all[text] {
			t.Errorf("%s is 0x%08x, not 0x%08x", text, got, all[text])
		}
	}
}
