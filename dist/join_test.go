package dist

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between two ranks and counts what passes, in both directions.
type proxy struct {
	ln       net.Listener
	to       string
	mute     bool         // nothing more of what the dialer says after its handshake passes
	fro, too atomic.Int64 // from the dialer, to the dialer
	wg       sync.WaitGroup
}

// startProxy stands until the test ends, after the groups are closed.
func startProxy(t *testing.T, to string, mute bool) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to, mute: mute}
	t.Cleanup(func() {
		ln.Close()
		p.wg.Wait()
	})
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.pass(c) })
		}
	})
	return p
}

func (p *proxy) pass(c net.Conn) {
	defer c.Close()
	d, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer d.Close()
	p.wg.Go(func() { pump(c, d, &p.too); c.Close() })
	if p.mute {
		handshake(d, c)
		io.Copy(io.Discard, c)
		return
	}
	pump(d, c, &p.fro)
}

// handshake passes on a dialer's: a nonce, a hello behind its length, a proof.
func handshake(acceptor, dialer net.Conn) {
	head := make([]byte, 32+2)
	io.ReadFull(dialer, head)
	io.CopyN(acceptor, io.MultiReader(bytes.NewReader(head), dialer), int64(len(head))+int64(binary.LittleEndian.Uint16(head[32:]))+32)
}

func pump(dst, src net.Conn, n *atomic.Int64) {
	buf := make([]byte, 64<<10)
	for {
		k, err := src.Read(buf)
		n.Add(int64(k))
		if _, werr := dst.Write(buf[:k]); err != nil || werr != nil {
			return
		}
	}
}

func TestACountingProxySeesExactlyTheBytesThatTrafficAndRingBytesSay(t *testing.T) {
	t.Parallel()
	for _, world := range []int{2, 3} {
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			cs := configs(t, world)
			proxies := make([]*proxy, world) // in front of rank r: what its left neighbour sends
			for r := range cs {
				cs[r].AdvertiseData = func(addr string) string {
					proxies[r] = startProxy(t, addr, false)
					return proxies[r].ln.Addr().String()
				}
			}
			gs := mustJoin(t, cs)
			counts := func() (out []int64) {
				for _, p := range proxies {
					out = append(out, p.fro.Load())
				}
				return out
			}
			before := counts()
			start := traffic(gs)
			for _, n := range []int{0, 1, 5, 1003, 100_001} {
				in := vectors(uint64(n), world, n)
				checkSum(t, in, reduceAll(t, gs, in))
				after := counts()
				for r := range gs {
					right := (r + 1) % world
					if got, want := after[right]-before[right], RingBytes(world, r, n); got != want {
						t.Errorf("%d floats: rank %d sent %d bytes through the proxy, RingBytes %d", n, r, got, want)
					}
				}
				before = after
			}
			for r, now := range traffic(gs) {
				right := proxies[(r+1)%world]
				// both directions of both connections, handshakes included
				if now.DataWritten != right.fro.Load()+proxies[r].too.Load() || now.DataRead != right.too.Load()+proxies[r].fro.Load() {
					t.Errorf("rank %d: %+v, proxies %d %d %d %d", r, now, right.fro.Load(), right.too.Load(), proxies[r].fro.Load(), proxies[r].too.Load())
				}
				var want int64
				for _, n := range []int{0, 1, 5, 1003, 100_001} {
					want += RingBytes(world, r, n)
				}
				if got := now.DataWritten - start[r].DataWritten; got != want {
					t.Errorf("rank %d: Traffic says %d, RingBytes %d", r, got, want)
				}
			}
		})
	}
}

func traffic(gs []Group) (out []Traffic) {
	for _, g := range gs {
		out = append(out, g.Traffic())
	}
	return out
}

// wantErrors fails unless every error contains all the texts.
func wantErrors(t *testing.T, errs []error, texts ...string) {
	t.Helper()
	for i, err := range errs {
		t.Log(err)
		for _, text := range texts {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("member %d: %v\ndoes not say %q", i, err, text)
			}
		}
	}
}

func TestAWrongGossipKeyIsNamedOnBothSides(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	cs[1].Key = []byte(strings.Repeat("x", 32))
	cs[0].Timeout = 3 * time.Second
	_, errs := joinAll(cs)
	wantErrors(t, errs, "gossip key differs")
	wantErrors(t, errs[:1], "1 of 2 members", "127.0.0.1")
}

