package data

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts the calls of Encode, of which there are none where the rows come from the cache.
type counted struct {
	Tokenizer
	calls atomic.Int64
	delay time.Duration
}

func (c *counted) Encode(text string, special bool) []int32 {
	c.calls.Add(1)
	time.Sleep(c.delay)
	return c.Tokenizer.Encode(text, special)
}

var (
	helperFile  = flag.String("helper.file", "", "data file that the helper process opens")
	helperCache = flag.String("helper.cache", "", "its cache directory")
	helperDelay = flag.Duration("helper.delay", 0, "how long it takes over each row")
)

// TestHelperProcess is what the tests below start as other processes; by itself it does nothing.
func TestHelperProcess(t *testing.T) {
	if *helperFile == "" {
		return
	}
	_, tok := golden(t)
	c := &counted{Tokenizer: tok, delay: *helperDelay}
	s, err := Open(context.Background(), config(*helperFile, *helperCache), c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("rows=%d built=%v\n", s.Len(), c.calls.Load() > 0)
}

func config(path, cache string) Config {
	return Config{Files: []string{path}, Seq: 64, Packing: true, CacheDir: cache, TokenizerHash: "bpe"}
}

func helper(path, cache string, delay time.Duration) *exec.Cmd {
	return exec.Command(os.Args[0], "-test.run=^TestHelperProcess$", "-helper.file="+path, "-helper.cache="+cache, "-helper.delay="+delay.String())
}

func texts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"text\":\"row %d %s\"}\n", i, strings.Repeat("x", i%37))
	}
	return b.String()
}

// opened opens the set and says whether it had to be built.
func opened(t *testing.T, c Config) (*Set, bool) {
	t.Helper()
	_, tok := golden(t)
	counter := &counted{Tokenizer: tok}
	s := open1(t, c, counter)
	return s, counter.calls.Load() > 0
}

func cacheFiles(t *testing.T, dir, pattern string) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOneOfManyProcessesBuildsTheCache(t *testing.T) {
	path, cache := file(t, "a.jsonl", texts(100)), filepath.Join(t.TempDir(), "cache")
	var cmds []*exec.Cmd
	var outs []*strings.Builder
	for range 3 {
		cmd, out := helper(path, cache, time.Millisecond), &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	built := 0
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, outs[i])
		}
		built += strings.Count(outs[i].String(), "built=true")
	}
	if built != 1 {
		t.Errorf("%d of %d processes built it: %v", built, len(cmds), outs)
	}
	s, again := opened(t, config(path, cache))
	private := open1(t, Config{Files: []string{path}, Seq: 64, Packing: true}, func() Tokenizer { _, tok := golden(t); return tok }())
	if again || !same(tokensOf(s), tokensOf(private)) || s.Stats() != private.Stats() {
		t.Errorf("the cache holds something else: %+v, %+v", s.Stats(), private.Stats())
	}
}

