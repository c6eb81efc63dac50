//go:build cuda

package nccl

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// real runs a test against NVIDIA's libraries: those of SPLORA_TEST_NCCL (paths, separated by colons), else the one that Open
// finds by itself.
func real(t *testing.T, f func(t *testing.T, l *Library)) {
	paths := filepath.SplitList(os.Getenv("SPLORA_TEST_NCCL"))
	if len(paths) == 0 {
		l, err := Open("")
		if err != nil {
			t.Skip("NVIDIA's NCCL is not on this machine (pip install nvidia-nccl-cu13): ", err)
		}
		t.Log(l.Path(), l.GetVersion())
		f(t, l)
		return
	}
	for _, p := range paths {
		l, err := Open(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(l.GetVersion().String(), func(t *testing.T) { f(t, l) })
	}
}

// withoutGPU skips where a communicator could be formed.
func withoutGPU(t *testing.T) {
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("this machine has a GPU")
	}
}

func TestTheRealLibraryIsOpenedWithAVersionAndAllThatIsRequired(t *testing.T) {
	real(t, func(t *testing.T, l *Library) {
		if v := l.GetVersion(); v < oldest || v/10000 != 2 {
			t.Errorf("version %d", int(v))
		}
		if _, err := os.Stat(l.Path()); err != nil {
			t.Error(err)
		}
		for _, o := range optional {
			if l.Has(o.symbol) != (l.GetVersion() >= o.since) {
				t.Errorf("%s since %s: present is %v in %s", o.symbol, o.since, l.Has(o.symbol), l.GetVersion())
			}
		}
	})
}

func TestTheRealLibraryMakesUniqueIdsWithoutAGPUAndEachIsNew(t *testing.T) {
	real(t, func(t *testing.T, l *Library) {
		seen := map[UniqueId]bool{}
		for range 4 {
			id, err := l.GetUniqueId()
			if err != nil {
				t.Fatal(err)
			}
			if seen[id] || id == (UniqueId{}) {
				t.Error("an id came twice, or is empty")
			}
			seen[id] = true
		}
	})
}

func TestTheRealLibraryWithoutAGPURefusesACommunicatorAtOnceWithItsReason(t *testing.T) {
	withoutGPU(t)
	real(t, func(t *testing.T, l *Library) {
		id, err := l.GetUniqueId()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, err := l.CommInitRankConfig(ctx, 2, id, 0, Config{})
		if c != nil || !errors.Is(err, UnhandledCudaError) || ctx.Err() != nil {
			t.Fatal(c, err)
		}
		if e := (*Error)(nil); !errors.As(err, &e) || e.Call != "ncclCommInitRankConfig" || !strings.Contains(e.Text, "Cuda failure") || l.GetLastError() != e.Text {
			t.Errorf("%v, last error %q", err, l.GetLastError())
		}
		if !l.Has("ncclMemAlloc") {
			_, err := l.MemAlloc(1 << 20)
			if m := (*MissingError)(nil); !errors.As(err, &m) || m.Since != 21901 {
				t.Error(err)
			}
		} else if _, err := l.MemAlloc(1 << 20); !errors.Is(err, UnhandledCudaError) {
			t.Error(err)
		}
	})
}

func TestTheRealLibraryDoesNotBeginWhatIsTooLate(t *testing.T) {
	real(t, func(t *testing.T, l *Library) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.CommInitRankConfig(ctx, 2, UniqueId{}, 0, Config{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestTheRealLibraryTakesAnEmptyGroup(t *testing.T) {
	real(t, func(t *testing.T, l *Library) {
		if err := errors.Join(l.GroupStart(), l.GroupEnd()); err != nil {
			t.Error(err)
		}
	})
}

// TestBeARealLibraryWithoutAnInterface is the child of the test below.
func TestBeARealLibraryWithoutAnInterface(t *testing.T) {
	if os.Getenv("NCCL_SOCKET_IFNAME") != "nosuch0" {
		return // only as a child
	}
	real(t, func(t *testing.T, l *Library) {
		_, err := l.GetUniqueId()
		t.Log("ANSWER", l.GetVersion(), err)
	})
}

func TestTheRealLibrarySaysInItsOwnWordsWhyThereIsNoUniqueId(t *testing.T) {
	real(t, func(t *testing.T, l *Library) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBeARealLibraryWithoutAnInterface$", "-test.v")
		cmd.Env = append(os.Environ(), "NCCL_SOCKET_IFNAME=nosuch0", "SPLORA_TEST_NCCL="+l.Path())
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("ANSWER "+l.GetVersion().String()+" nccl: ncclGetUniqueId: ")) || !bytes.Contains(out, []byte("no socket interface found")) {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestALibraryThatIsNotThereOrNotNCCLIsAClearError(t *testing.T) {
	empty := t.TempDir()
	text := filepath.Join(empty, "libnccl.txt")
	if err := os.WriteFile(text, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/nonexistent/libnccl.so.2": "/nonexistent/libnccl.so.2: no such library",
		empty:                       empty + " holds neither libnccl.so.2 nor",
		text:                        "libnccl.txt: file too short",
	} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	libm, _ := filepath.Glob("/lib/*-linux-gnu/libm.so.6")
	if len(libm) == 0 {
		t.Skip("no other library to try")
	}
	if _, err := Open(libm[0]); err == nil || !strings.Contains(err.Error(), "is not an NCCL library: it has no ncclGetVersion") {
		t.Error(err)
	}
}
