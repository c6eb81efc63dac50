package dist

import (
	"context"
	"fmt"
)

// Vector is what a collective reads and writes, in place: float32, in host memory, or in a device's (see DeviceVector).
type Vector interface {
	Float32() []float32
}

// Floats is a plain slice as a Vector.
type Floats []float32

// Float32 is the slice itself.
func (f Floats) Float32() []float32 { return f }

// Group of Size ranks. Every rank calls the same collectives in the same order with vectors of the same length, from
// one goroutine at a time. After the first failure every call on every rank returns an *Aborted with the same cause, and
// what the vector then holds is undefined.
type Group interface {
	Rank() int
	Size() int
	Generation() int // as agreed at the rendezvous; 0 for Solo and Loopback

	// AllReduce sets v to the sum over all ranks, in float32; the same bits on every rank and, except over NCCL, in every run.
	AllReduce(v Vector) error
	// Broadcast sets v to root's v.
	Broadcast(v Vector, root int) error
	// Barrier returns when every rank has called it. If ctx ends first, the group is aborted: the ranks are out of step.
	Barrier(ctx context.Context) error
	// AllGatherBytes returns every rank's b, by rank: for small things (checksums, reasons; at most 1 MiB), over the
	// control channel. If ctx ends first, the group is aborted.
	AllGatherBytes(ctx context.Context, b []byte) ([][]byte, error)

	// SetProgress tells the others where this rank is ("forward layer 17"), for their reports should it be lost.
	SetProgress(step int, state string)
	// Abort fails every present and future call on every rank with the cause. The first cause wins.
	Abort(cause error)
	// Traffic so far, counted where it is written and read.
	Traffic() Traffic
	// Close says goodbye, waits a little for the others to do so, too, and frees everything. Collectives that other
	// ranks begin afterwards fail.
	Close() error
}

// Traffic counts bytes on the sockets of this rank, handshakes included, and those that go through shared memory in their place. Gossip is not in it. What NCCL moves for a
// collective is its own affair: counted are the calls and the bytes of their vectors.
type Traffic struct {
	DataWritten, DataRead       int64 // collectives
	ControlWritten, ControlRead int64 // everything else
	DeviceCalls, DeviceBytes    int64 // collectives over NCCL, and their vectors
}

// Aborted is the failure of the whole group: the same cause on every rank.
type Aborted struct {
	Rank  int    // the rank that was lost or that aborted, −1 if unknown
	Lost  bool   // it was lost; otherwise it called Abort, or closed early
	Cause string // "lost host1/3: control connection: EOF; …"
	err   error  // on the rank that called Abort: its own error
}

func (a *Aborted) Error() string { return "dist: group aborted: " + a.Cause }

// Unwrap gives the error passed to Abort, on the rank that called it; nil elsewhere.
func (a *Aborted) Unwrap() error { return a.err }

func checkRoot(root, size int) {
	if root < 0 || root >= size {
		panic(fmt.Sprintf("dist: broadcast from root %d in a group of %d", root, size))
	}
}

const maxGather = 1 << 20

func checkGather(b []byte) {
	if len(b) > maxGather {
		panic(fmt.Sprintf("dist: gather of %d bytes over the control channel, at most %d", len(b), maxGather))
	}
}
