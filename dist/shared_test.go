package dist

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// shares tells of each rank whether its data come and go through memory.
func shares(g Group) (in, out bool) {
	_, in = g.(*group).in.(*sharedIn)
	_, out = g.(*group).out.(*sharedOut)
	return in, out
}

// The sums through memory are those over the network, bit for bit, and as many bytes are counted.
func TestRanksOfOneHostPassTheSameBytesThroughMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is shared on Linux only")
	}
	for _, world := range []int{2, 3} {
		for _, n := range []int{1, 5, 1003, slotBytes/4 + 1, 3*slots*slotBytes/4 + 77} {
			in := vectors(uint64(n), world, n)
			for _, apart := range []bool{false, true} {
				cs := configs(t, world)
				for i := range cs {
					cs[i].Apart = apart
				}
				gs, out := mustJoin(t, cs), clones(in)
				for r, g := range gs {
					if i, o := shares(g); i == apart || o == apart {
						t.Fatalf("apart %v: rank %d shares %v with its left and %v with its right neighbour", apart, r, i, o)
					}
				}
				before := make([]Traffic, world)
				for r, g := range gs {
					before[r] = g.Traffic()
				}
				for range 2 { // the second begins in the middle of the slots
					copy(out, clones(in))
					if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(Floats(out[g.Rank()])) })...); err != nil {
						t.Fatal(err)
					}
				}
				checkSum(t, in, out)
				for r, g := range gs {
					if sent := g.Traffic().DataWritten - before[r].DataWritten; sent != 2*RingBytes(world, r, n) {
						t.Errorf("%d floats, apart %v: rank %d counts %d bytes, RingBytes says %d", n, apart, r, sent, 2*RingBytes(world, r, n))
					}
				}
				if err := errors.Join(onAll(gs, func(g Group) error { return g.Broadcast(Floats(out[g.Rank()]), world-1) })...); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(out[0], out[world-1]) {
					t.Errorf("%d floats, apart %v: the broadcast gives other numbers", n, apart)
				}
			}
		}
	}
}

func TestARankThatGoesFreesThoseThatWaitForItsMemory(t *testing.T) {
	gs := mustJoin(t, configs(t, 2))
	done := make(chan error, 1)
	go func() { done <- gs[0].AllReduce(make(Floats, 40*slots*slotBytes/4)) }()
	time.Sleep(50 * time.Millisecond) // it has filled its slots by now, or will never
	gs[1].(*group).closeData()
	select {
	case err := <-done:
		var a *Aborted
		if !errors.As(err, &a) {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it still waits")
	}
}

// Memory is taken only if it is what the authenticated connection says it is.
func TestOtherMemoryThanTheOfferedIsNotTaken(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is shared on Linux only")
	}
	mine, o, done, err := newShared()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	mine.slot(slots - 1)[slotBytes-1] = 42
	if s, err := openShared(o); err != nil || s.slot(slots - 1)[slotBytes-1] != 42 {
		t.Errorf("the offer itself: %v", err)
	}
	_, other, done2, err := newShared()
	if err != nil {
		t.Fatal(err)
	}
	defer done2()
	short, open := filepath.Join(t.TempDir(), "short"), filepath.Join(t.TempDir(), "open")
	for path, n := range map[string]int{short: sharedBytes - 1, open: sharedBytes} {
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []offer{{other.Path, o.Token}, {o.Path, o.Token[:5]}, {o.Path, nil}, {"/proc/1/fd/9999", o.Token}, {short, o.Token}, {open, make([]byte, tokenBytes)}} {
		if s, err := openShared(bad); err == nil || s != nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if s := fmt.Sprint(o.Path); !strings.HasPrefix(s, "/proc/") {
		t.Errorf("the memory has the name %s, which may stay behind", s)
	}
}
