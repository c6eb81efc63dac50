package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/dist"
)

//go:embed collective.py
var glooScript string

// collectiveConfig is what the collective command compares.
type collectiveConfig struct {
	megabytes     []float64
	world         int
	times, rounds int
	python, out   string
}

func newCollective() *cobra.Command {
	var o collectiveConfig
	c := &cobra.Command{
		Use:   "collective",
		Short: "An all-reduce between processes of this host, beside Gloo's",
		Long: `collective measures the all-reduce of a float32 vector between --world processes of this host, as ranks of splora do it after every
step, and the same by torch.distributed over Gloo, where python3 has torch. Both take turns, --rounds times, each time with fresh
processes; rank 0 times --times calls that begin together. The table shows the least time of each and the ratio.`,
		Example: `  splora-bench collective --out collective.jsonl`,
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.Float64SliceVar(&o.megabytes, "megabytes", []float64{1, 4, 16, 40, 160}, "sizes of the vector, in MiB, comma-separated")
	f.IntVar(&o.world, "world", 2, "processes")
	f.IntVar(&o.times, "times", 15, "timed calls of a measurement")
	f.IntVar(&o.rounds, "rounds", 5, "measurements of each")
	f.StringVar(&o.python, "python", "python3", "interpreter that has torch")
	f.StringVar(&o.out, "out", "", "file for the raw results, one JSON record a line")
	return c
}

// collectiveRecord is one measurement: for each vector the seconds of every call.
type collectiveRecord struct {
	Kind      string      `json:"kind"`
	Who       string      `json:"who"`
	World     int         `json:"world"`
	Megabytes []float64   `json:"megabytes"`
	Round     int         `json:"round"`
	Load      string      `json:"load_average"`
	Torch     string      `json:"torch,omitempty"`
	Seconds   [][]float64 `json:"seconds"`
}

func (o collectiveConfig) run(c *cobra.Command) (err error) {
	if o.world < 2 || o.times < 1 || o.rounds < 1 || len(o.megabytes) == 0 {
		return usagef("--world: at least 2; --times, --rounds, --megabytes: at least 1")
	}
	const values, most = 1 << 18, 1 << 20 // float32 values in a MiB; MiB
	for _, mb := range o.megabytes {
		if !(mb*values >= 1 && mb <= most) {
			return usagef("--megabytes %v: from 1/%d, which is one value, to %d", mb, values, most)
		}
	}
	record, err := newRecorder(o.out)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, record.Close()) }()
	if err := record.write(newHeader(nil)); err != nil {
		return err
	}
	t := collectiveTable{config: o, best: map[string][]float64{}}
	for round := range o.rounds {
		for _, who := range []string{whoSplora, whoGloo} {
			rec := collectiveRecord{Kind: "collective", Who: who, World: o.world, Megabytes: o.megabytes, Round: round + 1, Load: load()}
			if err := o.measure(c.Context(), &rec); err != nil {
				if who == whoSplora {
					return err
				}
				fmt.Fprintf(c.ErrOrStderr(), "no %s beside it: %v\n", whoGloo, err)
				continue
			}
			if err := record.write(rec); err != nil {
				return err
			}
			t.add(rec)
		}
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), t)
	return err
}

const whoGloo = "gloo"

