package nccl

import (
	"math"
	"time"
	"unsafe"
)

// Config of a communicator. Zero values leave the choice to NCCL. All are non-blocking.
type Config struct {
	MinCTAs, MaxCTAs int  // thread blocks that a collective may take; set both or none
	CGAClusterSize   int  // blocks of a cluster, 1 to 8
	SplitShare       bool // communicators split from this one share its resources

	AbortTime time.Duration // how long the abort of one that could not be formed may take; 0 = 10 s
}

// config is ncclConfig_t as of 2.17, the 48 bytes that every library since then reads: a newer one fills in what follows.
type config struct {
	size           uint64
	magic, version uint32
	blocking       int32
	cgaClusterSize int32
	minCTAs        int32
	maxCTAs        int32
	netName        uintptr
	splitShare     int32
	_              int32
}

func (c Config) encode() *config {
	undefinedOr := func(v int) int32 {
		if v == 0 {
			return math.MinInt32
		}
		return int32(v)
	}
	e := &config{size: uint64(unsafe.Sizeof(config{})), magic: 0xcafebeef, version: 21700, blocking: 0,
		cgaClusterSize: undefinedOr(c.CGAClusterSize), minCTAs: undefinedOr(c.MinCTAs), maxCTAs: undefinedOr(c.MaxCTAs),
		splitShare: math.MinInt32}
	if c.SplitShare {
		e.splitShare = 1
	}
	return e
}