func TestAMissingKeyOnOneSideIsNamedToo(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	cs[1].Key = nil
	cs[0].Timeout = 3 * time.Second
	_, errs := joinAll(cs)
	wantErrors(t, errs, "gossip key differs")
}

func TestAnotherJobsLabelIsNamed(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	cs[1].Job = "another"
	cs[0].Timeout, cs[1].Timeout = 3*time.Second, 3*time.Second
	_, errs := joinAll(cs)
	wantErrors(t, errs[:1], `another job knocks: "another" at 127.0.0.1`)
	wantErrors(t, errs[1:], "the job (label) differs")
}

func TestAnUnreachableSeedIsNamedWithTheNumberOfMembersSeen(t *testing.T) {
	t.Parallel()
	c := configs(t, 2)[1]
	c.Timeout = 2 * time.Second
	_, err := Join(context.Background(), c)
	wantErrors(t, []error{err}, "gave up after 2s", "1 of 2 members", "connection refused", c.Seeds[0])
}

func TestAGossipPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := configs(t, 2)[0]
	c.GossipPort = l.Addr().(*net.TCPAddr).Port
	_, err = Join(context.Background(), c)
	wantErrors(t, []error{err}, fmt.Sprintf("gossip port %d on 127.0.0.1 is in use", c.GossipPort))
}

func TestADifferentModelFolderFailsEveryRankBeforeTheFirstStep(t *testing.T) {
	t.Parallel()
	cs := configs(t, 3)
	for i := range cs {
		cs[i].Fingerprint = map[string]string{"model": "1f3a", "config": "c0"}
	}
	cs[2].Fingerprint["model"] = "77b2"
	_, errs := joinAll(cs)
	wantErrors(t, errs, "model differs: 1f3a on host/0, host/1, but 77b2 on host/2")
}

func TestACancelledJoinReturnsAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(300*time.Millisecond, cancel)
	within(t, 10*time.Second, func() {
		if _, err := Join(ctx, configs(t, 2)[0]); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestJoinEndsWithANeighbourThatIsSilentAfterItsHandshake(t *testing.T) {
	cs := configs(t, 2)
	for i := range cs {
		cs[i].Timeout = 2 * time.Second
	}
	cs[0].AdvertiseData = func(addr string) string { return startProxy(t, addr, true).ln.Addr().String() }
	done := make(chan []error, 1)
	go func() {
		_, errs := joinAll(cs)
		done <- errs
	}()
	select {
	case errs := <-done:
		if errs[0] == nil || errs[1] == nil {
			t.Errorf("errors %v", errs)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Join hangs")
	}
}

// The seed forms with a member that is there before it ends; its port is then that of the next generation's.
func TestASeedThatEndsWhileOthersWaitIsCalledAgainSoon(t *testing.T) {
	cs := configs(t, 3)
	waited := make(chan error, 1)
	go func() {
		_, err := Join(context.Background(), cs[1])
		waited <- err
	}()
	ctx, end := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer end()
	Join(ctx, cs[0]) // they meet, and wait for the third
	next := cs[0]
	next.Generation++
	ctx, end = context.WithCancel(context.Background())
	defer end()
	var wg sync.WaitGroup
	wg.Go(func() { Join(ctx, next) })
	if err, late := <-waited, new(Late); !errors.As(err, &late) || late.Generation != next.Generation {
		t.Error(err) // it gave up after 20 s; a seed that has answered was called again after 30
	}
	end()
	wg.Wait()
}

func TestASeedOfTheLastGenerationDoesNotDelayTheNext(t *testing.T) {
	cs := configs(t, 2)
	last, next, other := cs[0], cs[0], cs[1]
	next.Generation++
	other.Generation++
	next.Timeout, other.Timeout = 15*time.Second, 15*time.Second // a seed that has answered is called again after 30 s
	ended := make(chan error, 1)
	go func() {
		_, err := Join(context.Background(), last)
		ended <- err
	}()
	time.Sleep(200 * time.Millisecond)
	joined := make(chan error, 1)
	go func() {
		g, err := Join(context.Background(), other)
		if err == nil {
			t.Cleanup(func() { g.Close() })
		}
		joined <- err
	}()
	if err := <-ended; err == nil {
		t.Fatal("the last generation stands")
	}
	g, err := Join(context.Background(), next)
	if err := errors.Join(err, <-joined); err != nil {
		t.Fatal(err)
	}
	g.Close()
}

func TestConfigurationsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{WorldMax: 2}, "give the job a name"},
		{Config{Job: "j", WorldMax: 2, Bind: "0.0.0.0"}, "give the job a key"},
		{Config{Job: "j", WorldMax: 2, Bind: "192.0.2.1"}, "give the job a key"},
		{Config{Job: "j", WorldMax: 2, Bind: "localhost"}, "not an IP address"},
		{Config{Job: "j", WorldMax: 2, Key: []byte("short")}, "the key has 5 bytes, not 16, 24 or 32"},
		{Config{Job: "j", WorldMax: 2, NodeRank: -2}, "node rank -2"},
		{Config{Job: "j", WorldMax: 2, WorldMin: 3}, "world of 3 to 2"},
		{Config{Job: "j", WorldMax: 2, LocalRank: 2, LocalSize: 2}, "local rank 2 of 2"},
		{Config{Job: "j", WorldMax: 2, Timeout: -1}, "negative"},
	} {
		_, err := Join(context.Background(), c.c)
		wantErrors(t, []error{err}, c.want)
	}
}

