package dist

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newShared makes memory for one direction of a pair of ranks, and gives the way to it that the other process can go: through the
// descriptor of an unnamed file, which only a process of the same user may open. Nothing of it outlives the two.
func newShared() (s *shared, o offer, done func(), err error) {
	fd, err := unix.MemfdCreate("splora", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, o, nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = unix.Fallocate(fd, 0, 0, sharedBytes); err != nil { // the memory is there, or it is not shared
		return nil, o, nil, err
	}
	// No other size from now on: an access beyond the end would kill the process.
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, o, nil, err
	}
	if s, err = mapShared(fd, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil, o, nil, err
	}
	rand.Read(s.token())
	o = offer{Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), Token: append([]byte(nil), s.token()...)}
	return s, o, func() { unix.Close(fd) }, nil
}

// openShared takes an offer, if its memory can be reached from here and is what it says.
func openShared(o offer) (*shared, error) {
	fd, err := unix.Open(o.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != sharedBytes {
		return nil, fmt.Errorf("%d bytes: %w", st.Size, err)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("seals %x: %w", seals, err)
	}
	s, err := mapShared(fd, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(s.token(), o.Token) != 1 {
		return nil, fmt.Errorf("%s is other memory", o.Path)
	}
	return s, nil
}

// mapShared maps the memory until nothing refers to it any more.
func mapShared(fd, prot int) (*shared, error) {
	b, err := unix.Mmap(fd, 0, sharedBytes, prot, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	s := &shared{mem: b}
	runtime.AddCleanup(s, func(b []byte) { unix.Munmap(b) }, b)
	return s, nil
}

// filled is where the number of bytes in slot i stands.
func (s *shared) filled(i int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s.mem[tokenBytes+4*i]))
}
