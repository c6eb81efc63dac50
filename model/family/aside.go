package family

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/splora/splora/model/safetensors"
)

// Vacant reports that a folder cannot be written to out, because something is there. Those that write one check it
// themselves; what takes long before it writes asks first.
func Vacant(out string) error {
	switch names, err := os.ReadDir(out); {
	case err == nil && len(names) > 0:
		return fmt.Errorf("family: %s exists and is not empty; choose another folder or remove it", out)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// aside lets fill write into a new folder beside out, and renames it when it is complete and durable.
func aside(out string, fill func(dir string) error) (err error) {
	out = filepath.Clean(out)
	if err := Vacant(out); err != nil {
		return err
	}
	if to, err := filepath.EvalSymlinks(out); err == nil {
		out = to // a link stays one
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("family: %w", err)
	}
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return inside(out, fill)
	}
	sweep(filepath.Dir(out), filepath.Base(out)+".tmp-")
	dir, err := os.MkdirTemp(filepath.Dir(out), filepath.Base(out)+".tmp-")
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	release, _ := hold(dir)
	defer release()
	defer os.RemoveAll(dir) // nothing is left there after the rename
	if err := fill(dir); err != nil {
		return err
	}
	err = errors.Join(os.Chmod(dir, 0o755), safetensors.SyncDir(dir))
	if err == nil {
		err = os.Rename(dir, out)
	}
	if err == nil {
		err = safetensors.SyncDir(filepath.Dir(out))
	}
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// moment is how long a folder may stand before the process that makes it holds it.
const moment = time.Minute

// sweep removes what processes that were killed have left of the same output.
func sweep(parent, prefix string) {
	names, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, n := range names {
		info, err := n.Info()
		if err != nil || !n.IsDir() || !strings.HasPrefix(n.Name(), prefix) || time.Since(info.ModTime()) < moment {
			continue
		}
		path := filepath.Join(parent, n.Name())
		if release, held := hold(path); held {
			os.RemoveAll(path)
			release()
		}
	}
}

// inside is aside for an empty folder that cannot be replaced: a mount point, the working directory as ".", a folder in one that
// must not be written. fill writes into a folder in it, and the files move up, config.json last: without it there is no model.
func inside(out string, fill func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(out, ".tmp-")
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := fill(dir); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	last := filepath.Base(configPath(dir))
	for _, n := range names {
		if err == nil && n.Name() != last {
			err = os.Rename(filepath.Join(dir, n.Name()), filepath.Join(out, n.Name()))
		}
	}
	if err == nil {
		err = safetensors.SyncDir(out)
	}
	if err == nil {
		err = os.Rename(configPath(dir), configPath(out))
	}
	if err == nil {
		err = safetensors.SyncDir(out)
	}
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return nil
}

// auxiliary are the files beside weights and config.json that a model needs to be used.
var auxiliary = []string{"tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.tiktoken",
	"chat_template*", "generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*"}

// CopyAux copies the tokenizer's files, chat templates, generation_config.json and licences from the folder src to dst.
func CopyAux(src, dst string) error {
	names, err := os.ReadDir(src)
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	for _, n := range names {
		keep := slices.ContainsFunc(auxiliary, func(p string) bool { ok, _ := filepath.Match(p, n.Name()); return ok })
		st, err := os.Stat(filepath.Join(src, n.Name())) // follows links, as caches have them
		if !keep || err == nil && !st.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return fmt.Errorf("family: %w", err)
		}
		b, err := os.ReadFile(filepath.Join(src, n.Name()))
		if err != nil {
			return fmt.Errorf("family: %w", err)
		}
		if err := safetensors.WriteFile(filepath.Join(dst, n.Name()), b); err != nil {
			return fmt.Errorf("family: %w", err)
		}
	}
	return nil
}
