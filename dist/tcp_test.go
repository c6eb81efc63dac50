package dist

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the tests, which mostly wait, wait together.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8")
	goleak.VerifyTestMain(m)
}

var testKey = bytes.Repeat([]byte{7}, 32)

var nextPort atomic.Int32

// freePort is free for TCP and UDP on 127.0.0.1, and outside the range from which the system gives ports to others.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+(131*os.Getpid()+int(nextPort.Add(1)))%10000)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if u, err := net.ListenPacket("udp", addr); err == nil {
			u.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal("no free port")
	return 0
}

// configs of n members on one host; local rank 0 is the seed.
func configs(t testing.TB, n int) []Config {
	port := freePort(t)
	cs := make([]Config, n)
	for i := range cs {
		cs[i] = Config{Job: t.Name(), Key: testKey, Host: "host", LocalRank: i, LocalSize: n, WorldMax: n, Generation: 3,
			Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Timeout: 20 * time.Second,
			LastCall: 500 * time.Millisecond, Heartbeat: 100 * time.Millisecond}
		if i == 0 {
			cs[i].GossipPort = port
		}
	}
	return cs
}

// joinAll runs Join for every config at once.
func joinAll(cs []Config) ([]Group, []error) {
	gs, errs := make([]Group, len(cs)), make([]error, len(cs))
	var wg sync.WaitGroup
	for i, c := range cs {
		wg.Go(func() { gs[i], errs[i] = Join(context.Background(), c) })
	}
	wg.Wait()
	return gs, errs
}

// mustJoin returns the groups by rank, and closes them at the end of the test.
func mustJoin(t testing.TB, cs []Config) []Group {
	t.Helper()
	gs, errs := joinAll(cs)
	if err := errors.Join(errs...); err != nil {
		for _, g := range gs {
			if g != nil {
				g.Abort(err)
				g.Close()
			}
		}
		t.Fatal(err)
	}
	byRank := make([]Group, len(gs))
	for _, g := range gs {
		byRank[g.Rank()] = g
	}
	t.Cleanup(func() { onAll(byRank, func(g Group) error { return g.Close() }) })
	return byRank
}

// onAll runs f on every rank at once.
func onAll(gs []Group, f func(Group) error) []error {
	errs := make([]error, len(gs))
	var wg sync.WaitGroup
	for i, g := range gs {
		wg.Go(func() { errs[i] = f(g) })
	}
	wg.Wait()
	return errs
}

// vectors of random numbers of very different magnitudes, so that the order of additions shows.
func vectors(seed uint64, world, n int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	vs := make([][]float32, world)
	for r := range vs {
		vs[r] = make([]float32, n)
		for i := range vs[r] {
			vs[r][i] = float32(rng.NormFloat64() * math.Pow(10, float64(rng.IntN(9)-4)))
		}
	}
	return vs
}

func clones(vs [][]float32) [][]float32 {
	out := make([][]float32, len(vs))
	for r, v := range vs {
		out[r] = append([]float32(nil), v...)
	}
	return out
}

// inOrder is the documented order, element by element: the chunk's right neighbour first, its owner last.
func inOrder(vs [][]float32, i int) float32 {
	world, n := len(vs), len(vs[0])
	owner := 0
	for owner = range world {
		if lo, hi := owner*n/world, (owner+1)*n/world; lo <= i && i < hi {
			break
		}
	}
	sum := vs[(owner+1)%world][i]
	for k := 2; k <= world; k++ {
		sum += vs[(owner+k)%world][i]
	}
	return sum
}

// checkSum compares every rank's result bit by bit with the documented order, and with float64.
func checkSum(t *testing.T, in, out [][]float32) {
	t.Helper()
	for i := range in[0] {
		want := inOrder(in, i)
		exact, scale := 0.0, 0.0
		for _, v := range in {
			exact += float64(v[i])
			scale += math.Abs(float64(v[i]))
		}
		// each of world−1 additions rounds by at most 2⁻²⁴ of a partial sum that is at most scale
		if tol := float64(len(in)) * scale / (1 << 24); !(math.Abs(float64(want)-exact) <= tol) {
			t.Fatalf("float %d: %g, in float64 %g", i, want, exact)
		}
		for r := range out {
			if math.Float32bits(out[r][i]) != math.Float32bits(want) {
				t.Fatalf("rank %d, float %d of %d: %g instead of %g", r, i, len(in[0]), out[r][i], want)
			}
		}
	}
}

