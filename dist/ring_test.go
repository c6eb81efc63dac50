package dist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pipes are n rings over in-memory connections that count what rank r writes.
func pipes(t testing.TB, n int) ([]*ring, []*meters) {
	t.Helper()
	rings, ms := make([]*ring, n), make([]*meters, n)
	for r := range rings {
		ms[r] = &meters{}
		rings[r] = &ring{rank: r, n: n, piece: 1000, broken: func(right bool, err error) { t.Errorf("rank %d: right %v: %v", r, right, err) }}
	}
	for r := range rings {
		a, b := net.Pipe()
		rings[r].right, rings[(r+1)%n].left = ms[r].data(a), ms[(r+1)%n].data(b)
	}
	return rings, ms
}

func TestTheRingSumsInTheDocumentedOrderAndSendsExactlyRingBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		world := rapid.IntRange(1, 6).Draw(rt, "world")
		n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 20_000)).Draw(rt, "n")
		rings, ms := pipes(t, world)
		in := vectors(uint64(n), world, n)
		out := clones(in)
		errs := make(chan error, world)
		for r, g := range rings {
			go func() { errs <- g.allReduce(out[r]) }()
		}
		for range rings {
			if err := <-errs; err != nil {
				rt.Fatal(err)
			}
		}
		checkSum(t, in, out)
		for r, m := range ms {
			left := (r + world - 1) % world
			if got := m.traffic(); got.DataWritten != RingBytes(world, r, n) || got.DataRead != RingBytes(world, left, n) {
				rt.Fatalf("rank %d of %d, %d floats: %+v, RingBytes %d", r, world, n, got, RingBytes(world, r, n))
			}
		}
	})
}

func TestRingBytesIsTwoTimesNMinusOneOverNOfTheVector(t *testing.T) {
	for _, c := range []struct {
		world, rank, n int
		want           int64
	}{
		{1, 0, 100, 0}, {2, 0, 0, 0},
		{2, 0, 100, 400}, {2, 1, 100, 400}, // 4·100·2·1/2
		{4, 3, 1000, 6000},           // 4·1000·2·3/4
		{2, 0, 3, 12}, {2, 1, 3, 12}, // chunks 1 + 2: 2·3 − 3 floats, both
		{3, 0, 1, 8}, {3, 1, 1, 4}, {3, 2, 1, 4}, // chunks 0 0 1: 2 − 0 − 0, 2 − 0 − 1, 2 − 1 − 0 floats
		{8, 5, 40_000_000, 280_000_000},
	} {
		if got := RingBytes(c.world, c.rank, c.n); got != c.want {
			t.Errorf("RingBytes(%d, %d, %d) = %d, want %d", c.world, c.rank, c.n, got, c.want)
		}
	}
}

func TestLoopbackGivesTheSameBitsAsTheRing(t *testing.T) {
	for world := 1; world <= 5; world++ {
		gs := Loopback(world)
		for _, n := range []int{0, 1, 2, world, 7*world + 3} {
			in := vectors(uint64(n), world, n)
			out := reduceAll(t, gs, in)
			if world > 1 {
				checkSum(t, in, out)
			}
		}
	}
}

func TestLoopbackGathersBroadcastsAndMeets(t *testing.T) {
	gs := Loopback(3)
	err := errors.Join(onAll(gs, func(g Group) error {
		parts, err := g.AllGatherBytes(context.Background(), []byte{byte(g.Rank())})
		if err != nil || len(parts) != 3 || parts[0][0] != 0 || parts[2][0] != 2 {
			return fmt.Errorf("rank %d: %v %v", g.Rank(), parts, err)
		}
		v := Floats{float32(g.Rank()), 5}
		if err := g.Broadcast(v, 2); err != nil || v[0] != 2 {
			return fmt.Errorf("rank %d: %v %v", g.Rank(), v, err)
		}
		return g.Barrier(context.Background())
	})...)
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoopbackAbortReachesAWaitingRank(t *testing.T) {
	gs := Loopback(2)
	boom := errors.New("boom")
	time.AfterFunc(10*time.Millisecond, func() { gs[1].Abort(boom) })
	err := gs[0].AllReduce(Floats{1})
	if err == nil || err.Error() != "dist: group aborted: rank 1: boom" {
		t.Fatal(err)
	}
	if err := gs[1].Barrier(context.Background()); !errors.Is(err, boom) {
		t.Fatal(err)
	}
}

func TestLoopbackNoticesDifferentCallsAndAClosedRank(t *testing.T) {
	gs := Loopback(2)
	errs := onAll(gs, func(g Group) error { return g.AllReduce(make(Floats, 1+g.Rank())) })
	if errs[0] == nil || errs[1] == nil {
		t.Error(errs)
	}
	gs = Loopback(2)
	time.AfterFunc(10*time.Millisecond, func() { gs[1].Close() })
	if err := gs[0].AllReduce(Floats{1}); err == nil {
		t.Error("a closed rank took part")
	}
}

func TestSoloIsTheIdentityUntilAborted(t *testing.T) {
	g := Solo()
	v := Floats{1, 2}
	if err := errors.Join(g.AllReduce(v), g.Broadcast(v, 0), g.Barrier(context.Background())); err != nil || v[0] != 1 || v[1] != 2 {
		t.Fatal(v, err)
	}
	boom := errors.New("boom")
	g.Abort(boom)
	if err := g.AllReduce(v); !errors.Is(err, boom) {
		t.Fatal(err)
	}
}

func TestAddAddsEveryFloatOfOddLengths(t *testing.T) {
	for n := range 40 {
		dst, src := make([]float32, n), make([]float32, n)
		for i := range dst {
			dst[i], src[i] = float32(i), float32(100*i+1)
		}
		add(dst, src)
		for i, x := range dst {
			if x != float32(101*i+1) {
				t.Fatalf("n %d: float %d is %g", n, i, x)
			}
		}
	}
}

func TestSwappedIsBigEndian(t *testing.T) {
	if !littleEndian() {
		t.Skip("this machine is not little-endian")
	}
	// 1.0 = 0x3f800000, −2.5 = 0xc0200000
	if got := fmt.Sprintf("%x", swapped([]float32{1, -2.5})); got != "3f800000c0200000" {
		t.Fatal(got)
	}
}
