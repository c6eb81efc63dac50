package launch

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// network fills in Bind and GossipPort.
func (c *Config) network() error {
	if c.Bind == "" {
		c.Bind = "127.0.0.1"
		if c.MaxNodes > 1 {
			c.Bind = addressTowards(c.Join)
		}
	}
	if net.ParseIP(c.Bind) == nil {
		return fmt.Errorf("bind %q is not an IP address of this node", c.Bind)
	}
	if c.GossipPort != 0 || !c.shared() {
		return nil
	}
	c.GossipPort = DefaultGossipPort
	if len(c.Join) > 0 {
		_, p, err := net.SplitHostPort(c.Join[0])
		if err != nil {
			return err
		}
		if c.GossipPort, err = strconv.Atoi(p); err != nil || c.GossipPort < 1 || c.GossipPort > 65535 {
			return fmt.Errorf("join %q: %q is not a port", c.Join[0], p)
		}
	}
	return nil
}

// addressTowards gives the own address from which the first of the seeds is reached, or 0.0.0.0. Dialling UDP
// sends nothing. A host's own name often leads to 127.0.1.1, which no other node can reach: only a seed that
// is written as a loopback address gives one.
func addressTowards(seeds []string) string {
	for _, s := range seeds {
		conn, err := net.Dial("udp", s)
		if err != nil {
			continue
		}
		ip := conn.LocalAddr().(*net.UDPAddr).IP
		conn.Close()
		host, _, _ := net.SplitHostPort(s)
		literal := net.ParseIP(host)
		if !ip.IsLoopback() || literal != nil && literal.IsLoopback() {
			return ip.String()
		}
	}
	return "0.0.0.0"
}

// hold is a port kept bound, for TCP and UDP, until just before its rank is started.
type hold struct {
	tcp  net.Listener
	udp  net.PacketConn
	port int
}

func (h *hold) release() {
	if h != nil {
		h.tcp.Close()
		h.udp.Close()
	}
}

// reserve binds port; port < 1 means any free one, from below the range that the kernel hands out, so that
// no other process comes by it by chance between release and bind.
func reserve(bind string, port int) (*hold, error) {
	if port > 0 {
		return holdPort(bind, port)
	}
	var err error
	for range 64 {
		var h *hold
		if h, err = holdPort(bind, 20000+rand.IntN(12000)); err == nil {
			return h, nil
		}
	}
	return nil, err
}

func holdPort(bind string, port int) (*hold, error) {
	addr := net.JoinHostPort(bind, strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("gossip port %s: %w; another job may use it: choose one with --gossip-port, or --bind", addr, err)
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("gossip port %s: %w; another job may use it: choose one with --gossip-port, or --bind", addr, err)
	}
	return &hold{tcp, udp, port}, nil
}

// seedsOf gives what the ranks join: their node's local rank 0, then the other nodes.
func (c Config) seedsOf(port int) []string {
	host := c.Bind
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	seeds := []string{net.JoinHostPort(host, strconv.Itoa(port))}
	for _, j := range c.Join {
		if j != seeds[0] {
			seeds = append(seeds, j)
		}
	}
	return seeds
}