func reduceAll(t *testing.T, gs []Group, in [][]float32) [][]float32 {
	t.Helper()
	out := clones(in)
	if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(Floats(out[g.Rank()])) })...); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAllReduceOverTCPIsTheSumInTheDocumentedOrderOnEveryRank(t *testing.T) {
	t.Parallel()
	for _, world := range []int{2, 3} {
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			gs := mustJoin(t, configs(t, world))
			for _, n := range []int{0, 1, 2, 3, 7, 1000, 4099, 2*piece + 1} {
				in := vectors(uint64(n), world, n)
				checkSum(t, in, reduceAll(t, gs, in))
			}
		})
	}
}

func TestAGroupKnowsItsRanksAndGathersAndBroadcasts(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 3))
	errs := onAll(gs, func(g Group) error {
		if g.Size() != 3 || g.Generation() != 3 {
			return fmt.Errorf("size %d, generation %d", g.Size(), g.Generation())
		}
		parts, err := g.AllGatherBytes(context.Background(), []byte{byte(10 + g.Rank())})
		if err != nil {
			return err
		}
		for r, p := range parts {
			if !bytes.Equal(p, []byte{byte(10 + r)}) {
				return fmt.Errorf("rank %d: part %d is %v", g.Rank(), r, p)
			}
		}
		for root := range 3 {
			v := make(Floats, piece+5)
			for i := range v {
				v[i] = float32(g.Rank()*1000 + i%977)
			}
			if err := g.Broadcast(v, root); err != nil {
				return err
			}
			for i, x := range v {
				if x != float32(root*1000+i%977) {
					return fmt.Errorf("rank %d: broadcast from %d: float %d is %g", g.Rank(), root, i, x)
				}
			}
		}
		return g.Barrier(context.Background())
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// within fails the test if f takes longer than any sane failure detection.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("still blocked after %v", limit)
	}
}

// kill ends a rank as SIGKILL would: its sockets close, nothing is said.
func kill(g Group) {
	n := g.(*group).n
	n.ln.Close()
	n.cancel()
	n.mu.Lock()
	for l := range n.all {
		l.close()
	}
	n.mu.Unlock()
	g.(*group).mu.Lock()
	g.(*group).closeData()
	g.(*group).mu.Unlock()
}

func TestAKilledRankFailsTheAllReduceOfTheOthersByName(t *testing.T) {
	t.Parallel()
	for _, victim := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(victim), func(t *testing.T) {
			gs := mustJoin(t, configs(t, 3))
			gs[victim].SetProgress(41, "backward")
			time.Sleep(300 * time.Millisecond) // a few heartbeats
			var errs []error
			within(t, 15*time.Second, func() {
				go func() { time.Sleep(50 * time.Millisecond); kill(gs[victim]) }()
				errs = onAll(gs, func(g Group) error {
					if g.Rank() == victim {
						return nil // computes, never enters
					}
					return g.AllReduce(make(Floats, 1<<20))
				})
			})
			for r, err := range errs {
				if r == victim {
					continue
				}
				var a *Aborted
				if !errors.As(err, &a) || !a.Lost || a.Rank != victim {
					t.Errorf("rank %d: %v", r, err)
				}
				want := fmt.Sprintf("dist: group aborted: lost host/%d: ", victim)
				if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "step 41, backward") {
					t.Errorf("rank %d: %v", r, err)
				}
				if again := gs[r].Barrier(context.Background()); again == nil || again.Error() != err.Error() {
					t.Errorf("rank %d, next call: %v", r, again)
				}
			}
		})
	}
}

func TestAbortGivesEveryRankTheFirstCause(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 3))
	boom := errors.New("loss is NaN at step 7")
	var errs []error
	within(t, 15*time.Second, func() {
		errs = onAll(gs, func(g Group) error {
			if g.Rank() == 2 {
				time.Sleep(50 * time.Millisecond)
				g.Abort(boom)
			}
			return g.AllReduce(make(Floats, 100))
		})
	})
	for r, err := range errs {
		if err == nil || err.Error() != "dist: group aborted: host/2: loss is NaN at step 7" {
			t.Errorf("rank %d: %v", r, err)
		}
		if errors.Is(err, boom) != (r == 2) {
			t.Errorf("rank %d: wraps the cause: %v", r, errors.Is(err, boom))
		}
	}
}
