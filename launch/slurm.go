package launch

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
)

// Slurm is this process's place in a Slurm step.
type Slurm struct {
	Job       string   // job.step
	Hosts     []string // of the step, by node rank
	NodeRank  int
	ProcID    int // of this task among those of the step
	LocalID   int // of this task among those of its node
	LocalSize int // tasks of this node
	Tasks     int // of all nodes
	JobNumber int
}

// FromSlurm reads Slurm's variables through getenv. The second result is false outside a step: the batch
// shell has most of the variables, too, but is no task.
func FromSlurm(getenv func(string) string) (Slurm, bool, error) {
	step := getenv("SLURM_STEP_ID")
	if step == "" {
		return Slurm{}, false, nil
	}
	list := getenv("SLURM_STEP_NODELIST")
	hosts, err := Hostlist(list)
	if err != nil {
		if hosts, err = scontrol(list, err); err != nil {
			return Slurm{}, true, err
		}
	}
	r := envReader{getenv: getenv}
	s := Slurm{
		Hosts:     hosts,
		NodeRank:  r.slurm("SLURM_NODEID", len(hosts)-1),
		ProcID:    r.slurm("SLURM_PROCID", 1<<30),
		JobNumber: r.slurm("SLURM_JOB_ID", 1<<31-1),
	}
	s.Job = fmt.Sprintf("%d.%s", s.JobNumber, step)
	tasks, err := tasksPerNode(getenv("SLURM_STEP_TASKS_PER_NODE"))
	if r.err == nil && (err != nil || len(tasks) != len(hosts)) {
		r.fail("SLURM_STEP_TASKS_PER_NODE", fmt.Sprintf("%q does not fit the %d nodes of SLURM_STEP_NODELIST",
			getenv("SLURM_STEP_TASKS_PER_NODE"), len(hosts)))
	}
	if r.err != nil {
		return Slurm{}, true, r.err
	}
	s.LocalSize = tasks[s.NodeRank]
	for _, n := range tasks {
		s.Tasks += n
	}
	s.LocalID = r.slurm("SLURM_LOCALID", s.LocalSize-1)
	return s, true, r.err
}

func (r *envReader) slurm(name string, hi int) int {
	n, err := strconv.Atoi(r.getenv(name))
	if err != nil || n < 0 || n > hi {
		r.fail(name, fmt.Sprintf("%q is not a number from 0 to %d, though SLURM_STEP_ID says that this is a step", r.getenv(name), hi))
	}
	return max(0, min(n, hi))
}

// scontrol expands what Hostlist could not.
func scontrol(list string, cause error) ([]string, error) {
	out, err := exec.Command("scontrol", "show", "hostnames", list).Output()
	if hosts := strings.Fields(string(out)); err == nil && len(hosts) > 0 {
		return hosts, nil
	}
	return nil, cause
}

// tasksPerNode reads "2,1(x3)" as 2 1 1 1.
func tasksPerNode(s string) ([]int, error) {
	var tasks []int
	for _, e := range splitList(s) {
		count, times, many := strings.Cut(strings.TrimSuffix(e, ")"), "(x")
		n, err := strconv.Atoi(count)
		k := 1
		if many && err == nil {
			k, err = strconv.Atoi(times)
		}
		if err != nil || n < 1 || k < 1 || len(tasks)+k > maxHosts {
			return nil, fmt.Errorf("%q is not N or N(xTIMES)", e)
		}
		for range k {
			tasks = append(tasks, n)
		}
	}
	return tasks, nil
}

// Port is the gossip port of a node's local rank 0: another one for another job, and for each node, because Slurm's nodes may
// share a host. Jobs of neighbouring numbers, such as those of an array, have ports far apart.
func (s Slurm) Port(node int) int { return 20000 + (s.JobNumber%12000*7919+node)%12000 }

// Seeds are all nodes, by their names in Slurm.
func (s Slurm) Seeds() []string {
	seeds := make([]string, len(s.Hosts))
	for i, h := range s.Hosts {
		seeds[i] = net.JoinHostPort(h, strconv.Itoa(s.Port(i)))
	}
	return seeds
}

// Place fills in what c leaves open: nodes, node rank (−1), seeds, port and job, and with several tasks per node
// the ranks.
func (s Slurm) Place(c *Config) error {
	if s.Tasks > len(s.Hosts) {
		if c.NProc > 1 {
			return fmt.Errorf("launch: %d ranks in each of the %d Slurm tasks of this node: use one task per node, or one rank per task",
				c.NProc, s.LocalSize)
		}
		if c.MinNodes != 0 && (c.MinNodes != len(s.Hosts) || c.MaxNodes != len(s.Hosts)) {
			return fmt.Errorf("launch: %d:%d nodes, but the Slurm step has several tasks per node on %d: leave the number of nodes to Slurm",
				c.MinNodes, c.MaxNodes, len(s.Hosts))
		}
		c.LocalBase, c.LocalSize, c.RankBase, c.World = s.LocalID, s.LocalSize, s.ProcID, s.Tasks
	}
	if c.MinNodes == 0 {
		c.MinNodes, c.MaxNodes = len(s.Hosts), len(s.Hosts)
	}
	if c.NodeRank < 0 {
		c.NodeRank = s.NodeRank
	}
	setDefault(&c.Job, s.Job)
	if len(s.Hosts) > 1 || s.LocalSize > 1 {
		setDefault(&c.GossipPort, s.Port(s.NodeRank))
	}
	if len(s.Hosts) > 1 && c.Join == nil {
		c.Join = s.Seeds()
	}
	return nil
}
