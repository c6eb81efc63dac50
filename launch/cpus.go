package launch

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// cpu is where a logical CPU is.
type cpu struct{ node, pkg, core, id int }

func (a cpu) compare(b cpu) int {
	return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.core, b.core), cmp.Compare(a.id, b.id))
}

func (a cpu) sameCore(b cpu) bool { return a.node == b.node && a.pkg == b.pkg && a.core == b.core }

// topology places the CPUs ids by sys, the tree /sys/devices/system. What is unknown there counts as node 0,
// package 0 and a core of its own.
func topology(sys fs.FS, ids []int) []cpu {
	nodes := map[int]int{}
	dirs, _ := fs.Glob(sys, "node/node[0-9]*")
	for _, d := range dirs {
		n, _ := strconv.Atoi(strings.TrimPrefix(d, "node/node"))
		b, _ := fs.ReadFile(sys, d+"/cpulist")
		for _, id := range cpuList(strings.TrimSpace(string(b))) {
			nodes[id] = n
		}
	}
	cpus := make([]cpu, len(ids))
	for i, id := range ids {
		dir := fmt.Sprintf("cpu/cpu%d/topology/", id)
		cpus[i] = cpu{nodes[id], readInt(sys, dir+"physical_package_id", 0), readInt(sys, dir+"core_id", 1<<20+id), id}
	}
	slices.SortFunc(cpus, cpu.compare)
	return cpus
}

func readInt(sys fs.FS, name string, missing int) int {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return missing
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return missing
	}
	return n
}

// cpuList reads the kernel's list format, "0-3,8,10-11".
func cpuList(s string) []int {
	var ids []int
	for _, r := range splitList(s) {
		a, b, two := strings.Cut(r, "-")
		if !two {
			b = a
		}
		lo, err1 := strconv.Atoi(a)
		hi, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil || lo < 0 || hi-lo > 1<<16 {
			return nil
		}
		for i := lo; i <= hi; i++ {
			ids = append(ids, i)
		}
	}
	return ids
}

// split gives n ranks their CPUs: consecutive whole cores in the order of the sorted cpus, so that a rank
// stays within a NUMA node where the numbers allow it; rank i of n gets cores ⌊i·c/n⌋ … ⌊(i+1)·c/n⌋−1. With
// fewer cores than ranks the hardware threads are split; nil when there are too few of them, too.
func split(cpus []cpu, n int) [][]int {
	units := cores(cpus)
	if len(units) < n {
		units = units[:0]
		for _, c := range cpus {
			units = append(units, []int{c.id})
		}
	}
	if len(units) < n || n < 2 {
		return nil
	}
	parts := make([][]int, n)
	for i := range parts {
		parts[i] = slices.Concat(units[i*len(units)/n : (i+1)*len(units)/n]...)
	}
	return parts
}

// cores groups sorted cpus by core.
func cores(cpus []cpu) [][]int {
	var units [][]int
	for i, c := range cpus {
		if i > 0 && c.sameCore(cpus[i-1]) {
			units[len(units)-1] = append(units[len(units)-1], c.id)
		} else {
			units = append(units, []int{c.id})
		}
	}
	return units
}

// affinity plans the ranks' CPUs: a share of those beside their GPU, else of all; nil: they share what there is.
func (c Config) affinity(seats []seat) [][]int {
	if c.NoAffinity {
		return nil
	}
	cpus := topology(os.DirFS("/sys/devices/system"), allowedCPUs())
	if n := nodes(seats); n != nil {
		if parts := beside(cpus, n); parts != nil {
			return parts
		}
	}
	return split(cpus, c.NProc)
}

// memoryNodes counts the NUMA nodes that have memory, by sys, the tree /sys/devices/system.
func memoryNodes(sys fs.FS) int {
	b, err := fs.ReadFile(sys, "node/has_memory")
	if err != nil {
		return 1
	}
	return max(1, len(cpuList(strings.TrimSpace(string(b)))))
}

// threads is GOMAXPROCS of rank i: Threads, or an equal share of the cores that this process may use, which
// Go limits to the cgroup's quota.
func (c Config) threads(cpus []int) int {
	if c.Threads > 0 {
		return c.Threads
	}
	share := max(1, runtime.GOMAXPROCS(0)/c.NProc)
	if len(cpus) > 0 {
		share = min(max(share, 1), len(cpus))
	}
	return share
}

// NUMANodes counts the NUMA nodes whose CPUs this process may use; at least 1.
func NUMANodes() int {
	nodes := map[int]bool{}
	for _, c := range topology(os.DirFS("/sys/devices/system"), allowedCPUs()) {
		nodes[c.node] = true
	}
	return max(1, len(nodes))
}
