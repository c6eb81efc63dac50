package train

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/splora/splora/dist"
	"github.com/splora/splora/model/lora"
)

// counter stands in front of a rank's data address and counts what its left neighbour sends.
type counter struct {
	net.Listener
	bytes atomic.Int64
}

func newCounter(t *testing.T, to string) *counter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{Listener: ln}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go c.pass(in, to)
		}
	}()
	return c
}

func (c *counter) pass(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { // answers of the handshake
		io.Copy(in, out)
		in.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		c.bytes.Add(int64(n)) // before it is passed on, so that it is counted when it has arrived
		if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// joined is a group over gossip and TCP, with a counter in front of each rank.
func joined(t *testing.T, world int) ([]dist.Group, []*counter) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	groups, counters, errs := make([]dist.Group, world), make([]*counter, world), make([]error, world)
	var wg sync.WaitGroup
	for r := range world {
		c := dist.Config{Job: t.Name(), Key: make([]byte, 32), LocalRank: r, LocalSize: world, WorldMax: world, Timeout: 2 * time.Minute,
			Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}, AdvertiseData: func(addr string) string {
				counters[r] = newCounter(t, addr)
				return counters[r].Addr().String()
			}}
		if r == 0 {
			c.GossipPort = port
		}
		wg.Go(func() { groups[r], errs[r] = dist.Join(context.Background(), c) })
	}
	wg.Wait()
	for r, err := range errs {
		if err != nil {
			t.Fatalf("rank %d: %v", r, err)
		}
	}
	t.Cleanup(func() { // together, for each waits for the others' goodbye
		var wg sync.WaitGroup
		for _, g := range groups {
			wg.Go(func() { g.Close() })
		}
		wg.Wait()
	})
	return groups, counters
}

// stepBytes notes, after each all-reduce, how many bytes the right neighbour's counter has seen since the last one.
type stepBytes struct {
	dist.Group
	right *counter
	last  int64 // −1: no all-reduce yet
	sent  []int64
}

func (s *stepBytes) AllReduce(v dist.Vector) error {
	if s.last < 0 {
		// The neighbour has the broadcasts of the beginning once it gets here.
		if err := s.Barrier(context.Background()); err != nil {
			return err
		}
		s.last = s.right.bytes.Load()
	}
	if err := s.Group.AllReduce(v); err != nil {
		return err
	}
	// The last bytes may still be on their way to the counter. If too few come, the count below is wrong, and the test fails.
	due := s.last + dist.RingBytes(s.Size(), s.Rank(), len(v.Float32()))
	for deadline := time.Now().Add(time.Minute); s.right.bytes.Load() < due && time.Now().Before(deadline); {
		time.Sleep(100 * time.Microsecond)
	}
	now := s.right.bytes.Load()
	s.sent = append(s.sent, now-s.last)
	s.last = now
	return nil
}

func TestOnTheWireAStepIsTheGradientsAndTheScalarsAndNothingElse(t *testing.T) {
	for _, world := range []int{2, 3} {
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			groups, counters := joined(t, world)
			counted := make([]*stepBytes, world)
			j := newJob(t, world)
			j.ChecksumEvery, j.SaveEvery = 3, 2 // of which nothing may be seen on the data connections
			j.eval, j.EvalData, j.EvalEvery = rowFile(t, 5), List{"eval"}, 3
			j.group = func(r int, _ dist.Group) dist.Group {
				counted[r] = &stepBytes{Group: groups[r], right: counters[(r+1)%world], last: -1}
				return counted[r]
			}
			mustRun(t, j)
			n := len(adapter(t, j.Out)) + lora.Tail
			steps := records(t, j.Out)
			for r, c := range counted {
				want := dist.RingBytes(world, r, n)
				if len(steps) != 8 || len(c.sent) != 8 {
					t.Fatalf("%d steps, %d all-reduces", len(steps), len(c.sent))
				}
				for i := range steps {
					if c.sent[i] != want || r == 0 && steps[i].CommBytes != want {
						t.Errorf("rank %d, step %d: %d bytes passed, metrics.jsonl says %d, want %d for %d gradients and %d scalars",
							r, i+1, c.sent[i], steps[i].CommBytes, want, n-lora.Tail, lora.Tail)
					}
				}
				if rest := c.right.bytes.Load() - c.last; rest != 0 {
					t.Errorf("rank %d: %d bytes passed after the last step", r, rest)
				}
			}
		})
	}
}
