package launch

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

func step(more ...string) func(string) string {
	return environment(append([]string{"SLURM_JOB_ID=4242", "SLURM_STEP_ID=0", "SLURM_STEP_NODELIST=n[1-3]", "SLURM_NODEID=2", "SLURM_PROCID=2",
		"SLURM_LOCALID=0", "SLURM_STEP_TASKS_PER_NODE=1(x3)"}, more...))
}

func TestOneSlurmTaskPerNodePlacesTheLauncher(t *testing.T) {
	s, ok, err := FromSlurm(step())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	c := Config{Program: "x", NProc: 8, NodeRank: -1, Key: randomBytes(32), MaxRestarts: 3, Bind: "127.0.0.1"}
	if err := s.Place(&c); err != nil {
		t.Fatal(err)
	}
	c, err = c.validate()
	if err != nil {
		t.Fatal(err)
	}
	if c.MinNodes != 3 || c.MaxNodes != 3 || c.NodeRank != 2 || c.Job != "4242.0" || c.GossipPort != 24400 ||
		!slices.Equal(c.Join, []string{"n1:24398", "n2:24399", "n3:24400"}) {
		t.Errorf("config %+v", c)
	}
	l := launcher{Config: c}
	if k := l.contract(5, 2, 3, c.GossipPort); k.Rank != 21 || k.LocalRank != 5 || k.WorldMin != 24 || k.WorldMax != 24 || k.GossipPort != 0 {
		t.Errorf("contract %v", k)
	}
	if k := l.contract(0, 2, 3, c.GossipPort); k.Rank != 16 || k.GossipPort != 24400 || k.Generation != 3 || k.Attempt != 2 {
		t.Errorf("contract %v", k)
	}
}

func TestNeighbouringJobsOnAHostHaveDifferentPorts(t *testing.T) {
	whose := map[int]string{}
	for job := 1 << 20; job < 1<<20+64; job++ {
		for node := range 16 {
			port, who := Slurm{JobNumber: job}.Port(node), fmt.Sprintf("node %d of job %d", node, job)
			if whose[port] != "" || port < 20000 || port >= 32000 {
				t.Fatalf("port %d is that of %s and of %s", port, who, whose[port])
			}
			whose[port] = who
		}
	}
}

func TestSeveralSlurmTasksPerNodeTakeTheirRanksFromSlurm(t *testing.T) {
	s, _, err := FromSlurm(step("SLURM_STEP_NODELIST=n[1-2]", "SLURM_NODEID=1", "SLURM_PROCID=4", "SLURM_LOCALID=2", "SLURM_STEP_TASKS_PER_NODE=2,3"))
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Program: "x", NProc: 1, NodeRank: -1, Key: randomBytes(32), Bind: "127.0.0.1"}
	if err := s.Place(&c); err != nil {
		t.Fatal(err)
	}
	c, err = c.validate()
	if err != nil {
		t.Fatal(err)
	}
	l := launcher{Config: c}
	k := l.contract(0, 1, 1, c.GossipPort)
	if k.Rank != 4 || k.LocalRank != 2 || k.LocalSize != 3 || k.NodeRank != 1 || k.WorldMin != 5 || k.WorldMax != 5 || k.GossipPort != 0 ||
		k.Seeds[0] != "127.0.0.1:24399" {
		t.Errorf("contract %v", k)
	}
	c.MaxRestarts = 1
	if _, err := c.validate(); err == nil || !strings.Contains(err.Error(), "one task per node") {
		t.Errorf("restarts of single tasks: error %v", err)
	}
	if err := s.Place(&Config{NProc: 2}); err == nil {
		t.Error("two ranks in each of several tasks pass")
	}
}

func TestOutsideASlurmStepNothingIsTakenFromSlurm(t *testing.T) {
	if _, ok, err := FromSlurm(environment([]string{"SLURM_JOB_ID=1", "SLURM_PROCID=0"})); ok || err != nil {
		t.Errorf("the batch shell: ok %v, error %v", ok, err)
	}
}

func TestBrokenSlurmVariablesAreNamed(t *testing.T) {
	for _, bad := range []string{"SLURM_JOB_ID=", "SLURM_NODEID=3", "SLURM_PROCID=x", "SLURM_LOCALID=1", "SLURM_STEP_TASKS_PER_NODE=1(x2)",
		"SLURM_STEP_TASKS_PER_NODE=1(xx)"} {
		name, _, _ := strings.Cut(bad, "=")
		_, ok, err := FromSlurm(step(bad))
		if !ok || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: ok %v, error %v", bad, ok, err)
		}
	}
}

