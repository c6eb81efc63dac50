//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const small = "SPLORA_TEST_SMALL_DISK" // set for a copy of the test in a mount namespace of its own

// inNamespace runs this test again where it may mount, as a user namespace's root if it is not root already.
func inNamespace(t *testing.T) {
	t.Helper()
	var out []byte
	var err error
	for _, flags := range []uintptr{unix.CLONE_NEWNS, unix.CLONE_NEWNS | unix.CLONE_NEWUSER} {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), small+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags&unix.CLONE_NEWUSER != 0 {
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		if out, err = c.CombinedOutput(); !errors.Is(err, os.ErrPermission) && !strings.Contains(string(out), "no mounts here") {
			break
		}
	}
	switch {
	case errors.Is(err, os.ErrPermission) || strings.Contains(string(out), "no mounts here"):
		t.Skip("this system lets the test have no disk of its own: ", err)
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("%v\n%s", err, out)
	}
}

// disk mounts an empty file system of so many bytes at dir, or changes its size.
func disk(t *testing.T, dir, size string, flags uintptr) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size="+size); err != nil {
		t.Log("no mounts here: ", err)
		t.FailNow()
	}
}

func TestADiskThatFillsUpLeavesTheLastCheckpointAndTheRunGoesOn(t *testing.T) {
	if os.Getenv(small) == "" {
		inNamespace(t)
		return
	}
	w := newWorld(t)
	more := []string{"--save-every", "1", "--keep-last", "0", "--max-steps", "12"}
	ok(t, w.train(append(more, "--out", w.path("whole"))...)...)
	disk(t, w.path("disk"), "400k", 0)
	defer unix.Unmount(w.path("disk"), unix.MNT_DETACH)
	args := w.train(append(more, "--out", w.path("disk/out"))...)
	o := splora(t, args...)
	last := strings.TrimSpace(o.stderr[strings.LastIndex(strings.TrimSpace(o.stderr), "\n")+1:])
	if o.code != exitFailed || !strings.HasPrefix(last, "splora: train: step ") || !strings.Contains(last, "disk is full") || strings.Contains(o.stderr, "goroutine ") {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	k := &killer{world: w, out: "disk/out"}
	if k.whole(t) || k.newest() == 0 || k.newest() >= 12 {
		t.Errorf("something is left half-written, or the newest checkpoint %d is not one in the middle", k.newest())
	}
	disk(t, w.path("disk"), "4m", unix.MS_REMOUNT)
	ok(t, args...)
	w.sameRun(t, "whole", "disk/out")
}

func TestAFullDiskLeavesNoHalfWrittenFolder(t *testing.T) {
	if os.Getenv(small) == "" {
		inNamespace(t)
		return
	}
	w := newWorld(t)
	ok(t, w.train()...)
	disk(t, w.path("disk"), "24k", 0)
	defer unix.Unmount(w.path("disk"), unix.MNT_DETACH)
	out := w.path("disk/new")
	for _, args := range [][]string{
		{"prune", "--model", w.path("model"), "--pruner", "magnitude", "--out", out},
		{"export", "--model", w.path("model"), "--out", out},
		{"merge", "--model", w.path("model"), "--adapter", w.path("out"), "--out", out},
		{"init", "--config", w.path("model/config.json"), "--out", out},
		w.train("--out", w.path("disk/run")),
		w.train("--out", w.path("run2"), "--cache-dir", w.path("disk/cache"), "--data", w.write(t, "long.txt", strings.Repeat("the text ", 1<<14))),
	} {
		o := splora(t, args...)
		if o.code != exitFailed || strings.Count("\n"+o.stderr, "\nsplora: ") != 1 || !strings.Contains(o.stderr, "no space left on device") || strings.Contains(o.stderr, "goroutine ") {
			t.Errorf("splora %s: exit code %d\n%s", args[0], o.code, o.stderr)
		}
		left, _ := filepath.Glob(w.path("disk/*"))
		hidden, _ := filepath.Glob(w.path("disk/.*"))
		for _, f := range append(left, hidden...) {
			if strings.HasSuffix(f, "run") || strings.HasSuffix(f, "cache") {
				continue
			}
			t.Errorf("splora %s left %s", args[0], f)
		}
		if args[0] == "train" {
			for _, glob := range []string{"disk/run/checkpoint-*", "disk/run/.*", "disk/cache/*.rows*"} {
				if list, _ := filepath.Glob(w.path(glob)); len(list) > 0 {
					t.Errorf("left %v", list)
				}
			}
		}
		os.RemoveAll(w.path("disk/run"))
		os.RemoveAll(w.path("disk/cache"))
	}
}
