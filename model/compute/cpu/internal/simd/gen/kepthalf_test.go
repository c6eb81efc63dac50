package main

import (
	"fmt"
	"testing"
)

// As GNU as 2.40 assembles them with {disp32}.
func TestTheBytesOfAProductOfPairs(t *testing.T) {
	for _, c := range []struct {
		disp  int
		base  string
		s1, d int
		want  string
	}{
		{0, "AX", 28, 0, "62f21e405280" + "00000000"},
		{-256, "AX", 31, 15, "6272064052b8" + "00ffffff"},
		{4096, "R14", 16, 7, "62d27e4052be" + "00100000"},
		{448, "R13", 23, 3, "62d24640529d" + "c0010000"},
		{64, "R11", 17, 4, "62d2764052a3" + "40000000"},
		{64, "R15", 3, 20, "62c2664852a7" + "40000000"},
	} {
		if got := fmt.Sprintf("%x", pairDotBytes(c.disp, c.base, c.s1, c.d)); got != c.want {
			t.Errorf("VDPBF16PS %d(%s), Z%d, Z%d is %s, want %s", c.disp, c.base, c.s1, c.d, got, c.want)
		}
	}
}

// As GNU as 2.40 assembles them.
func TestTheBytesOfAProductOfPairsInRegisters(t *testing.T) {
	for _, c := range []struct {
		s2, s1, d int
		want      string
	}{
		{20, 24, 0, "62b23e4052c4"},
		{23, 25, 15, "6232364052ff"},
		{12, 9, 31, "6242364852fc"},
		{3, 16, 8, "62727e4052c3"},
	} {
		if got := fmt.Sprintf("%x", pairDotOfBytes(c.s2, c.s1, c.d)); got != c.want {
			t.Errorf("VDPBF16PS Z%d, Z%d, Z%d is %s, want %s", c.s2, c.s1, c.d, got, c.want)
		}
	}
}
