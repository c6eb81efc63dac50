package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/lora"
)

const long = `Start the ranks of splora train on this node, watch them, and start them again when one fails.

Everything after -- goes to splora, which is looked for beside this program, then on PATH.

One node needs nothing else. With several nodes each one runs the same command: --nnodes says how many,
--join names the first node's gossip port, and the key (SPLORA_KEY or --key-file) and the job id (--job or
SPLORA_JOB) are the same everywhere. In a Slurm step nodes, node rank, port, seeds and job id come from Slurm;
only the key is needed. Start one task per node: then ranks can be restarted.

Signals TERM, INT, HUP, USR1 and USR2 go to all ranks, which publish a checkpoint and end with 75.
A second TERM or INT kills them.

A program that was built with -tags cuda gives each rank a GPU: one that can be used, by its UUID, with the cores and the
memory beside it. See splora help launch, and splora doctor for what this machine has.

Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 75 stopped on a signal, with a
checkpoint unless it came before the first step: run again to go on.`

const example = `  splora-launch --nproc-per-node 2 -- train --model DIR --data FILE --out DIR

  head -c 32 /dev/urandom | base64 > key && chmod 600 key          # once, for all nodes
  splora-launch --nnodes 2 --node-rank 0 --key-file key --job a1 --gossip-port 7946 --nproc-per-node gpu -- train …
  splora-launch --nnodes 2 --node-rank 1 --key-file key --job a1 --join first:7946 --nproc-per-node gpu -- train …

  SPLORA_KEY=$(head -c 32 /dev/urandom | base64) srun splora-launch --nproc-per-node gpu -- train …`

// flags are the command line as it stands.
type flags struct {
	getenv       func(string) string
	environ      []string // of the ranks
	root         fs.FS    // the file system
	note         string   // what the user should know before the ranks start
	open         func() (launch.GPUs, error)
	nproc        string
	nnodes       string
	nodeRank     int
	join         []string
	gossipPort   int
	bind         string
	job          string
	keyFile      string
	restarts     int
	grace        time.Duration
	threads      int
	affinity     string
	gpus         string
	toleranceMiB int
	health       time.Duration
	logDir       string
	stdout       string
	prefix       bool
	splora       string
	verbose      bool
}

func (f *flags) register(cmd *cobra.Command) {
	s := cmd.Flags()
	s.SetInterspersed(false)
	s.SortFlags = false
	s.StringVar(&f.nproc, "nproc-per-node", "1", "ranks on this node: a number; gpu = one for each GPU that can be used; cpu = one per NUMA node")
	s.StringVar(&f.nnodes, "nnodes", "", "nodes of the job, N or MIN:MAX (default 1, or those of the Slurm step)")
	s.IntVar(&f.nodeRank, "node-rank", -1, "number of this node, from 0; keeps ranks stable (default unknown, or Slurm's)")
	s.StringSliceVar(&f.join, "join", nil, "HOST:PORT of the first node's gossip port; more, by commas, survive its loss (default SPLORA_SEEDS)")
	s.IntVar(&f.gossipPort, "gossip-port", 0, "port of this node's first rank; -1 = any free one (default: a free one; with several nodes --join's, else 7946)")
	s.StringVar(&f.bind, "bind", "", "address that the ranks bind (default 127.0.0.1; with several nodes the one that leads to --join)")
	s.StringVar(&f.job, "job", "", "job id, the same on all nodes (default SPLORA_JOB, the Slurm step, or random on one node)")
	s.StringVar(&f.keyFile, "key-file", "", "file of mode 0600 with the job's key in base64 (default SPLORA_KEY, or random on one node)")
	s.IntVar(&f.restarts, "max-restarts", 0, "start again so many times after a failure, from the last checkpoint")
	s.DurationVar(&f.grace, "grace", 30*time.Second, "time from SIGTERM to SIGKILL for the other ranks when one failed")
	s.IntVar(&f.threads, "threads-per-rank", 0, "GOMAXPROCS of each rank (default: its share of the cores)")
	s.StringVar(&f.affinity, "affinity", "cores", "cores = split the node's cores among the ranks, near their GPUs; none = do not bind")
	s.StringVar(&f.gpus, "gpus", "auto", "auto = each rank gets a GPU where there are any (CUDA_VISIBLE_DEVICES chooses); none = leave them alone")
	s.IntVar(&f.toleranceMiB, "gpu-tolerance-mib", 512, "memory that other programs may hold on a rank's GPU, in MiB")
	s.DurationVar(&f.health, "health-every", time.Minute, "time between two looks at the GPUs' health; -v shows each, a slowed-down GPU is always told")
	s.StringVar(&f.logDir, "log-dir", "", "also write attempt-K/rank-N.{out,err} and exit-report.json here")
	s.StringVar(&f.stdout, "stdout", "rank0", "rank0 = show rank 0's standard output as it is; all = show all ranks'")
	s.BoolVar(&f.prefix, "prefix", true, "begin each log line with its rank: [0]")
	s.StringVar(&f.splora, "splora", "", "the splora program (default: beside this one, then on PATH)")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "log starts, ends and signals of ranks")
	complete(cmd, "nproc-per-node", "gpu", "cpu")
	complete(cmd, "affinity", "cores", "none")
	complete(cmd, "gpus", "auto", "none")
	complete(cmd, "stdout", "rank0", "all")
}

