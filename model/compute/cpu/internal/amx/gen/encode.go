package main

import "fmt"

// Instructions that Go's assembler does not know, byte by byte (Intel SDM, volume 2: VEX and EVEX prefixes). reg numbers are the
// processor's: AX 0, CX 1, DX 2, BX 3, SI 6, DI 7, R8 … R15.

// gpr are the registers that a memory operand may name.
var gpr = map[string]int{"AX": 0, "CX": 1, "DX": 2, "BX": 3, "SI": 6, "DI": 7, "R8": 8, "R9": 9, "R10": 10, "R11": 11, "R12": 12, "R13": 13}

// Mandatory prefixes of VEX and EVEX.
const (
	none = iota
	p66
	pF3
	pF2
)

// vex is the three-byte prefix of map 0F38, W0, 128 bits; v is the second source, 0 where there is none.
func vex(reg, index, base, v, prefix int) []byte {
	return []byte{0xc4, byte(not(reg>>3)<<7 | not(index>>3)<<6 | not(base>>3)<<5 | 2), byte(^v&15<<3 | prefix)}
}

// not is the complement of the lowest bit.
func not(x int) int { return ^x & 1 }

// sib is the ModRM byte, the SIB byte and a 32-bit displacement of disp(base)(index·1).
func sib(reg, base, index, disp int) []byte {
	return []byte{byte(0x84 | reg&7<<3), byte(index&7<<3 | base&7), byte(disp), byte(disp >> 8), byte(disp >> 16), byte(disp >> 24)}
}

// tileMove is TILELOADD or TILESTORED.
func tileMove(prefix, tile int, base, index string, disp int) []byte {
	b, i := gpr[base], gpr[index]
	return append(append(vex(tile, i, b, 0, prefix), 0x4b), sib(tile, b, i, disp)...)
}

func (a *asm) tileLoad(tile int, base, index string, disp int) {
	a.bytes(fmt.Sprintf("TILELOADD %d(%s)(%s*1), TMM%d", disp, base, index, tile), tileMove(pF2, tile, base, index, disp))
}

// tileStream is tileLoad of what will not be used again soon: it leaves the first cache to others.
func (a *asm) tileStream(tile int, base, index string, disp int) {
	a.bytes(fmt.Sprintf("TILELOADDT1 %d(%s)(%s*1), TMM%d", disp, base, index, tile), tileMove(p66, tile, base, index, disp))
}

func (a *asm) tileStore(tile int, base, index string, disp int) {
	a.bytes(fmt.Sprintf("TILESTORED TMM%d, %d(%s)(%s*1)", tile, disp, base, index), tileMove(pF3, tile, base, index, disp))
}

func tileZero(tile int) []byte { return append(vex(tile, 0, 0, 0, pF2), 0x49, byte(0xc0|tile<<3)) }

func (a *asm) tileZero(tile int) { a.bytes(fmt.Sprintf("TILEZERO TMM%d", tile), tileZero(tile)) }

// tileConfig is LDTILECFG (reg), reg one of AX, CX, DX, BX.
func tileConfig(reg string) []byte { return append(vex(0, 0, 0, 0, none), 0x49, byte(gpr[reg])) }

func (a *asm) tileConfig(reg string) { a.bytes("LDTILECFG ("+reg+")", tileConfig(reg)) }

func tileRelease() []byte { return append(vex(0, 0, 0, 0, none), 0x49, 0xc0) }

func (a *asm) tileRelease() { a.bytes("TILERELEASE", tileRelease()) }

// tileDot is TDPBF16PS: c += x·y, x 16 rows of 16 pairs, y 16 pairs of rows.
func tileDot(c, x, y int) []byte { return append(vex(c, 0, x, y, pF3), 0x5c, byte(0xc0|c<<3|x)) }

func (a *asm) tileDot(c, x, y int) {
	a.bytes(fmt.Sprintf("TDPBF16PS TMM%d, TMM%d, TMM%d", y, x, c), tileDot(c, x, y))
}

// evex is an instruction of map 0F38, W0, 512 bits on registers alone; s1 is the first source, 0 where there is none.
func evex(d, s1, s2, prefix int, op byte) []byte {
	return []byte{0x62, byte(not(d>>3)<<7 | not(s2>>4)<<6 | not(s2>>3)<<5 | not(d>>4)<<4 | 2), byte(^s1&15<<3 | 4 | prefix), byte(0x40 | not(s1>>4)<<3), op, byte(0xc0 | d&7<<3 | s2&7)}
}

// pairDot is VDPBF16PS: d += s1·s2, pair by pair.
func (a *asm) pairDot(s2, s1, d int) {
	a.bytes(fmt.Sprintf("VDPBF16PS Z%d, Z%d, Z%d", s2, s1, d), evex(d, s1, s2, pF3, 0x52))
}

// narrow2 is VCVTNE2PS2BF16: the 16 float32 of lo and those of hi become 32 bfloat16, rounded to nearest even.
func (a *asm) narrow2(lo, hi, d int) {
	a.bytes(fmt.Sprintf("VCVTNE2PS2BF16 Z%d, Z%d, Z%d", lo, hi, d), evex(d, hi, lo, pF2, 0x72))
}