func TestWrongConfigurationsAreNamed(t *testing.T) {
	key := randomBytes(32)
	for want, c := range map[string]Config{
		"no program":          {},
		"nodes 3:2":           {Program: "x", MinNodes: 3, MaxNodes: 2},
		"node rank 2":         {Program: "x", MinNodes: 2, NodeRank: 2, Key: key, Job: "j"},
		"one key":             {Program: "x", MinNodes: 2, Job: "j"},
		"same job id":         {Program: "x", MinNodes: 2, Key: key},
		"--join HOST:PORT":    {Program: "x", MinNodes: 2, NodeRank: 1, Key: key, Job: "j"},
		"not HOST:PORT":       {Program: "x", MinNodes: 2, Key: key, Job: "j", Join: []string{"host"}},
		"is not a port":       {Program: "x", MinNodes: 2, Key: key, Job: "j", Join: []string{"127.0.0.1:x"}},
		"has 5 bytes":         {Program: "x", Key: key[:5]},
		"job id":              {Program: "x", Job: "a b"},
		"not an IP address":   {Program: "x", Bind: "localhost"},
		"must not be neg":     {Program: "x", MaxRestarts: -1},
		"the world's size":    {Program: "x", LocalSize: 2, Job: "j", Key: key},
		"do not fit a local":  {Program: "x", LocalBase: 1, Job: "j", Key: key},
		"do not fit a world":  {Program: "x", LocalSize: 2, World: 2, RankBase: 2, Job: "j", Key: key},
		"gossip port 70000 ":  {Program: "x", GossipPort: 70000},
		"working directory /": {Program: "x", Dir: "/no/such/place"},
	} {
		if _, err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestASingleNodeGetsAKeyAndAJobOfItsOwn(t *testing.T) {
	a, err1 := Config{Program: "x"}.validate()
	b, err2 := Config{Program: "x"}.validate()
	if err1 != nil || err2 != nil || len(a.Key) != 32 || slices.Equal(a.Key, b.Key) || a.Job == b.Job || a.Bind != "127.0.0.1" {
		t.Errorf("keys of %d and %d bytes, jobs %s and %s, errors %v, %v", len(a.Key), len(b.Key), a.Job, b.Job, err1, err2)
	}
}

func TestAReservedPortIsHeldForTCPAndUDP(t *testing.T) {
	h, err := reserve("127.0.0.1", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holdPort("127.0.0.1", h.port); err == nil {
		t.Error("a held port was given again")
	}
	h.release()
	again, err := holdPort("127.0.0.1", h.port)
	if err != nil {
		t.Fatal(err)
	}
	again.release()
}

// machine is /sys/devices/system of nodes × cores × threads; CPU numbers go over all first threads, then the
// second ones, as Linux numbers them.
func machine(nodes, cores, threads int) (fstest.MapFS, []int) {
	sys := fstest.MapFS{}
	var ids []int
	for n := range nodes {
		var list []string
		for c := range cores {
			for th := range threads {
				id := th*nodes*cores + n*cores + c
				ids = append(ids, id)
				list = append(list, fmt.Sprint(id))
				dir := fmt.Sprintf("cpu/cpu%d/topology/", id)
				sys[dir+"core_id"] = &fstest.MapFile{Data: fmt.Appendln(nil, c)}
				sys[dir+"physical_package_id"] = &fstest.MapFile{Data: fmt.Appendln(nil, n)}
			}
		}
		sys[fmt.Sprintf("node/node%d/cpulist", n)] = &fstest.MapFile{Data: []byte(strings.Join(list, ",") + "\n")}
	}
	return sys, ids
}

func TestRanksGetWholeCoresOfOneNUMANode(t *testing.T) {
	for _, c := range []struct {
		nodes, cores, threads, ranks int
		want                         [][]int
	}{
		{2, 2, 2, 2, [][]int{{0, 4, 1, 5}, {2, 6, 3, 7}}},
		{2, 2, 2, 4, [][]int{{0, 4}, {1, 5}, {2, 6}, {3, 7}}},
		{1, 3, 2, 2, [][]int{{0, 3}, {1, 4, 2, 5}}},
		{1, 1, 2, 2, [][]int{{0}, {1}}}, // fewer cores than ranks
		{1, 2, 1, 3, nil},               // too few CPUs: shared
		{1, 8, 1, 1, nil},               // one rank has all
	} {
		sys, ids := machine(c.nodes, c.cores, c.threads)
		if got := split(topology(sys, ids), c.ranks); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d×%d×%d CPUs, %d ranks: %v, want %v", c.nodes, c.cores, c.threads, c.ranks, got, c.want)
		}
	}
}

func TestASplitUsesEveryCPUOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sys, ids := machine(rapid.IntRange(1, 4).Draw(t, "nodes"), rapid.IntRange(1, 12).Draw(t, "cores"), rapid.IntRange(1, 2).Draw(t, "threads"))
		if rapid.Bool().Draw(t, "no sysfs") {
			sys = fstest.MapFS{}
		}
		n := rapid.IntRange(2, len(ids)+1).Draw(t, "ranks")
		parts := split(topology(sys, ids), n)
		if len(ids) < n {
			if parts != nil {
				t.Fatalf("%d CPUs for %d ranks: %v", len(ids), n, parts)
			}
			return
		}
		all := slices.Concat(parts...)
		slices.Sort(all)
		slices.Sort(ids)
		if len(parts) != n || !slices.Equal(all, ids) {
			t.Fatalf("%d ranks: %v of %v", n, parts, ids)
		}
		for _, p := range parts {
			if len(p) == 0 {
				t.Fatal("a rank has no CPU")
			}
		}
	})
}

func TestCPUListsAreReadAsTheKernelWritesThem(t *testing.T) {
	if got := cpuList("0-3,8,10-11"); !slices.Equal(got, []int{0, 1, 2, 3, 8, 10, 11}) {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"x", "1-x", "0-99999999", "-1"} {
		if got := cpuList(bad); got != nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