func complete(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("splora-launch: " + err.Error())
	}
}

// config makes the launcher's configuration of the flags, the environment and Slurm's variables, in this
// order.
func (f *flags) config(cmd *cobra.Command, args []string) (launch.Config, error) {
	c := launch.Config{
		NodeRank: f.nodeRank, Bind: f.bind, GossipPort: f.gossipPort, Job: f.job, Args: args,
		MaxRestarts: f.restarts, Grace: f.grace, Threads: f.threads, LogDir: f.logDir, PrefixLogs: f.prefix, Alone: true, Env: f.environ,
	}
	if len(args) == 0 {
		return c, errors.New("nothing to run: splora-launch [flags] -- train [flags of splora train]")
	}
	if c.Job == "" {
		c.Job = f.getenv("SPLORA_JOB")
	}
	err := errors.Join(f.words(&c), f.nodes(&c), f.key(&c))
	if err == nil {
		err = f.openGPUs(&c, args)
	}
	if err == nil {
		err = f.ranks(&c)
	}
	if err == nil {
		err = f.place(&c, cmd.Flags().Changed("join"))
	}
	if err == nil {
		err = addUp(c)
	}
	if err == nil {
		c.Program, err = findSplora(f.splora)
	}
	return c, err
}

// addUp refuses more ranks than a step can add up, before any of them is started.
func addUp(c launch.Config) error {
	if world := max(c.World, max(c.MaxNodes, 1)*c.NProc); world > lora.MaxRanks {
		return fmt.Errorf("%d ranks (--nproc-per-node × nodes): at most %d", world, lora.MaxRanks)
	}
	return nil
}

// words reads the flags that are one of two words, and the duration.
func (f *flags) words(c *launch.Config) error {
	switch f.affinity {
	case "cores", "none":
		c.NoAffinity = f.affinity == "none"
	default:
		return fmt.Errorf("--affinity %q is neither cores nor none", f.affinity)
	}
	switch f.stdout {
	case "rank0", "all":
		c.OnlyRank0Stdout = f.stdout == "rank0"
	default:
		return fmt.Errorf("--stdout %q is neither rank0 nor all", f.stdout)
	}
	if f.grace <= 0 {
		return fmt.Errorf("--grace %v is not positive", f.grace)
	}
	return nil
}

func (f *flags) nodes(c *launch.Config) (err error) {
	if f.nnodes != "" {
		if c.MinNodes, c.MaxNodes, err = launch.ParseSpan(f.nnodes); err != nil {
			return fmt.Errorf("--nnodes %w", err)
		}
	}
	return nil
}

func (f *flags) ranks(c *launch.Config) (err error) {
	switch f.nproc {
	case "gpu":
		c.NProc, err = usable(c)
	case "cpu":
		c.NProc = launch.NUMANodes()
	default:
		if c.NProc, err = strconv.Atoi(f.nproc); err != nil || c.NProc < 1 {
			err = fmt.Errorf("--nproc-per-node %q is neither a number ≥ 1 nor gpu nor cpu", f.nproc)
		}
	}
	return err
}

func (f *flags) key(c *launch.Config) (err error) {
	if f.keyFile != "" {
		c.Key, err = launch.ReadKeyFile(f.keyFile)
		return err
	}
	if s := f.getenv("SPLORA_KEY"); s != "" {
		if c.Key, err = launch.ParseKey(s); err != nil {
			return fmt.Errorf("SPLORA_KEY: %w", err)
		}
	}
	return nil
}

// place fills in where this node is: Slurm's word where no flag says otherwise.
func (f *flags) place(c *launch.Config, joinGiven bool) error {
	slurm, inStep, err := launch.FromSlurm(f.getenv)
	if err != nil {
		return err
	}
	port := func(host string) int {
		switch {
		case c.GossipPort > 0:
			return c.GossipPort
		case inStep:
			return slurm.Port(max(0, slices.Index(slurm.Hosts, host)))
		}
		return launch.DefaultGossipPort
	}
	if c.Join = f.join; !joinGiven {
		c.Join = hostPorts(f.getenv("SPLORA_SEEDS"), port)
	}
	if inStep {
		if err := slurm.Place(c); err != nil {
			return err
		}
	}
	if c.MaxNodes <= 1 && c.World == 0 {
		if joinGiven {
			return errors.New("--join is for several nodes: say how many with --nnodes")
		}
		c.Join = nil
	}
	return nil
}

// hostPorts reads a list of hosts by commas; those without a port get theirs.
func hostPorts(list string, port func(host string) int) []string {
	var seeds []string
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(s); err != nil {
			s = strings.Trim(s, "[]")
			s = net.JoinHostPort(s, strconv.Itoa(port(s)))
		}
		seeds = append(seeds, s)
	}
	return seeds
}

// findSplora gives the program whose ranks are started.
func findSplora(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err != nil {
			return "", fmt.Errorf("--splora: %w", err)
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), "splora")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("splora")
	if err != nil {
		return "", errors.New("no splora beside this program nor on PATH: build both into one directory " +
			"(go build -o bin/ ./cmd/splora ./cmd/splora-launch), or give --splora PATH")
	}
	return path, nil
}
