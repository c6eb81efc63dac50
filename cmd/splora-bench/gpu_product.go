package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/sparse"
	"github.com/splora/splora/model/tensor"
)

// GPUProduct is one forward product of a 2:4 weight, x·W̃ᵀ with its merge, both ways in turns.
type GPUProduct struct {
	Kind   string      `json:"kind"`
	Device string      `json:"device"`
	Out    int         `json:"out"`
	In     int         `json:"in"`
	Tokens int         `json:"tokens"`
	Rank   int         `json:"rank"`
	Dense  []float64   `json:"dense_s"`        // W̃ merged whole, then cuBLAS: the mean of a turn's products
	Sparse []float64   `json:"sparse_cores_s"` // W̃ merged compressed, then the sparse tensor cores
	Apart  float64     `json:"apart"`          // ‖y of the one − y of the other‖ / ‖y‖
	Ops    []cuda.Time `json:"ops"`            // device time of what both queue, of as many of each
}

// Ratio is how many times as fast the sparse tensor cores are: of the medians.
func (p GPUProduct) Ratio() float64 { return median(p.Dense) / median(p.Sparse) }

// op is the device time of one call.
func (p GPUProduct) op(prefix string) float64 {
	for _, t := range p.Ops {
		if strings.HasPrefix(t.Op, prefix) {
			return t.Seconds / float64(t.Calls)
		}
	}
	return math.NaN()
}

// gpuProduct is such a measurement as it was asked for.
type gpuProduct struct {
	shape                               string
	tokens, rank, turns, repeat, device int
	seed                                uint64
}

