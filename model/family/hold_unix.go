//go:build unix

package family

import (
	"os"

	"golang.org/x/sys/unix"
)

// hold takes a folder for this process; false: another one has it, or it cannot be told. The system lets go when the process ends,
// however it does.
func hold(dir string) (release func(), held bool) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, false
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return func() {}, false
	}
	return func() { f.Close() }, true
}