func TestAProcessKilledWhileBuildingLeavesNoCache(t *testing.T) {
	path, cache := file(t, "a.jsonl", texts(100)), t.TempDir()
	cmd := helper(path, cache, 50*time.Millisecond)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for len(cacheFiles(t, cache, "*.aside")) == 0 { // it has begun, and needs five seconds
		time.Sleep(time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if left := cacheFiles(t, cache, "*.rows"); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
	s, built := opened(t, config(path, cache))
	if !built || s.Stats().Rows != 100 {
		t.Errorf("built %v, %+v", built, s.Stats())
	}
	if left := cacheFiles(t, cache, "*.aside"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestADamagedCacheIsBuiltAnew(t *testing.T) {
	path, cache := file(t, "a.jsonl", texts(50)), t.TempDir()
	first, built := opened(t, config(path, cache))
	if !built {
		t.Fatal("the first was not built")
	}
	want := tokensOf(first)
	at := cacheFiles(t, cache, "*.rows")[0]
	good, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string][]byte{"emptied": {}, "cut": good[:len(good)-1], "cut to a footer": good[len(good)-footerBytes:], "lengthened": append(slices.Clone(good), make([]byte, 64)...)}
	for _, bit := range []int{0, len(good) / 2, len(good) - 1, len(good) - 20, len(good) - footerBytes + 2} {
		b := slices.Clone(good)
		b[bit] ^= 4
		damage[fmt.Sprintf("flipped at %d of %d", bit, len(good))] = b
	}
	for name, b := range damage {
		// Another file, as a crash would leave it: the mapped one stays whole.
		os.Remove(at)
		if err := os.WriteFile(at, b, 0o644); err != nil {
			t.Fatal(err)
		}
		s, built := opened(t, config(path, cache))
		if !built || !same(tokensOf(s), want) {
			t.Errorf("%s: built anew %v", name, built)
		}
		if _, built := opened(t, config(path, cache)); built {
			t.Errorf("%s: built twice", name)
		}
	}
}

func TestWhateverChangesTheRowsChangesTheCache(t *testing.T) {
	path, cache := file(t, "a.jsonl", texts(50)), t.TempDir()
	base := config(path, cache)
	opened(t, base)
	for name, change := range map[string]func(*Config){
		"seq": func(c *Config) { c.Seq = 65 }, "packing": func(c *Config) { c.Packing = false }, "too long": func(c *Config) { c.TooLong = Split },
		"train on prompt": func(c *Config) { c.TrainOnPrompt = true }, "vocabulary": func(c *Config) { c.VocabSize = 1000 },
		"tokenizer": func(c *Config) { c.TokenizerHash = "other" }, "order of files": func(c *Config) { c.Files = []string{path, path} },
		"kind of file": func(c *Config) { c.Files = []string{file(t, "a.txt", texts(50))} }, "content": func(c *Config) { c.Files = []string{file(t, "a.jsonl", texts(51))} },
	} {
		c := base
		change(&c)
		if _, built := opened(t, c); !built {
			t.Errorf("another %s uses the same cache", name)
		}
		if _, built := opened(t, c); built {
			t.Errorf("another %s is not cached", name)
		}
	}
	moved := base
	moved.Files = []string{file(t, "moved.jsonl", texts(50))}
	if _, built := opened(t, moved); built {
		t.Error("the same content elsewhere is built again")
	}
	_, tok := golden(t)
	tok.template = "{{ messages }}"
	counter := &counted{Tokenizer: tok}
	if open1(t, base, counter); counter.calls.Load() == 0 {
		t.Error("another chat template uses the same cache")
	}
}

func TestAFailedBuildLeavesNothingAndWaitingCanBeCancelled(t *testing.T) {
	path, cache := file(t, "a.jsonl", texts(5)+"{"), t.TempDir()
	_, tok := golden(t)
	if _, err := Open(context.Background(), config(path, cache), tok); err == nil || !strings.Contains(err.Error(), path+":6: malformed") {
		t.Errorf("got %v", err)
	}
	if left := append(cacheFiles(t, cache, "*.rows"), cacheFiles(t, cache, "*.aside")...); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	c := config(file(t, "b.jsonl", texts(5)), cache)
	c.VocabSize = tok.VocabSize()
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	key, err := cacheKey(c, tok)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(context.Background(), filepath.Join(cache, key+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := Open(ctx, c, tok); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCacheFilesThatNoRunOpensAreRemovedInTheEnd(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "a.txt")
	_, tok := golden(t)
	write := func(text string) Set {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Open(context.Background(), config(file, dir), tok)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return *s
	}
	rows := func(s Set) string { return filepath.Join(dir, s.Key()+".rows") }
	used, left := rows(write(texts(5))), rows(write(texts(6)))
	foreign := filepath.Join(dir, "my.rows")
	if err := os.WriteFile(foreign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-unused - time.Hour)
	for _, path := range []string{used, left, foreign} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	write(texts(5)) // opens one of them again
	fresh := rows(write(texts(7)))
	for path, want := range map[string]bool{used: true, left: false, foreign: true, fresh: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}