func newGPUProduct() *cobra.Command {
	var o gpuProduct
	c := &cobra.Command{
		Use:   "gpu-product",
		Short: "One measurement in this process: forward products of a published shape's linears on a GPU, dense and by the sparse tensor cores",
		Long: `gpu-product makes random 2:4 weights of a published shape's three kinds of linears on the GPU, and times x·W̃ᵀ with its merge in turns: W̃
merged whole and multiplied by cuBLAS, and W̃ merged compressed and multiplied by the sparse tensor cores. It prints one JSON line for each.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			be, err := cuda.Open(cuda.Config{Device: o.device, SparseCores: true})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, be.Close()) }()
			list, err := o.measure(be)
			for _, p := range list {
				err = errors.Join(err, json.NewEncoder(c.OutOrStdout()).Encode(p))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.shape, "shape", "7b", "tiny, 7b, 13b, 32b (Qwen2.5), 70b")
	f.IntVar(&o.tokens, "tokens", 2048, "rows of x")
	f.IntVar(&o.rank, "rank", 16, "adapter rank")
	f.IntVar(&o.turns, "turns", 9, "times that each way has its turn, after one that is not timed")
	f.IntVar(&o.repeat, "repeat", 10, "products of a turn")
	f.IntVar(&o.device, "device", 0, "the GPU's number among those visible")
	f.Uint64Var(&o.seed, "seed", 0, "seed of weights, adapter and x")
	return c
}

// measure times the linears that a block of the shape has.
func (o gpuProduct) measure(be compute.Backend) (list []GPUProduct, err error) {
	if min(o.tokens, o.rank, o.turns, o.repeat) < 1 {
		return nil, usagef("gpu-product: --tokens, --rank, --turns and --repeat are at least 1")
	}
	f, err := formNamed(o.shape)
	if err != nil {
		return nil, err
	}
	base, err := newMaker(be, sparse.Pattern{N: 2, M: 4}, o.seed)
	if err != nil {
		return nil, err
	}
	for _, s := range [][2]int{{f.Hidden, f.Hidden}, {f.Inter, f.Hidden}, {f.Hidden, f.Inter}} {
		p, err := o.product(be, base, s[0], s[1])
		if err != nil {
			return list, fmt.Errorf("%d x %d: %w", s[0], s[1], err)
		}
		list = append(list, p)
	}
	return list, nil
}

// product times one linear.
func (o gpuProduct) product(be compute.Backend, base *maker, out, in int) (p GPUProduct, err error) {
	p = GPUProduct{Kind: "product", Device: be.Name(), Out: out, In: in, Tokens: o.tokens, Rank: o.rank}
	w, err := base.linear(out, in)
	if err != nil {
		return p, err
	}
	kept, ok := be.(compute.SparseLinear)
	if !ok || !kept.WalksKept(w, tensor.BF16, o.tokens) {
		return p, fmt.Errorf("%s has no product by the sparse tensor cores", be.Name())
	}
	rng := rand.New(rand.NewPCG(o.seed, 5))
	b, a := normal(be, rng, out, o.rank), normal(be, rng, o.rank, in)
	x, n := base.table(o.tokens, in), kept.KeptSlot(w, tensor.BF16)
	room := func(rows, cols int) tensor.Tensor {
		return tensor.Tensor{DType: tensor.BF16, Rows: rows, Cols: cols, Mem: be.Alloc(2 * rows * cols)}
	}
	slot, y, z := room(1, n), room(o.tokens, out), room(o.tokens, out)
	whole := slot.Window(0, out, in)
	dense := func() {
		be.Merge(whole, w, b, a, 2)
		be.Gemm(y, 1, x, false, whole, true, 0)
	}
	cores := func() { kept.KeptForward(z, x, slot, w, b, a, 2, 0) }
	if err := o.turn(be, &p, dense, cores); err != nil {
		return p, err
	}
	if p.Apart = apart16(be, z, y); !(p.Apart <= 1e-2) {
		return p, errors.Join(fmt.Errorf("the two products differ by %.1e of their norm: the sparse tensor cores' is wrong", p.Apart), be.Sync())
	}
	return p, be.Sync()
}

// turn lets each way have its turns, then profiles one of each.
func (o gpuProduct) turn(be compute.Backend, p *GPUProduct, dense, cores func()) error {
	for k := range o.turns + 1 {
		for i, f := range []func(){dense, cores} {
			at := time.Now()
			for range o.repeat {
				f()
			}
			if err := be.Sync(); err != nil {
				return err
			}
			if to := []*[]float64{&p.Dense, &p.Sparse}[i]; k > 0 {
				*to = append(*to, time.Since(at).Seconds()/float64(o.repeat))
			}
		}
	}
	prof, ok := be.(profiler)
	if !ok {
		return nil
	}
	if err := prof.Profile(); err != nil {
		return err
	}
	for range o.repeat {
		dense()
		cores()
	}
	var err error
	p.Ops, err = prof.Times()
	return err
}

// normal is a matrix of N(0, 0.02²) in float32.
func normal(be compute.Backend, rng *rand.Rand, rows, cols int) tensor.Tensor {
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(rng.NormFloat64()) * 0.02
	}
	t := tensor.Tensor{Rows: rows, Cols: cols, Mem: be.Alloc(4 * len(v))}
	be.Upload(t, tensor.Of(v).Mem.Host)
	return t
}

// apart16 is ‖a−b‖/‖b‖ of two BF16 tensors on be.
func apart16(be compute.Backend, a, b tensor.Tensor) float64 {
	v := [2]tensor.Tensor{tensor.New(tensor.BF16, a.Rows, a.Cols), tensor.New(tensor.BF16, b.Rows, b.Cols)}
	be.Download(v[0].Mem.Host, a)
	be.Download(v[1].Mem.Host, b)
	var d, n float64
	for i, x := range v[0].Uint16() {
		p, q := float64(tensor.FromBF16(x)), float64(tensor.FromBF16(v[1].Uint16()[i]))
		d, n = d+(p-q)*(p-q), n+q*q
	}
	return math.Sqrt(d / n)
}

// products measures the first shape's linears in a fresh process.
func (b *gpuBench) products(ctx context.Context) error {
	rec, err := b.appendTo("gpu-products.jsonl", nil)
	if err != nil {
		return err
	}
	defer rec.Close()
	ctx, stop := context.WithTimeout(ctx, b.budget)
	defer stop()
	c := exec.CommandContext(ctx, b.self, "gpu-product", "--shape", b.shapes[0], "--tokens", fmt.Sprint(b.seq*b.microRows), "--rank", fmt.Sprint(b.rank), "--repeat", fmt.Sprint(2*b.steps))
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &out, &errs, 5*time.Second
	failed := c.Run()
	if failed != nil {
		failed = fmt.Errorf("%w: %s", failed, lastLine(errs.String()))
	}
	var list []GPUProduct
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var p GPUProduct
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return errors.Join(failed, fmt.Errorf("gpu-product: %w: %.200s", err, lines.Text()))
		}
		list = append(list, p)
		if err := rec.write(p); err != nil {
			return err
		}
	}
	if len(list) > 0 {
		fmt.Fprintln(b.out, productTable(list))
	}
	return failed
}

// productTable is the two ways side by side, in milliseconds.
func productTable(list []GPUProduct) string {
	var s strings.Builder
	fmt.Fprintf(&s, "x·W̃ᵀ of 2:4 weights with its merge, %d tokens, rank %d: whole and cuBLAS, compressed and sparse tensor cores; ms, merge and product by device time\n", list[0].Tokens, list[0].Rank)
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "out x in\twhole\tmerge\tproduct\tcompressed\tmerge\tproduct\tspeed\tof the product alone\t")
	for _, p := range list {
		ms := []float64{median(p.Dense), p.op("merge"), p.op("gemm"), median(p.Sparse), p.op("compress"), p.op("spmm")}
		for i := range ms {
			ms[i] *= 1e3
		}
		fmt.Fprintf(w, "%d x %d\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.2f x\t%.2f x\t\n", p.Out, p.In, ms[0], ms[1], ms[2], ms[3], ms[4], ms[5], p.Ratio(), ms[2]/ms[5])
	}
	w.Flush()
	return s.String()
}