func TestNodesWithoutANumberAreOrderedByTheirHosts(t *testing.T) {
	t.Parallel()
	cs := configs(t, 3)
	for i := range cs { // of three nodes with one rank each, whose launchers were given no node rank
		cs[i].NodeRank, cs[i].LocalRank, cs[i].LocalSize = -1, 0, 1
		cs[i].Host = []string{"b", "c", "a"}[i]
	}
	gs, errs := joinAll(cs)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	onAll(gs, func(g Group) error { return g.Close() })
	for i, rank := range []int{1, 2, 0} {
		if gs[i].Rank() != rank {
			t.Errorf("host %s has rank %d", cs[i].Host, gs[i].Rank())
		}
	}
}

func TestAKeyOfEverySizeThatALauncherTakesWillDo(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 24} {
		cs := configs(t, 2)
		for i := range cs {
			cs[i].Key = testKey[:size]
		}
		mustJoin(t, cs)
	}
}

func TestNoSeedIsCalledOnceTheMemberHasClosed(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	called := make(chan bool)
	go func() {
		c, err := silent.Accept()
		if err == nil {
			c.Close()
		}
		called <- err == nil
	}()
	c, err := configs(t, 2)[1].resolve()
	if err != nil {
		t.Fatal(err)
	}
	c.Seeds = []string{silent.Addr().String()}
	g, err := startGossip(c, "m", 1, newDiagnosis(c.Logger), func(any) {})
	if err != nil {
		t.Fatal(err)
	}
	defer g.leave()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g.joinOnce(ctx)
	silent.Close()
	if <-called {
		t.Error("a dead seed would keep Close waiting for memberlist's timeout")
	}
}

func TestAWorldOfOneNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	g, err := Join(context.Background(), Config{Job: "j", WorldMax: 1, Generation: 4})
	if err != nil || g.Size() != 1 || g.Generation() != 4 {
		t.Fatal(g, err)
	}
}

func TestAnElasticWorldStartsWithFewerAfterTheLastCall(t *testing.T) {
	t.Parallel()
	cs := configs(t, 3)[:2]
	for i := range cs {
		cs[i].WorldMin = 2
	}
	for _, g := range mustJoin(t, cs) {
		if g.Size() != 2 {
			t.Errorf("size %d", g.Size())
		}
	}
}

func TestAnElasticWorldOfOneSumsWhatItHas(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)[:1]
	cs[0].WorldMin = 1
	gs, in := mustJoin(t, cs), vectors(6, 1, 1000)
	checkSum(t, in, reduceAll(t, gs, in))
	if err := errors.Join(gs[0].Broadcast(Floats(in[0]), 0), gs[0].Barrier(context.Background())); err != nil {
		t.Fatal(err)
	}
}

func TestALateMemberIsTurnedAwayAndDoesNoHarm(t *testing.T) {
	t.Parallel()
	cs := configs(t, 3)
	for i := range cs {
		cs[i].WorldMax, cs[i].LocalSize = 2, 0
	}
	cs[0].GossipPort, cs[1].GossipPort = 0, cs[0].GossipPort
	gs := mustJoin(t, cs[1:])
	_, err := Join(context.Background(), cs[0]) // would have been rank 0
	wantErrors(t, []error{err}, "generation 3 already stands with 2 ranks")
	in := vectors(4, 2, 10)
	checkSum(t, in, reduceAll(t, gs, in))
}

