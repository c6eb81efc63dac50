package family

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestWhatAKilledProcessLeftOfTheSameOutputIsRemoved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it cannot be told there who lives")
	}
	dir := t.TempDir()
	old := time.Now().Add(-2 * moment)
	for name, age := range map[string]time.Time{"out.tmp-1": old, "out.tmp-2": old, "out.tmp-3": time.Now(), "other.tmp-1": old, "out.tmp": old} {
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), age, age); err != nil {
			t.Fatal(err)
		}
	}
	release, held := hold(filepath.Join(dir, "out.tmp-2")) // another process is still writing there
	if !held {
		t.Fatal("a folder that nobody holds cannot be held")
	}
	defer release()
	err := aside(filepath.Join(dir, "out"), func(d string) error { return os.WriteFile(filepath.Join(d, "config.json"), []byte("{}"), 0o644) })
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"out": true, "out.tmp-1": false, "out.tmp-2": true, "out.tmp-3": true, "other.tmp-1": true, "out.tmp": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", name, err == nil, want)
		}
	}
}
