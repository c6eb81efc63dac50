package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/splora/splora/model/safetensors"
)

const aside = ".aside-" // prefix of a folder that is being written

// publishDir makes dir whole or not at all: fill writes durable files into a folder aside, and one rename puts it in place. An
// older dir of the same name is replaced.
func publishDir(dir string, fill func(tmp string) error) (err error) {
	parent, base := filepath.Split(filepath.Clean(dir))
	tmp := filepath.Join(parent, aside+base)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return explain(err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
			err = explain(err)
		}
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := safetensors.SyncDir(tmp); err != nil {
		return err
	}
	old := filepath.Join(parent, aside+"old-"+base)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	if err := safetensors.SyncDir(filepath.Clean(parent)); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// publishFile replaces path by content, atomically and durably.
func publishFile(path string, content []byte) error {
	return explain(safetensors.WriteFile(path, content))
}

// removeLeftovers deletes what an interrupted publication left in dir. What it had moved out of the way and not yet replaced
// goes back to its place.
func removeLeftovers(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		half := strings.HasPrefix(e.Name(), ".") && strings.Contains(e.Name(), ".tmp-") // as safetensors names a file that is being written
		if !half && !strings.HasPrefix(e.Name(), aside) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if base, was := strings.CutPrefix(e.Name(), aside+"old-"); was {
			if _, err := os.Lstat(filepath.Join(dir, base)); errors.Is(err, fs.ErrNotExist) {
				if err := os.Rename(path, filepath.Join(dir, base)); err != nil {
					return err
				}
				continue
			}
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// explain adds what to do to an error of the file system.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: the disk is full; what was published before is untouched: free some space and run the same command again", err)
	}
	return err
}