func TestTheNextGenerationStopsWhatIsLeftOfTheLast(t *testing.T) {
	t.Parallel()
	cs := configs(t, 2)
	old := mustJoin(t, cs)
	for i := range cs {
		cs[i].Generation = 4
		cs[i].GossipPort = 0 // the old seed still has its port
	}
	in := vectors(5, 2, 10)
	checkSum(t, in, reduceAll(t, mustJoin(t, cs), in))
	for _, g := range old {
		eventually(t, "the old generation stops", func() bool { return g.Barrier(context.Background()) != nil })
		wantErrors(t, []error{g.Barrier(context.Background())}, "has begun generation 4, this process belongs to generation 3")
	}
}

func TestStrangersGetThirtyTwoRandomBytesAndDoNoHarm(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 2))
	addr := gs[0].(*group).n.ln.Addr().String()
	for _, say := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 5000), strings.Repeat("\x00", 200)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(say))
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		b, _ := io.ReadAll(c)
		if len(b) > 32 {
			t.Errorf("a stranger who says %.10q gets %d bytes", say, len(b))
		}
		c.Close()
	}
	// one with another key
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := hello{Job: t.Name(), Generation: 3, Purpose: "control", From: gs[1].(*group).n.name, To: gs[0].(*group).n.name}
	if err := dialHandshake(c, derive([]byte("another"), "control"), h); err == nil || !strings.Contains(err.Error(), "key differs") {
		t.Error(err)
	}
	in := vectors(1, 2, 100)
	checkSum(t, in, reduceAll(t, gs, in))
}

func TestAHandshakeIsRefusedForAnotherGenerationJobOrAddressee(t *testing.T) {
	t.Parallel()
	gs := mustJoin(t, configs(t, 2))
	n := gs[0].(*group).n
	good := hello{Job: n.cfg.Job, Generation: 3, Purpose: "data", From: "somebody", To: n.name, Attempt: 99}
	for want, change := range map[string]func(*hello){
		"generation 2, this is generation 3": func(h *hello) { h.Generation = 2 },
		"job \"x\"":                          func(h *hello) { h.Job = "x" },
		"another member":                     func(h *hello) { h.To = "x" },
		"unknown purpose":                    func(h *hello) { h.Purpose = "x" },
	} {
		h := good
		change(&h)
		_, err := n.dial(context.Background(), n.ln.Addr().String(), h, n.meters.control)
		wantErrors(t, []error{err}, "refused", want)
	}
}

func TestAProofCannotBeReplayedOrReflected(t *testing.T) {
	t.Parallel()
	key := derive(testKey, "control")
	a, b := net.Pipe()
	recorded := make(chan []byte, 1)
	go func() { // a man in the middle records an honest dialer's proof
		b.Write(make([]byte, 32))
		buf := make([]byte, 4096)
		n, _ := b.Read(buf)
		b.Close()
		recorded <- buf[:n]
	}()
	if err := dialHandshake(a, key, hello{Job: "j"}); err == nil {
		t.Fatal("accepted by one who does not know the key")
	}
	proof := <-recorded
	c, d := net.Pipe()
	go func() { // and plays it to the acceptor, whose nonce differs
		io.ReadFull(c, make([]byte, 32))
		c.Write(proof)
		c.Close()
	}()
	if _, err := acceptHandshake(d, key, func(hello) string { return "" }); err == nil || !strings.Contains(err.Error(), "wrong proof") {
		t.Fatal(err)
	}
}

// A stranger's bytes never authenticate, whatever they are, and never make the acceptor wait or allocate much.
func FuzzAStrangersBytesNeverAuthenticate(f *testing.F) {
	f.Add([]byte(""))
	f.Add(make([]byte, 32+2+32))
	f.Add(append(make([]byte, 32), 0xff, 0xff))
	f.Add(append(make([]byte, 32), append([]byte{2, 0, '{', '}'}, make([]byte, 32)...)...))
	key := derive(testKey, "control")
	f.Fuzz(func(t *testing.T, b []byte) {
		c, d := net.Pipe()
		go func() {
			io.ReadFull(c, make([]byte, 32))
			c.Write(b)
			c.Close()
		}()
		_, err := acceptHandshake(d, key, func(hello) string { t.Error("asked about a stranger"); return "" })
		if err == nil {
			t.Error("welcome")
		}
		d.Close()
	})
}