// measure starts the ranks of one measurement and reads what rank 0 prints.
func (o collectiveConfig) measure(ctx context.Context, rec *collectiveRecord) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	port, err := freePort()
	if err != nil {
		return err
	}
	floats := make([]string, len(o.megabytes))
	for i, mb := range o.megabytes {
		floats[i] = strconv.Itoa(int(mb * (1 << 18)))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var out, errs bytes.Buffer
	ranks := make([]*exec.Cmd, o.world)
	for r := range ranks {
		args := []string{"--rank", fmt.Sprint(r), "--world", fmt.Sprint(o.world), "--port", fmt.Sprint(port), "--times", fmt.Sprint(o.times), "--floats", strings.Join(floats, ",")}
		if rec.Who == whoSplora {
			ranks[r] = exec.CommandContext(ctx, self, append([]string{"collective-rank"}, args...)...)
		} else {
			ranks[r] = exec.CommandContext(ctx, o.python, append([]string{"-"}, args...)...)
			ranks[r].Stdin = strings.NewReader(glooScript)
		}
		ranks[r].Stderr = io.Discard
	}
	ranks[0].Stdout, ranks[0].Stderr = &out, &errs
	for _, c := range ranks {
		if err = firstError(err, c.Start()); err != nil {
			cancel()
		}
	}
	for _, c := range ranks {
		if c.Process != nil {
			err = firstError(err, c.Wait())
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", rec.Who, err, lastLine(errs.String()))
	}
	return json.Unmarshal([]byte(lastLine(out.String())), rec)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// newCollectiveRank is a rank of ours.
func newCollectiveRank() *cobra.Command {
	rank, world, port, times := 0, 0, 0, 0
	var floats []int
	c := &cobra.Command{Use: "collective-rank", Short: "One rank of a measurement of the collective command", Args: noArgs, Hidden: true}
	f := c.Flags()
	f.IntVar(&rank, "rank", 0, "rank")
	f.IntVar(&world, "world", 2, "ranks")
	f.IntVar(&port, "port", 0, "rank 0's port")
	f.IntVar(&times, "times", 1, "timed calls")
	f.IntSliceVar(&floats, "floats", nil, "lengths of the vectors")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg := dist.Config{Job: "collective", Key: []byte("a key of 16 byte"), LocalRank: rank, LocalSize: world, WorldMax: world, Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}}
		if rank == 0 {
			cfg.GossipPort = port
		}
		g, err := dist.Join(c.Context(), cfg)
		if err != nil {
			return err
		}
		defer g.Close()
		rec := collectiveRecord{}
		for _, n := range floats {
			took, err := timeAllReduce(c.Context(), g, n, times)
			if err != nil {
				return err
			}
			rec.Seconds = append(rec.Seconds, took)
		}
		if g.Rank() != 0 {
			return nil
		}
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"seconds": rec.Seconds})
	}
	return c
}

// timeAllReduce sums vectors of n floats; the first time is not timed but checked.
func timeAllReduce(ctx context.Context, g dist.Group, n, times int) (took []float64, err error) {
	v := make(dist.Floats, n)
	for i := range times + 1 {
		for k := range v {
			v[k] = float32(g.Rank() + 1)
		}
		if err := g.Barrier(ctx); err != nil {
			return nil, err
		}
		at := time.Now()
		if err := g.AllReduce(v); err != nil {
			return nil, err
		}
		if i > 0 {
			took = append(took, time.Since(at).Seconds())
		} else if want := float32(g.Size() * (g.Size() + 1) / 2); slices.Min(v) != want || slices.Max(v) != want {
			return nil, fmt.Errorf("the sum is %v to %v, not %v", slices.Min(v), slices.Max(v), want)
		}
	}
	return took, nil
}

// collectiveTable collects the least time of each vector, and the medians.
type collectiveTable struct {
	config collectiveConfig
	best   map[string][]float64
	all    map[string][][]float64
}

func (t *collectiveTable) add(rec collectiveRecord) {
	if t.all == nil {
		t.all = map[string][][]float64{}
	}
	if t.best[rec.Who] == nil {
		t.best[rec.Who], t.all[rec.Who] = make([]float64, len(rec.Seconds)), make([][]float64, len(rec.Seconds))
	}
	for i, s := range rec.Seconds {
		t.all[rec.Who][i] = append(t.all[rec.Who][i], s...)
		t.best[rec.Who][i] = slices.Min(t.all[rec.Who][i])
	}
}

func (t collectiveTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "all-reduce between %d processes of this host, milliseconds: the least and the median of %d calls\n", t.config.world, t.config.times*t.config.rounds)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "MiB\tsplora\tgloo\tspeed\tmedian\tgloo's\tspeed\t")
	for i, mb := range t.config.megabytes {
		ours, theirs := t.best[whoSplora][i], 0.0
		mid, their := median(t.all[whoSplora][i]), 0.0
		if len(t.best[whoGloo]) > i {
			theirs, their = t.best[whoGloo][i], median(t.all[whoGloo][i])
		}
		fmt.Fprintf(w, "%g\t%.2f\t%.2f\t%.2f x\t%.2f\t%.2f\t%.2f x\t\n", mb, 1e3*ours, 1e3*theirs, theirs/ours, 1e3*mid, 1e3*their, their/mid)
	}
	w.Flush()
	return strings.TrimRight(b.String(), "\n")
}
