package cpu_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/splora/splora/model/compute/computetest"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/tensor"
)

// guarded is a backend each of whose operands ends where a page begins that must not be touched, as the last tensor of a mapped file
// does.
type guarded struct {
	*cpu.Backend
	maps [][]byte
}

func (g *guarded) Alloc(n int) tensor.Mem {
	page := os.Getpagesize()
	size := (n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		err = unix.Mprotect(b[size:], unix.PROT_NONE)
	}
	if err != nil {
		panic(err)
	}
	g.maps = append(g.maps, b)
	return tensor.Mem{Host: b[size-n : size : size]}
}

func (g *guarded) free(t *testing.T) {
	for _, b := range g.maps {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	}
}

func TestNoOperationReadsBeyondItsOperands(t *testing.T) {
	for _, isa := range cpu.ISAs() {
		t.Run(isa, func(t *testing.T) {
			g := &guarded{Backend: open(t, cpu.Config{ISA: isa, Threads: 2}).(*cpu.Backend)}
			defer g.free(t)
			computetest.Run(t, g)
		})
	}
}
