package dist

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"time"

	"github.com/splora/splora/dist/rendezvous"
	"github.com/splora/splora/nccl"
)

// Logger takes what happens on the way: a *slog.Logger, or anything like it. args are key, value, key, value, …
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
}

// Config of Join. Zero values are the defaults; Job and WorldMax must be set.
type Config struct {
	Job  string // names the job: members of other jobs are not heard; at most 200 bytes
	Key  []byte // 16, 24 or 32 bytes, the same on all members; may be empty on loopback only
	Host string // name for people and for the order of ranks; "" = the machine's

	Bind       string   // IP address to listen on; "" = 127.0.0.1
	Advertise  string   // IP address at which others reach this member; "" = Bind, or a private one if Bind is 0.0.0.0
	GossipPort int      // TCP and UDP; 0 = any free one
	Seeds      []string // host:port of members' gossip; this member's own may be among them

	Generation int // from the launcher, counts restarts; members of different generations never mix
	NodeRank   int // −1 = unknown: nodes are then ordered by Host
	LocalRank  int
	LocalSize  int // ranks on this node; 0 = unknown
	WorldMin   int // 0 = WorldMax
	WorldMax   int
	Previous   int // world of the last generation, 0 = none: fewer than half of it never start

	Fingerprint map[string]string // "model" → hash, "config" → hash, …: ranks that differ fail, by name, before the first step

	Timeout   time.Duration // for Join as a whole; 0 = 60 s
	LastCall  time.Duration // how long to wait for more than WorldMin once nobody new comes; 0 = 3 s
	Heartbeat time.Duration // 0 = 1 s
	Silence   time.Duration // a rank without heartbeat for so long is lost; 0 = 30 s
	Stall     time.Duration // a collective that waits for so long is reported to Logger; 0 = 10 s
	CloseWait time.Duration // how long Close waits for the others' goodbye; 0 = 5 s

	NCCL  *NCCL            // reduce vectors in device memory over NCCL, on all ranks alike; nil = host memory only
	Trace func(Collective) // is told of every AllReduce and Broadcast that has ended well, on its caller's goroutine; nil = nobody

	Apart         bool                     // pass data to ranks of this host over the network, too, not through memory; so with AdvertiseData
	AdvertiseData func(addr string) string // maps the data address to the one others shall dial (a proxy); nil = as it is
	Logger        Logger                   // nil = silence
}

// resolve checks c and fills in the defaults.
func (c Config) resolve() (Config, error) {
	if c.Host == "" {
		c.Host, _ = os.Hostname()
	}
	if c.Bind == "" {
		c.Bind = "127.0.0.1"
	}
	if c.WorldMin == 0 {
		c.WorldMin = c.WorldMax
	}
	if c.Logger == nil {
		c.Logger = silence{}
	}
	if c.NCCL != nil {
		c.NCCL = c.NCCL.resolve()
	}
	c.Apart = c.Apart || c.AdvertiseData != nil
	setDefault(&c.Timeout, 60*time.Second)
	setDefault(&c.LastCall, 3*time.Second)
	setDefault(&c.Heartbeat, time.Second)
	setDefault(&c.Silence, 30*time.Second)
	setDefault(&c.Stall, 10*time.Second)
	setDefault(&c.CloseWait, 5*time.Second)
	return c, c.validate()
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

func (c Config) validate() error {
	ip := net.ParseIP(c.Bind)
	switch {
	case c.Job == "" || len(c.Job) > 200:
		return fmt.Errorf("dist: job %q: give the job a name of 1 to 200 bytes", c.Job)
	case len(c.Host) > 128:
		return fmt.Errorf("dist: host name %q is longer than 128 bytes", c.Host)
	case c.WorldMax < 1 || c.WorldMin < 1 || c.WorldMin > c.WorldMax:
		return fmt.Errorf("dist: world of %d to %d ranks", c.WorldMin, c.WorldMax)
	case c.LocalRank < 0 || c.NodeRank < -1 || c.LocalSize > 0 && c.LocalRank >= c.LocalSize:
		return fmt.Errorf("dist: node rank %d, local rank %d of %d", c.NodeRank, c.LocalRank, c.LocalSize)
	case ip == nil:
		return fmt.Errorf("dist: bind address %q is not an IP address", c.Bind)
	case c.Advertise != "" && net.ParseIP(c.Advertise) == nil:
		return fmt.Errorf("dist: advertise address %q is not an IP address", c.Advertise)
	case len(c.Key) == 0 && !ip.IsLoopback():
		return fmt.Errorf("dist: bind address %s can be reached from other machines: give the job a key", c.Bind)
	case len(c.Key) != 0 && len(c.Key) != 16 && len(c.Key) != 24 && len(c.Key) != 32:
		return fmt.Errorf("dist: the key has %d bytes, not 16, 24 or 32", len(c.Key))
	}
	return c.checkTimes()
}

func (c Config) checkTimes() error {
	times := []time.Duration{c.Timeout, c.LastCall, c.Heartbeat, c.Silence, c.Stall, c.CloseWait}
	if c.NCCL != nil {
		times = append(times, c.NCCL.Timeout, c.NCCL.Budget)
	}
	for _, d := range times {
		if d < 0 {
			return errors.New("dist: a negative duration in the configuration")
		}
	}
	return nil
}

func (c Config) member(name, control, data string, lib *nccl.Library) rendezvous.Member {
	if c.AdvertiseData != nil {
		data = c.AdvertiseData(data)
	}
	return rendezvous.Member{Name: name, Host: c.Host, Node: c.NodeRank, Local: c.LocalRank, Control: control, Data: data,
		Generation: c.Generation, Min: c.WorldMin, Max: c.WorldMax, Previous: c.Previous, Fingerprint: c.fingerprint(lib)}
}

// fingerprint with the version of NCCL, which must be the same on all ranks, too.
func (c Config) fingerprint(lib *nccl.Library) map[string]string {
	if lib == nil {
		return c.Fingerprint
	}
	f := maps.Clone(c.Fingerprint)
	if f == nil {
		f = map[string]string{}
	}
	f["NCCL"] = lib.GetVersion().String()
	return f
}

type silence struct{}

func (silence) Debug(string, ...any) {}
func (silence) Info(string, ...any)  {}
func (silence) Warn(string, ...any)  {}
