package launch

import (
	"fmt"
	"os"
	"slices"

	"go.uber.org/zap"
)

// seat is where a rank runs: its GPU, the ranks with which it shares it, and the NUMA node beside it.
type seat struct {
	GPU
	share, of int // this rank is number share of those of this node on the GPU
}

// seats gives each rank of this launcher a GPU. Ranks share GPUs only when there are more of them than GPUs and
// all GPUs can be used: a rank must not land beside another one because a GPU is broken. prev are the ranks'
// seats in the attempt before: who can stays where it was.
func (l *launcher) seats(prev []seat) ([]seat, error) {
	s := l.survey()
	all, err := s.Take(l.GPUs)
	if err != nil {
		return nil, err
	}
	good := slices.DeleteFunc(usable(all), func(c Candidate) bool { return l.broken[c.root()] != nil })
	first, total := l.LocalBase, l.LocalSize
	if len(all) < l.LocalSize && l.NProc < l.LocalSize { // each launcher of this node sees its own GPUs
		first, total = 0, l.NProc
	}
	if total > len(all) && len(good) == len(all) {
		s.Ranks = (total + len(all) - 1) / len(all)
		if all, err = s.Take(l.GPUs); err != nil {
			return nil, err
		}
		if len(usable(all)) == len(all) {
			return sharing(all, first, l.NProc, total), nil
		}
		good = usable(all)
	}
	if len(good) < total {
		return nil, l.tooFew(all, len(good), total)
	}
	return stay(prev, good[first:], l.NProc), nil
}

// root is the UUID of the whole GPU.
func (g GPU) root() string {
	if g.Parent != "" {
		return g.Parent
	}
	return g.UUID
}

// sharing deals ranks first … first+n−1 of total onto all GPUs in turn.
func sharing(all []Candidate, first, n, total int) []seat {
	seats := make([]seat, n)
	for i := range seats {
		r := first + i
		k := r % len(all)
		seats[i] = seat{GPU: all[k].GPU, share: r / len(all), of: (total - k + len(all) - 1) / len(all)}
	}
	return seats
}

// stay gives n ranks one GPU each: the one they had if it is among good, else the first that is free.
func stay(prev []seat, good []Candidate, n int) []seat {
	seats := make([]seat, n)
	free := slices.Clone(good)
	for i := range min(n, len(prev)) {
		if k := slices.IndexFunc(free, func(c Candidate) bool { return c.UUID == prev[i].UUID }); k >= 0 {
			seats[i] = seat{GPU: free[k].GPU, of: 1}
			free = slices.Delete(free, k, k+1)
		}
	}
	for i := range seats {
		if seats[i].of == 0 {
			seats[i], free = seat{GPU: free[0].GPU, of: 1}, free[1:]
		}
	}
	return seats
}

func (l *launcher) tooFew(all []Candidate, good, ranks int) error {
	for i, c := range all {
		if e := l.broken[c.root()]; e != nil && c.Why == "" {
			all[i].Why = "it reported " + e.String()
			all[i].Mend = "reset it (as root: nvidia-smi --gpu-reset -i " + c.root() + "), or reboot"
		}
	}
	return fmt.Errorf("launch: of %d GPUs %d can be used, and the ranks need %d%s\nstart fewer ranks, or give --gpus none if they need no GPU",
		len(all), good, ranks, listed(all))
}

// survey is how this launcher looks at GPUs. At first other launchers of the job may be there already; after an
// attempt, which only a launcher that has its node for itself repeats, nobody may.
func (l *launcher) survey() Survey {
	s := Survey{Env: l.Env, Tolerance: l.GPUTolerance}
	if len(l.report.Attempts) == 0 {
		s.Job = l.Job
	}
	return s
}

// place plans the ranks' seats, CPUs and memory for the first attempt.
func (l *launcher) place() error {
	if l.GPUs == nil {
		l.cpus = l.affinity(nil)
		return nil
	}
	if err := l.sit(); err != nil {
		return err
	}
	l.ras = rasAddress()
	l.tryPolicy()
	l.watchGPUs()
	return nil
}

// sit gives the ranks their seats, and the CPUs beside them.
func (l *launcher) sit() error {
	seats, err := l.seats(l.seated)
	if err != nil {
		return err
	}
	if seats[0].of > 1 {
		l.Logger.Warn("several ranks share a GPU: each has a part of its memory and of its time", zap.Int("ranks", seats[0].of))
	}
	l.seated = seats
	l.cpus = l.affinity(seats)
	return nil
}

// nodes are the NUMA nodes beside the ranks' GPUs; nil when there are no GPUs, or one is nowhere.
func nodes(seats []seat) (out []int) {
	for _, s := range seats {
		if s.NUMA < 0 {
			return nil
		}
		out = append(out, s.NUMA)
	}
	return out
}

// beside splits the CPUs of each node among the ranks whose GPU is there. nil when a node has no CPU that this
// process may use.
func beside(cpus []cpu, nodes []int) [][]int {
	parts := make([][]int, len(nodes))
	done := map[int]bool{}
	for _, n := range nodes {
		if done[n] {
			continue
		}
		done[n] = true
		local := slices.DeleteFunc(slices.Clone(cpus), func(c cpu) bool { return c.node != n })
		if len(local) == 0 {
			return nil
		}
		var ranks []int
		for i := range nodes {
			if nodes[i] == n {
				ranks = append(ranks, i)
			}
		}
		for k, part := range splitOrShare(local, len(ranks)) {
			parts[ranks[k]] = part
		}
	}
	return parts
}

// splitOrShare is split, and where that gives nothing all CPUs for everyone.
func splitOrShare(cpus []cpu, n int) [][]int {
	if parts := split(cpus, n); parts != nil {
		return parts
	}
	var ids []int
	for _, c := range cpus {
		ids = append(ids, c.id)
	}
	return slices.Repeat([][]int{ids}, n)
}

// memoryNode is the NUMA node from which rank i takes its memory first; −1 = wherever it runs.
func (l *launcher) memoryNode(i int) int {
	if l.NoAffinity || l.seated == nil || !l.policy {
		return -1
	}
	return l.seated[i].NUMA
}

// tryPolicy finds out whether this process may say from which node memory is taken: containers often may not.
func (l *launcher) tryPolicy() {
	if l.NoAffinity || l.seated == nil || nodes(l.seated) == nil || memoryNodes(os.DirFS("/sys/devices/system")) < 2 {
		return
	}
	err := l.fork.run(func() error { return withMemory(l.seated[0].NUMA, func() error { return nil }) })
	if l.policy = err == nil; err != nil {
		l.Logger.Warn("the ranks' memory is not bound to their GPUs' NUMA nodes", zap.Error(err))
	}
}
