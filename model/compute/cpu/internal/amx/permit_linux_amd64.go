package amx

import "golang.org/x/sys/unix"

// Of Linux (asm/prctl.h, asm/fpu/types.h): the request, and the number of the state that holds the tiles.
const (
	archReqXcompPerm = 0x1023
	xtileData        = 18
)

// permitted asks the kernel to let this process use tiles, which its threads, present and future, then may. It holds for the life of the
// process; asking again changes nothing.
func permitted() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, archReqXcompPerm, xtileData, 0)
	return errno == 0
}
