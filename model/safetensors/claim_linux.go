package safetensors

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// claim reserves size bytes for f where the file system can.
func claim(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return f.Truncate(size)
}
