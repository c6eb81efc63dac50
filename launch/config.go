package launch

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"
)

// DefaultGossipPort is bound by local rank 0 of each node of a job that spans nodes, unless told otherwise.
const DefaultGossipPort = 7946

// Config says what to run and where. The zero value of a field is its default.
type Config struct {
	Program string   // path of the rank's executable; required
	Args    []string // its arguments, without the program's name
	Dir     string   // its working directory; default: this process's
	Env     []string // its environment, NAME=value; default: os.Environ(); the contract is added

	NProc     int // ranks that this launcher starts; default 1
	MinNodes  int // fewest nodes that may run; default 1
	MaxNodes  int // most nodes; default MinNodes
	NodeRank  int // this node's number; −1 = unknown; ignored on a single node
	LocalBase int // number of this launcher's first rank on its node, when a node has several launchers (Slurm tasks)
	LocalSize int // ranks on this node; default NProc; more only with LocalBase
	RankBase  int // wished global rank of the first rank, with World > 0; otherwise NodeRank·NProc
	World     int // ranks of the whole job, when each has its own launcher (Slurm tasks); default nodes × LocalSize

	Join       []string // host:port of other nodes' gossip ports; needed on all nodes but the first
	GossipPort int      // port of local rank 0; default: a free one on a single node, else Join's, else 7946; −1 = a free one
	Bind       string   // address of the ranks; default 127.0.0.1, with several nodes the one that leads to Join
	Job        string   // default: random; required when there are several nodes or launchers
	Key        []byte   // 16, 24 or 32 bytes; default: random; required when there are several nodes or launchers

	MaxRestarts int           // further attempts after a failure; default 0. One that came too late for a group is none
	Pause       time.Duration // before the first restart, doubled each time up to 30 s; default 1 s
	Grace       time.Duration // from SIGTERM to SIGKILL; default 30 s
	Threads     int           // GOMAXPROCS of each rank; default: the rank's share of the cores
	NoAffinity  bool          // do not split the node's cores among the ranks, nor bind them to their GPUs' NUMA nodes
	Alone       bool          // this process does nothing but launch: any child process that it did not start and that was not there before is a rank's orphan

	GPUs         GPUs          // the NVIDIA driver: each rank gets a GPU; default nil: no rank is given one
	GPUTolerance int64         // bytes that others may hold on a rank's GPU; default 512 MiB
	GPUWait      time.Duration // how long a restart waits for memory of GPUs to be freed; default 50 s
	GPUPoll      time.Duration // how often it looks; default 2 s
	HealthEvery  time.Duration // between two looks at the GPUs' health, which go to Logger; default 1 min

	Stdout          io.Writer        // ranks' stdout; default: discarded
	Stderr          io.Writer        // ranks' stderr; default: discarded
	PrefixLogs      bool             // each line begins with its rank: "[0] "
	OnlyRank0Stdout bool             // Stdout gets rank 0's alone, without prefix
	LogDir          string           // also write attempt-K/rank-N.{out,err} and exit-report.json here; with several nodes below node-N; default: none
	Signals         <-chan os.Signal // what to forward; default: Run subscribes to TERM, INT, HUP, USR1, USR2
	Logger          *zap.Logger      // the launcher's own events; default: none
}

// validate gives c with its defaults filled in, or one error that names the field.
func (c Config) validate() (Config, error) {
	c.NProc = max(c.NProc, 0)
	setDefault(&c.NProc, 1)
	setDefault(&c.MinNodes, 1)
	setDefault(&c.MaxNodes, c.MinNodes)
	setDefault(&c.LocalSize, c.NProc)
	setDefault(&c.Pause, time.Second)
	setDefault(&c.Grace, 30*time.Second)
	setDefault(&c.GPUTolerance, DefaultTolerance)
	setDefault(&c.GPUWait, 50*time.Second)
	setDefault(&c.GPUPoll, 2*time.Second)
	setDefault(&c.HealthEvery, time.Minute)
	if c.Env == nil {
		c.Env = os.Environ()
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.MaxNodes == 1 {
		c.NodeRank = 0
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("launch: %w", err)
	}
	if c.Job == "" {
		c.Job = hex.EncodeToString(randomBytes(8))
	}
	if c.Key == nil {
		c.Key = randomBytes(32)
	}
	if err := c.network(); err != nil {
		return c, fmt.Errorf("launch: %w", err)
	}
	return c, nil
}

// shared tells that other launchers take part in the job, so that nothing may be invented here.
func (c Config) shared() bool { return c.MaxNodes > 1 || c.World > 0 }

func (c Config) check() error {
	switch {
	case c.Program == "":
		return errors.New("no program to run")
	case c.MinNodes < 1 || c.MaxNodes < c.MinNodes:
		return fmt.Errorf("nodes %d:%d is not MIN:MAX with 1 ≤ MIN ≤ MAX", c.MinNodes, c.MaxNodes)
	case c.NodeRank < -1 || c.NodeRank >= c.MaxNodes:
		return fmt.Errorf("node rank %d is not below the %d nodes", c.NodeRank, c.MaxNodes)
	case c.LocalBase < 0 || c.LocalBase+c.NProc > c.LocalSize:
		return fmt.Errorf("local ranks %d…%d do not fit a local size of %d", c.LocalBase, c.LocalBase+c.NProc-1, c.LocalSize)
	case c.World > 0 && c.MaxRestarts > 0:
		return errors.New("several launchers per node cannot restart together: start one task per node, or set max restarts to 0")
	case c.LocalSize > c.NProc && c.World == 0:
		return errors.New("a local size above the launcher's own ranks needs the world's size")
	case c.World > 0 && c.RankBase+c.NProc > c.World:
		return fmt.Errorf("ranks %d…%d do not fit a world of %d", c.RankBase, c.RankBase+c.NProc-1, c.World)
	case c.GPUTolerance < 0 || c.GPUWait < 0 || c.GPUPoll < 0 || c.HealthEvery < 0:
		return errors.New("the GPUs' tolerance and times must not be negative")
	case c.MaxRestarts < 0 || c.Threads < 0:
		return errors.New("max restarts and threads must not be negative")
	case c.GossipPort < -1 || c.GossipPort > 65535 || c.GossipPort < 0 && c.LocalBase > 0:
		return fmt.Errorf("gossip port %d is not a port", c.GossipPort)
	case c.Job != "" && !regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`).MatchString(c.Job):
		return fmt.Errorf("job id %q may have up to 128 letters, digits, '.', '_' and '-'", c.Job)
	case c.Key != nil && !slices.Contains([]int{16, 24, 32}, len(c.Key)):
		return fmt.Errorf("the key has %d bytes, not 16, 24 or 32", len(c.Key))
	case c.shared() && c.Key == nil:
		return errors.New("several nodes need one key: make it with head -c 32 /dev/urandom | base64 and give it to all " +
			"of them as SPLORA_KEY or, with mode 0600, as --key-file")
	case c.shared() && c.Job == "":
		return errors.New("several nodes need the same job id: --job, SPLORA_JOB or SLURM_JOB_ID")
	case c.MaxNodes > 1 && len(c.Join) == 0 && c.NodeRank > 0:
		return errors.New("this node is not the first one: --join HOST:PORT must name the first one's gossip port")
	}
	if st, err := os.Stat(c.Dir); c.Dir != "" && (err != nil || !st.IsDir()) {
		return fmt.Errorf("working directory %s is not there", c.Dir)
	}
	for _, j := range c.Join {
		if _, _, err := net.SplitHostPort(j); err != nil {
			return fmt.Errorf("join %q is not HOST:PORT", j)
		}
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}
