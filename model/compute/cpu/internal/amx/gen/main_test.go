package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestTheCommittedAssemblyIsWhatTheGeneratorPrints(t *testing.T) {
	for name, want := range files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is stale: run go generate in model/compute/cpu/internal/amx", name)
		}
	}
}

// The bytes are what GNU as 2.40 makes of the instructions; displacements have 32 bits here, and 8 there where that is enough.
func TestEncodingsAreThoseOfGNUAs(t *testing.T) {
	for what, c := range map[string][2][]byte{
		"ldtilecfg [rdx]":                    {tileConfig("DX"), {0xc4, 0xe2, 0x78, 0x49, 0x02}},
		"tilerelease":                        {tileRelease(), {0xc4, 0xe2, 0x78, 0x49, 0xc0}},
		"tilezero tmm0":                      {tileZero(0), {0xc4, 0xe2, 0x7b, 0x49, 0xc0}},
		"tilezero tmm7":                      {tileZero(7), {0xc4, 0xe2, 0x7b, 0x49, 0xf8}},
		"tileloadd tmm5,[rsi+r8*1+0x400]":    {tileMove(pF2, 5, "SI", "R8", 0x400), {0xc4, 0xa2, 0x7b, 0x4b, 0xac, 0x06, 0x00, 0x04, 0x00, 0x00}},
		"tileloadd tmm6,[rdi+r8*1+0x1800]":   {tileMove(pF2, 6, "DI", "R8", 0x1800), {0xc4, 0xa2, 0x7b, 0x4b, 0xb4, 0x07, 0x00, 0x18, 0x00, 0x00}},
		"tileloadd tmm7,[r13+r10*1+0x400]":   {tileMove(pF2, 7, "R13", "R10", 0x400), {0xc4, 0x82, 0x7b, 0x4b, 0xbc, 0x15, 0x00, 0x04, 0x00, 0x00}},
		"tileloaddt1 tmm7,[r13+r10*1+0x400]": {tileMove(p66, 7, "R13", "R10", 0x400), {0xc4, 0x82, 0x79, 0x4b, 0xbc, 0x15, 0x00, 0x04, 0x00, 0x00}},
		"tilestored [r12+r9*1+0xc00],tmm3":   {tileMove(pF3, 3, "R12", "R9", 0xc00), {0xc4, 0x82, 0x7a, 0x4b, 0x9c, 0x0c, 0x00, 0x0c, 0x00, 0x00}},
		"tdpbf16ps tmm0,tmm4,tmm6":           {tileDot(0, 4, 6), {0xc4, 0xe2, 0x4a, 0x5c, 0xc4}},
		"tdpbf16ps tmm3,tmm5,tmm7":           {tileDot(3, 5, 7), {0xc4, 0xe2, 0x42, 0x5c, 0xdd}},
		"tdpbf16ps tmm7,tmm1,tmm2":           {tileDot(7, 1, 2), {0xc4, 0xe2, 0x6a, 0x5c, 0xf9}},
		"vcvtne2ps2bf16 zmm0,zmm1,zmm0":      {evex(0, 1, 0, pF2, 0x72), {0x62, 0xf2, 0x77, 0x48, 0x72, 0xc0}},
		"vcvtne2ps2bf16 zmm17,zmm30,zmm21":   {evex(17, 30, 21, pF2, 0x72), {0x62, 0xa2, 0x0f, 0x40, 0x72, 0xcd}},
		"vdpbf16ps zmm0,zmm26,zmm24":         {evex(0, 26, 24, pF3, 0x52), {0x62, 0x92, 0x2e, 0x40, 0x52, 0xc0}},
		"vdpbf16ps zmm13,zmm27,zmm25":        {evex(13, 27, 25, pF3, 0x52), {0x62, 0x12, 0x26, 0x40, 0x52, 0xe9}},
	} {
		if !bytes.Equal(c[0], c[1]) {
			t.Errorf("%s is % x, want % x", what, c[0], c[1])
		}
	}
}
