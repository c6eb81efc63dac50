package dist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/splora/splora/dist/rendezvous"
	"github.com/splora/splora/nccl"
)

// NCCL is how vectors in device memory are reduced and broadcast: one call on the stream that computed them. Rendezvous, barriers,
// gathers and heartbeats stay on sockets. Join and the collectives must be called on a thread to which the GPU's
// context is bound.
type NCCL struct {
	Stream  uintptr // CUstream of the computation; the collectives are queued behind it
	Library string  // libnccl.so.2 or a folder with it; "" = the loader's, or that of a Python wheel

	Done    func() (bool, error) // whether the stream has done all that was queued; nil = the driver's cuStreamQuery
	Timeout time.Duration        // a collective that takes so long aborts the group; 0 = 10 min
	Budget  time.Duration        // how long the abort of the communicator may take; 0 = 8 s
	Die     func(cause error)    // ends the process, when the abort does not return; nil = says why on stderr and exits with code 1
}

// DeviceVector is a Vector in device memory: then ptr is not 0, n its number of float32, and Float32 may be nil.
type DeviceVector interface {
	Vector
	DeviceFloat32() (ptr uintptr, n int)
}

func (c NCCL) resolve() *NCCL {
	setDefault(&c.Timeout, 10*time.Minute)
	setDefault(&c.Budget, 8*time.Second)
	if c.Die == nil {
		c.Die = func(cause error) {
			fmt.Fprintln(os.Stderr, cause)
			os.Exit(1)
		}
	}
	return &c
}

// open finds the library, and the driver if nobody else watches the stream.
func (c *NCCL) open() (*nccl.Library, error) {
	lib, err := nccl.Open(c.Library)
	if err != nil {
		return nil, fmt.Errorf("dist: %w", err)
	}
	if c.Done == nil {
		driver, err := nccl.OpenDriver("")
		if err != nil {
			return nil, fmt.Errorf("dist: %w", err)
		}
		c.Done = func() (bool, error) { return driver.StreamQuery(c.Stream) }
	}
	return lib, nil
}

// makeUnique answers the state machine, in the coordinating rank's process, which must live until all have joined the
// communicator: losing it is then the end of the group anyway.
func (n *node) makeUnique() {
	n.spawn(func() {
		id, err := n.lib.GetUniqueId()
		if err != nil {
			n.finish(fmt.Errorf("dist: %w", err))
			return
		}
		n.events.put(inLoop(func() { n.unique(id[:]) }))
	})
}

func (n *node) unique(blob []byte) { n.step(rendezvous.Unique{At: time.Now(), Blob: blob}) }

// overNCCL ends the name of a collective that can wait for ever.
const overNCCL = " over NCCL"

// device is a rank's communicator.
type device struct {
	cfg  *NCCL
	comm *nccl.Comm
	gone chan struct{} // closed when it is aborted, or the node ends
}

// join forms the communicator with all ranks of the group.
func (g *group) joinNCCL(ctx context.Context) error {
	ctx, cancel := g.until(ctx)
	defer cancel()
	c := g.n.cfg.NCCL
	g.setState("forming the NCCL communicator")
	var id nccl.UniqueId
	if copy(id[:], g.a.Unique) != len(id) {
		return fmt.Errorf("NCCL: a unique id of %d bytes", len(g.a.Unique))
	}
	comm, err := g.n.lib.CommInitRankConfig(ctx, g.size, id, g.rank, nccl.Config{AbortTime: c.Budget})
	if err != nil {
		return err
	}
	d := &device{cfg: c, comm: comm, gone: make(chan struct{})}
	g.mu.Lock()
	g.dev = d
	g.mu.Unlock()
	g.n.spawn(func() { g.guard(d) })
	g.setState("joined")
	return nil
}

// until is ctx, which also ends with the group.
func (g *group) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(g.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// guard aborts the communicator when the group dies, whatever the rank is doing. If that does not end, the process must.
func (g *group) guard(d *device) {
	defer close(d.gone)
	select {
	case <-g.dead:
	case <-g.n.ctx.Done():
		select {
		case <-g.dead:
		default:
			return
		}
	}
	err := d.comm.Abort(d.cfg.Budget)
	if errors.As(err, new(*nccl.HungError)) {
		d.cfg.Die(fmt.Errorf("%w; NCCL's abort has not returned within %v: ending the process", g.failure(), d.cfg.Budget))
	} else if err != nil {
		g.n.cfg.Logger.Warn("aborting the NCCL communicator", "error", err)
	}
}

// run begins a collective and returns when the stream has done it, or the group is dead and the stream free again.
func (d *device) run(g *group, begin func(*nccl.Comm, uintptr) error) error {
	g.setPhase("queueing")
	err := d.finish(g, begin(d.comm, d.cfg.Stream))
	if err == nil {
		return nil
	}
	g.deviceFailed(err)
	<-d.gone
	return err
}

func (d *device) finish(g *group, err error) error {
	ctx, cancel := g.until(context.Background())
	defer cancel()
	if err == nil {
		err = d.comm.Wait(ctx)
	}
	if err != nil {
		return err
	}
	g.setPhase("on the stream")
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		done, err := d.cfg.Done()
		if err == nil {
			err = d.comm.GetAsyncError() // of what has ended, too: it may have ended because of it
		}
		if err == nil {
			err = ctx.Err()
		}
		if done || err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// deviceFailed returns when the group is dead. NCCL's error says little of who failed first: a firmer cause is waited
// for, as with a broken data connection.
func (g *group) deviceFailed(err error) {
	select {
	case <-g.dead:
		return
	case <-time.After(suspectTime):
	}
	a := &Aborted{Rank: g.rank, Cause: fmt.Sprintf("%s: %v", g.label(g.rank), err), err: err}
	if errors.Is(err, nccl.RemoteError) {
		a = &Aborted{Rank: -1, Lost: true, Cause: fmt.Sprintf("NCCL on %s has lost another rank: %v", g.label(g.rank), err)}
	}
	g.propose(a)
	<-g.dead
}

// leaveNCCL frees the communicator in good order: all ranks do so, for all have said goodbye.
func (g *group) leaveNCCL() {
	d := g.dev
	if d == nil {
		return
	}
	if g.failure() != nil {
		<-d.gone
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.n.cfg.CloseWait)
	defer cancel()
	err := d.comm.Finalize(ctx)
	if err == nil {
		err = d.comm.Destroy()
	}
	if err != nil {
		g.n.cfg.Logger.Debug("the NCCL communicator could not be finalized", "error", errors.Join(err, d.comm.Abort(d.cfg.Budget)))
	}
}

// onDevice is v's device memory, if that is where it is.
func onDevice(v Vector) (ptr uintptr, n int, ok bool) {
	if d, has := v.(DeviceVector); has {
		ptr, n = d.DeviceFloat32()
	}
	return ptr, n, ptr != 0
}

// host is v's memory on the host. That a vector is where the group cannot reach it is the caller's mistake.
func host(v Vector) []float32 {
	if _, n, ok := onDevice(v); ok {
		panic(fmt.Sprintf("dist: a vector of %d floats in device memory, and this group has no NCCL", n))
	}
	return v.Float32()
}
