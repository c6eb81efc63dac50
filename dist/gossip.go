package dist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/splora/splora/dist/rendezvous"
)

// gossip is memberlist for one member: who lives, nothing more. Its lock is held while it calls us, so callbacks only
// copy into an unbounded queue.
type gossip struct {
	list  *memberlist.Memberlist
	self  string // host:port
	seeds []string
	diag  *diagnosis
}

// meta is what gossip carries of a member (512 bytes at most); the rest comes with its registration.
type meta struct {
	Host       string `json:"h"`
	Node       int    `json:"n"`
	Local      int    `json:"l"`
	Generation int    `json:"g"`
	Port       int    `json:"p"` // of control connections, on the gossip's address
}

// startGossip listens for gossip. port is that of the control listener. put receives gossipJoined and gossipLeft.
func startGossip(c Config, name string, port int, d *diagnosis, put func(any)) (*gossip, error) {
	m, err := json.Marshal(meta{Host: c.Host, Node: c.NodeRank, Local: c.LocalRank, Generation: c.Generation, Port: port})
	if err != nil {
		return nil, err
	}
	mc := gossipTimes(c.WorldMax)
	mc.Name, mc.Label = name, c.Job
	mc.BindAddr, mc.BindPort = c.Bind, c.GossipPort
	mc.AdvertiseAddr, mc.AdvertisePort = c.Advertise, c.GossipPort
	if len(c.Key) > 0 {
		mc.SecretKey = derive(c.Key, "gossip")
	}
	mc.Delegate, mc.Events = delegate{m}, listener{put}
	mc.LogOutput = d
	list, err := memberlist.Create(mc)
	if err != nil {
		return nil, explainBind(c, err)
	}
	return &gossip{list: list, self: list.LocalNode().Address(), seeds: c.Seeds, diag: d}, nil
}

// gossipTimes: a dead member is noticed in 3 to 6 s up to 64 members; beyond, memberlist's LAN settings.
func gossipTimes(world int) *memberlist.Config {
	mc := memberlist.DefaultLANConfig()
	if world <= 64 {
		mc.ProbeInterval, mc.ProbeTimeout = 500*time.Millisecond, 250*time.Millisecond
		mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 4, 4
		mc.GossipInterval = 100 * time.Millisecond
	}
	return mc
}

func explainBind(c Config, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use") {
		return fmt.Errorf("dist: gossip port %d on %s is in use: stop the process that has it or choose another port", c.GossipPort, c.Bind)
	}
	return fmt.Errorf("dist: gossip on %s port %d: %w", c.Bind, c.GossipPort, err)
}

// members that gossip believes alive, self excluded.
func (g *gossip) members(self string) []rendezvous.Member {
	var ms []rendezvous.Member
	for _, n := range g.list.Members() {
		if n.Name != self {
			if m, ok := memberOf(n); ok {
				ms = append(ms, m)
			}
		}
	}
	return ms
}

// join meets the seeds until ctx ends: often while no other member of this generation is known to live (a seed may be of the
// last one, about to end, and so may be all that it knew), else now and then, because memberlist never tries again to reach a member
// that it once took for dead.
func (g *gossip) join(ctx context.Context) {
	var met time.Time // when a seed last answered
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if time.Since(met) > 30*time.Second || !g.company() {
			if g.joinOnce(ctx) {
				met = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// company reports whether another member of this generation is known to be alive; a member without seeds looks for none.
func (g *gossip) company() bool {
	self, _ := memberOf(g.list.LocalNode())
	return len(g.seeds) == 0 || slices.ContainsFunc(g.members(self.Name), func(m rendezvous.Member) bool { return m.Generation == self.Generation })
}

func (g *gossip) joinOnce(ctx context.Context) (met bool) {
	for _, seed := range g.seeds {
		addrs, err := resolveSeed(ctx, seed)
		for _, a := range addrs {
			if a == g.self {
				continue
			}
			if ctx.Err() != nil { // a seed that does not answer takes memberlist seconds, which Close waits for
				return false
			}
			if _, err = g.list.Join([]string{a}); err == nil {
				met = true
				break
			}
		}
		g.diag.seed(seed, err)
	}
	return met || len(g.seeds) == 0
}

func resolveSeed(ctx context.Context, seed string) ([]string, error) {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, fmt.Errorf("%q is not host:port", seed)
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	for i := range ips {
		ips[i] = net.JoinHostPort(ips[i], port)
	}
	return ips, err
}

func (g *gossip) leave() {
	g.list.Leave(500 * time.Millisecond)
	g.list.Shutdown()
}

func (g *gossip) host() string {
	host, _, _ := net.SplitHostPort(g.self)
	return host
}

type gossipJoined struct{ member rendezvous.Member }

type gossipLeft struct{ name string }

type listener struct{ put func(any) }

func (l listener) NotifyJoin(n *memberlist.Node) {
	if m, ok := memberOf(n); ok {
		l.put(gossipJoined{m})
	}
}
func (l listener) NotifyLeave(n *memberlist.Node) { l.put(gossipLeft{strings.Clone(n.Name)}) }
func (l listener) NotifyUpdate(*memberlist.Node)  {}

// memberOf reads a node's meta; not ok if it is not one of ours.
func memberOf(n *memberlist.Node) (rendezvous.Member, bool) {
	var m meta
	if json.Unmarshal(n.Meta, &m) != nil || m.Port == 0 {
		return rendezvous.Member{}, false
	}
	return rendezvous.Member{Name: strings.Clone(n.Name), Host: m.Host, Node: m.Node, Local: m.Local, Generation: m.Generation,
		Control: net.JoinHostPort(n.Addr.String(), strconv.Itoa(m.Port))}, true
}

type delegate struct{ meta []byte }

func (d delegate) NodeMeta(int) []byte           { return d.meta }
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}
