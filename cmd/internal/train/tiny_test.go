package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/splora/splora/data"
	"github.com/splora/splora/dist"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/safetensors"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

var arch = decoder.Config{Vocab: 37, Hidden: 16, Inter: 24, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 4, Eps: 1e-5, MaxPositions: 32,
	Rope: decoder.Rope{Theta: 10000}}

// tiny is a random model, 2:4 sparse, with a kept weight of value 0 in its first linear.
func tiny(t *testing.T) *decoder.Resident {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	random := func(rows, cols int) tensor.Tensor {
		x := tensor.New(tensor.F32, rows, cols)
		for i, v := 0, x.Float32(); i < len(v); i++ {
			v[i] = float32(r.NormFloat64() * 0.3)
		}
		return x
	}
	ones := func(n int) tensor.Tensor {
		x := tensor.New(tensor.F32, 1, n)
		for i, v := 0, x.Float32(); i < len(v); i++ {
			v[i] = 1
		}
		return x
	}
	m := &decoder.Resident{EmbedTable: random(arch.Vocab, arch.Hidden), HeadTable: random(arch.Vocab, arch.Hidden), Norm: ones(arch.Hidden)}
	for i := range arch.Layers {
		b := decoder.Block{AttnNorm: ones(arch.Hidden), MLPNorm: ones(arch.Hidden)}
		for k, name := range decoder.Linears {
			out, in := arch.Shape(k)
			w := random(out, in)
			mask := make([]uint64, out*sparse.Words(in))
			for j := range mask {
				mask[j] = 0x6666666666666666 & (1<<in - 1)
			}
			if i == 0 && k == 0 {
				w.Float32()[1] = 0
			}
			p, err := sparse.Pack(w, mask, sparse.Pattern{N: 2, M: 4})
			if err != nil {
				t.Fatal(err)
			}
			b.Linears[k] = decoder.Base{Name: fmt.Sprintf("model.layers.%d.x.%s", i, name), W: p}
		}
		m.Blocks = append(m.Blocks, b)
	}
	return m
}

// names is a tokenizer for previews only: rows come tokenised.
type names struct{ data.Tokenizer }

func (names) Token(id int32) string { return fmt.Sprint("t", id) }

// rowFile writes n rows of random ids and lengths.
func rowFile(t *testing.T, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 1))
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for range n {
		ids := make([]int, 5+r.IntN(20))
		for j := range ids {
			ids[j] = r.IntN(arch.Vocab)
		}
		if err := e.Encode(map[string]any{"input_ids": ids}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func openRows(t *testing.T, path string) *data.Set {
	t.Helper()
	s, err := data.Open(context.Background(), data.Config{Files: []string{path}, Seq: 32, VocabSize: arch.Vocab}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// job is a run on world ranks in this process.
type job struct {
	Config
	world int
	rows  string
	eval  string
	model *decoder.Resident
	group func(rank int, g dist.Group) dist.Group
	env   func(rank int, e *Env) // changes what a rank is given
	// stopAfter sends a signal to a rank when rank 0 reports that step; 0: never.
	stopAfter int
	progress  bytes.Buffer
	errs      []error       // of all ranks, after a run
	walks     *atomic.Int64 // merged linears that ran over their kept weights only
}

func newJob(t *testing.T, world int) *job {
	c := Defaults()
	c.Model, c.Data, c.Out = "tiny", List{"rows"}, filepath.Join(t.TempDir(), "out")
	c.Rank, c.Alpha, c.LR, c.GlobalBatch, c.MaxSteps, c.MicroBatch, c.LogEvery, c.KeepLast = 3, 5, 1e-2, 4, 8, 1, 1, 0
	return &job{Config: c, world: world, rows: rowFile(t, 11), model: tiny(t), walks: new(atomic.Int64)}
}

// walking is a backend that walks the kept weights of the smallest linear, too, and counts.
type walking struct {
	*cpu.Backend
	n *atomic.Int64
}

func (walking) WalksKept(_ *sparse.Weight, x tensor.DType, _ int) bool { return x == tensor.F32 }

func (b walking) KeptForward(y, x, slot tensor.Tensor, w *sparse.Weight, bm, am tensor.Tensor, s, beta float32) {
	b.n.Add(1)
	b.Backend.KeptForward(y, x, slot, w, bm, am, s, beta)
}

// watch passes progress on and calls seen with each line.
type watch struct {
	io.Writer
	seen func(line []byte)
}

func (w watch) Write(p []byte) (int, error) {
	w.seen(p)
	return w.Writer.Write(p)
}

// run runs all ranks and gives rank 0's error.
func (j *job) run(t *testing.T) error {
	t.Helper()
	if err := j.Validate(); err != nil {
		return err
	}
	groups := dist.Loopback(j.world)
	signals := make([]chan os.Signal, j.world)
	for r := range signals {
		signals[r] = make(chan os.Signal, 1)
	}
	errs := make([]error, j.world)
	var wg sync.WaitGroup
	for r := range groups {
		g := groups[r]
		if j.group != nil {
			g = j.group(r, g)
		}
		env := Env{Arch: arch, Weights: j.model, Group: g, Rows: openRows(t, j.rows), Tok: names{}, ModelID: "tiny", DataID: j.rows,
			Signals: signals[r], Log: zap.NewNop(), Err: io.Discard}
		if j.eval != "" {
			env.Eval = openRows(t, j.eval)
		}
		be := cpu.New(cpu.Config{Threads: 1})
		t.Cleanup(func() { be.Close() })
		env.Backend = walking{be, j.walks}
		if r == 0 {
			env.Err = watch{&j.progress, func(line []byte) {
				if j.stopAfter > 0 && bytes.HasPrefix(line, fmt.Appendf(nil, "step %d/", j.stopAfter)) {
					signals[j.world-1] <- os.Interrupt
				}
			}}
		}
		if j.env != nil {
			j.env(r, &env)
		}
		wg.Go(func() {
			if errs[r] = Run(context.Background(), j.Config, env); errs[r] != nil && !errors.Is(errs[r], ErrStopped) {
				g.Abort(errs[r])
			}
		})
	}
	wg.Wait()
	j.errs = errs
	for r := range errs {
		if (errs[r] == nil) != (errs[0] == nil) {
			t.Errorf("rank %d ended with %v, rank 0 with %v", r, errs[r], errs[0])
		}
	}
	return errs[0]
}

// adapter reads A and B of all linears from a folder, in one vector.
func adapter(t *testing.T, dir string) []float32 {
	t.Helper()
	a, err := safetensors.ReadAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	var v []float32
	for _, m := range a.Modules {
		v = append(append(v, m.A.Float32()...), m.B.Float32()...)
	}
	return v
}

func records(t *testing.T, out string) []Record {
	t.Helper()
	r, err := ReadMetrics(filepath.Join(out, "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
