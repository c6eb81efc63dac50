//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// creations is a queue of the names of files that appear in a folder.
type creations int

func watchCreations(t *testing.T, dir string) creations {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return creations(fd)
}

// names takes what has come so far from the queue.
func (c creations) names(t *testing.T) (names []string) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(int(c), buf)
		if err == unix.EAGAIN {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < n; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
			at += unix.SizeofInotifyEvent
			names = append(names, strings.TrimRight(string(buf[at:at+int(e.Len)]), "\x00"))
			at += int(e.Len)
		}
	}
}

func TestDataIsTokenisedOncePerHost(t *testing.T) {
	w := newWorld(t)
	if err := os.Mkdir(w.path("cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	seen := watchCreations(t, w.path("cache"))
	count := func(suffix string) (n int) {
		for _, name := range seen.names(t) {
			if strings.HasSuffix(name, suffix) {
				n++
			}
		}
		return n
	}
	run := func(out string) {
		t.Helper()
		if o := start(t, "launch", nil, w.train("--out", w.path(out))...).wait(); o.code != exitDone {
			t.Fatalf("exit code %d\n%s", o.code, o.stderr)
		}
	}
	run("first")
	if n := count(".rows"); n != 1 {
		t.Errorf("two ranks made %d caches, want one", n)
	}
	run("second")
	if n := count(".rows"); n != 0 {
		t.Errorf("a second run with the same data made %d caches, want none", n)
	}
	// The cache is keyed by content, not by name.
	b, err := os.ReadFile(w.path("rows.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "moved.jsonl", string(b))
	if ok(t, w.train("--out", w.path("third"), "--data", w.path("moved.jsonl"))...); count(".rows") != 0 {
		t.Error("the same rows in another file were tokenised again")
	}
	w.write(t, "rows.jsonl", strings.Replace(string(b), "row 3", "row 9", 1))
	if ok(t, w.train("--out", w.path("fourth"))...); count(".rows") != 1 {
		t.Error("changed rows in the same file were not tokenised")
	}
	if left, _ := filepath.Glob(w.path("cache/*.aside")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
