package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// openCache maps the cache file of c, making it first if it is missing or damaged. One process makes it, under a lock;
// the others wait.
func openCache(ctx context.Context, c Config, tok Tokenizer) (*Set, error) {
	if c.CacheDir == "" {
		return openPrivate(ctx, c, tok)
	}
	before, err := identities(c.Files)
	if err != nil {
		return nil, err
	}
	key, err := cacheKey(c, tok)
	if err != nil {
		return nil, err
	}
	s, err := openKeyed(ctx, key, before, c, tok)
	if err == nil {
		s.key = key
	}
	return s, err
}

func openKeyed(ctx context.Context, key, before string, c Config, tok Tokenizer) (*Set, error) {
	path := filepath.Join(c.CacheDir, key+".rows")
	if s, err := load(path); err == nil {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // it is in use; a folder that must not be written keeps its files anyway
		return s, nil
	}
	if err := os.MkdirAll(c.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("data: cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(c.CacheDir, key+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err := load(path); err == nil {
		return s, nil
	}
	if err := publish(ctx, path, before, c, tok); err != nil {
		return nil, err
	}
	dropUnused(c.CacheDir)
	return reload(path)
}

// unused is how long a cache file that no run opens is kept.
const unused = 60 * 24 * time.Hour

// cacheName is what the files of this cache are called; others in the same folder are none of ours.
var cacheName = regexp.MustCompile(`^[0-9a-f]{32}\.rows(\.aside)?$`)

// dropUnused removes what no run has opened for long from a cache folder. Who still has a file mapped keeps it.
func dropUnused(dir string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		info, err := e.Info()
		if err == nil && cacheName.MatchString(e.Name()) && info.Mode().IsRegular() && time.Since(info.ModTime()) > unused {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// reload maps a cache file that has just been written.
func reload(path string) (*Set, error) {
	s, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("data: cache file %s cannot be read back: %w", path, err)
	}
	return s, nil
}

// openPrivate makes a cache file that no one else sees and that is gone when the set is closed.
func openPrivate(ctx context.Context, c Config, tok Tokenizer) (*Set, error) {
	f, err := os.CreateTemp("", "splora-data-*.rows")
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if err := build(ctx, f, c, tok); err != nil {
		return nil, err
	}
	return reload(f.Name())
}

// publish makes the file aside, in the same directory, and renames it when it is on disk. Under the lock no one else
// writes aside, so what an earlier process left there when it was killed is overwritten. before is what the files were
// when the key was made.
func publish(ctx context.Context, path, before string, c Config, tok Tokenizer) (err error) {
	aside := path + ".aside"
	f, err := os.Create(aside)
	if err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(aside)
		}
	}()
	if err := build(ctx, f, c, tok); err != nil {
		return err
	}
	if after, err := identities(c.Files); err != nil || after != before {
		return fmt.Errorf("data: %s changed while it was read; run again", strings.Join(c.Files, ", "))
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// identities returns sizes and times of files, which change when they are written to.
func identities(paths []string) (string, error) {
	var s string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("data: %w", err)
		}
		s += fmt.Sprintln(info.Size(), info.ModTime().UnixNano())
	}
	return s, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("data: cache: %w", err)
	}
	return nil
}

// lock takes the lock file, waiting for whoever holds it. The kernel frees it when its process dies.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data: cache: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("data: cache: lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cacheKey is the hash of everything that changes the rows.
func cacheKey(c Config, tok Tokenizer) (string, error) {
	type file struct{ Kind, SHA256 string }
	k := struct {
		Version, Seq, Vocab    int
		Packing, TrainOnPrompt bool
		TooLong                TooLong
		Tokenizer, Template    string
		EOS                    int32
		Files                  []file
	}{Version: cacheVersion, Seq: c.Seq, Vocab: c.VocabSize, Packing: c.Packing, TrainOnPrompt: c.TrainOnPrompt,
		TooLong: c.TooLong, Tokenizer: c.TokenizerHash, EOS: -1}
	if tok != nil {
		k.Template = tok.ChatTemplate()
		if id, ok := tok.EOS(); ok {
			k.EOS = id
		}
	}
	for _, p := range c.Files {
		sum, err := hashFile(p)
		if err != nil {
			return "", err
		}
		kind, zipped := form(p)
		k.Files = append(k.Files, file{fmt.Sprint(kind, zipped), sum})
	}
	b, err := json.Marshal(k)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("data: %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// load maps a cache file and checks all of it.
func load(path string) (*Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < footerBytes {
		return nil, errCache
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("data: map %s: %w", path, err)
	}
	s, err := parse(mem)
	if err != nil {
		unix.Munmap(mem)
		return nil, err
	}
	return s, nil
}
