package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// gpuConfig is what the gpu command measures.
type gpuConfig struct {
	parts, shapes   []string
	seq, steps      int
	rounds          int
	budget          time.Duration
	python          string
	programs, out   string
	source          string
	methods, peers  []string
	recompute       []string
	rank, microRows int
}

// gpuParts are run in this order.
var gpuParts = [...]string{"tests", "products", "steps", "large"}

func newGPU() *cobra.Command {
	var o gpuConfig
	c := &cobra.Command{
		Use:   "gpu",
		Short: "All that is to be measured on a GPU: tests, a step beside PyTorch, large models",
		Long: `gpu runs, in parts of a few minutes each, what can only be known on a GPU, and writes each part's raw results as they come:

  tests     the conformance of every kernel and the golden models on the GPU, NCCL's calls, two ranks on one GPU   gpu-tests.txt
  products  the forward product of --shapes' first's linears with its merge, by the sparse tensor cores beside cuBLAS
            in turns: what says whether --memory fused is worth its while on a GPU                                 gpu-products.jsonl
  steps     a training step of --shapes' first by each method, with and without recomputation of the blocks, beside
            PyTorch in turns: step time, tokens/s, memory of the whole GPU against the plan, use of its bfloat16
            rate                                                                                                   gpu-steps.jsonl
  large     one measurement of each other shape, with the device time of every operation                           gpu-large.jsonl

Every measurement is a fresh process. Random 2:4 weights are made on the GPU, so no disk is needed. This program must have been built
with -tags cuda. The tests are built here if Go is, else taken from --programs, where they were put by

  for p in model/compute/cuda model/decoder launch cmd/splora; do go test -c -tags cuda -o DIR/$(basename $p).test ./$p; done`,
		Example: `  splora-bench gpu --out cmd/splora-bench/results
  splora-bench gpu --out r --parts steps --methods splora --peers lora-half,splora-recompute --recompute block --steps 5
  splora-bench gpu --out r --parts large --shapes 70b`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := o.bench(c)
			if err != nil {
				return err
			}
			return b.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.parts, "parts", gpuParts[:], "parts to run")
	f.StringSliceVar(&o.shapes, "shapes", []string{"7b", "13b", "32b", "70b"}, "tiny, 7b, 13b, 32b (Qwen2.5), 70b: the first beside PyTorch, the others by themselves")
	f.IntVar(&o.seq, "seq", 2048, "tokens per row")
	f.IntVar(&o.microRows, "micro-batch", 1, "rows of a step")
	f.IntVar(&o.rank, "rank", 16, "adapter rank")
	f.StringSliceVar(&o.methods, "methods", []string{"splora", "splora:memory=fused", "lora"}, "methods of splora train, each with settings of its own after colons")
	f.StringSliceVar(&o.peers, "peers", peerMethods[:], "methods of the PyTorch peer; empty: none")
	f.StringSliceVar(&o.recompute, "recompute", []string{"block", "none"}, "block, none; the peer's block checkpointing")
	f.IntVar(&o.steps, "steps", 5, "timed steps of a measurement")
	f.IntVar(&o.rounds, "rounds", 1, "measurements of each method")
	f.DurationVar(&o.budget, "budget", 4*time.Minute, "longest time of one measurement or test program")
	f.StringVar(&o.python, "python", "python3", "interpreter that has torch, transformers and peft")
	f.StringVar(&o.programs, "programs", "", "folder of test programs built with -tags cuda (default: they are built here)")
	f.StringVar(&o.source, "source", ".", "splora's source tree, whose test data the tests read")
	f.StringVar(&o.out, "out", "", "folder for the raw results; those that are there are kept, and added to")
	return c
}

// gpuBench is a run of the gpu command.
type gpuBench struct {
	gpuConfig
	self       string
	out, notes io.Writer
	peer       *peer
}

func (o gpuConfig) bench(c *cobra.Command) (*gpuBench, error) {
	for _, p := range o.parts {
		if !slices.Contains(gpuParts[:], p) {
			return nil, usagef("--parts %q: %s", p, strings.Join(gpuParts[:], ", "))
		}
	}
	for _, s := range o.shapes {
		if _, err := formNamed(s); err != nil {
			return nil, err
		}
	}
	for _, p := range o.peers {
		if !slices.Contains(peerMethods[:], p) {
			return nil, usagef("--peers %q: %s", p, strings.Join(peerMethods[:], ", "))
		}
	}
	if o.out == "" {
		return nil, usagef("--out is missing: a folder for the raw results")
	}
	if len(o.shapes) == 0 || min(o.seq-1, o.steps, o.rounds, o.rank, o.microRows) < 1 {
		return nil, usagef("--shapes needs a value; --seq at least 2; --steps, --rounds, --rank, --micro-batch at least 1")
	}
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(o.out, 0o755)
	}
	return &gpuBench{gpuConfig: o, self: self, out: c.OutOrStdout(), notes: c.ErrOrStderr()}, err
}

// run runs the parts. A part that fails does not keep the next from running; the first failure is reported.
func (b *gpuBench) run(ctx context.Context) error {
	var first error
	for _, part := range gpuParts {
		if !slices.Contains(b.parts, part) || ctx.Err() != nil {
			continue
		}
		at := time.Now()
		err := map[string]func(context.Context) error{"tests": b.tests, "products": b.products, "steps": b.sideBySide, "large": b.large}[part](ctx)
		fmt.Fprintf(b.notes, "%s: %.0f s\n", part, time.Since(at).Seconds())
		if err != nil {
			fmt.Fprintf(b.out, "%s failed: %v\n", part, err)
			first = firstError(first, fmt.Errorf("%s: %w", part, err))
		}
	}
	return firstError(ctx.Err(), first)
}

// appendTo opens a raw result to add to, and begins the addition by a header.
func (b *gpuBench) appendTo(name string, versions map[string]string) (*recorder, error) {
	f, err := os.OpenFile(filepath.Join(b.gpuConfig.out, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	r := &recorder{f, f}
	return r, r.write(newHeader(versions))
}

// gpuSetting is what is compared like for like.
type gpuSetting struct {
	Shape     string `json:"shape"`
	Seq       int    `json:"seq"`
	Batch     int    `json:"batch"`
	Recompute string `json:"recompute"`
}

// gpuRecord is one measurement as it was asked for and as it came back.
type gpuRecord struct {
	Kind    string     `json:"kind"`
	Who     string     `json:"who"`
	Method  string     `json:"method"`
	Setting gpuSetting `json:"setting"`
	Rank    int        `json:"rank"`
	Round   int        `json:"round"`
	Error   string     `json:"error,omitempty"`
	*GPUMeasurement
}

// sideBySide measures the first shape by all methods in turns. A method that fails, for want of memory it may be, is noted.
func (b *gpuBench) sideBySide(ctx context.Context) error {
	versions := map[string]string{}
	if len(b.peers) > 0 {
		var why string
		if b.peer, versions, why = findPeer(ctx, b.python); b.peer == nil {
			fmt.Fprintf(b.out, "no PyTorch beside it: %s\n\n", why)
		}
	}
	rec, err := b.appendTo("gpu-steps.jsonl", versions)
	if err != nil {
		return err
	}
	defer rec.Close()
	for _, r := range b.recompute {
		t := gpuTable{setting: gpuSetting{b.shapes[0], b.seq, b.microRows, r}}
		for round := range b.rounds {
			for _, m := range b.methods {
				t.add(b.ours(ctx, t.setting, m, round, round == 0 && strings.HasPrefix(m, "splora")))
			}
			for _, p := range b.peers {
				if b.peer != nil {
					t.add(b.theirs(ctx, t.setting, p, round))
				}
			}
			if err := t.record(rec); err != nil {
				return err
			}
		}
		fmt.Fprintln(b.out, &t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.failed(whoSplora); err != nil {
			return err
		}
	}
	return nil
}

// large measures one step of each further shape.
func (b *gpuBench) large(ctx context.Context) error {
	rec, err := b.appendTo("gpu-large.jsonl", nil)
	if err != nil {
		return err
	}
	defer rec.Close()
	shapes := b.shapes
	if len(shapes) > 1 {
		shapes = shapes[1:]
	}
	var first error
	for _, s := range shapes {
		t := gpuTable{setting: gpuSetting{s, b.seq, b.microRows, "block"}}
		t.add(b.ours(ctx, t.setting, "splora", 0, true))
		if err := t.record(rec); err != nil {
			return err
		}
		fmt.Fprintln(b.out, &t)
		first = firstError(first, t.failed(whoSplora))
	}
	return first
}

// ours is a measurement of splora; with more it also tells where the time goes. The method's own settings come last and win.
func (b *gpuBench) ours(ctx context.Context, s gpuSetting, method string, round int, more bool) gpuRecord {
	parts := strings.Split(method, ":")
	args := append([]string{"gpu-step", "--method", parts[0], "--shape", s.Shape, "--micro-batch", fmt.Sprint(s.Batch), "--max-steps", fmt.Sprint(b.steps + 1)}, b.common(s)...)
	if more {
		args = append(args, "--ops", "--product")
	}
	for _, p := range parts[1:] {
		args = append(args, "--"+p)
	}
	return b.measured(ctx, gpuRecord{Kind: "run", Who: whoSplora, Method: method, Setting: s, Rank: b.rank, Round: round + 1}, b.self, nil, args)
}

func (b *gpuBench) common(s gpuSetting) []string {
	return []string{"--recompute", s.Recompute, "--rank", fmt.Sprint(b.rank), "--seq", fmt.Sprint(s.Seq), "--dtype", "bfloat16"}
}

// theirs is a measurement of the peer on the same GPU.
func (b *gpuBench) theirs(ctx context.Context, s gpuSetting, method string, round int) gpuRecord {
	f, _ := formNamed(s.Shape)
	args := append([]string{"-", "--method", method, "--device", "cuda", "--steps", fmt.Sprint(b.steps + 1), "--batch", fmt.Sprint(s.Batch)}, b.common(s)...)
	for _, a := range []struct {
		name string
		v    int
	}{{"hidden", f.Hidden}, {"inter", f.Inter}, {"layers", f.Layers}, {"heads", f.Heads}, {"kv-heads", f.KVHeads}, {"vocab", f.Vocab}} {
		args = append(args, "--"+a.name, fmt.Sprint(a.v))
	}
	return b.measured(ctx, gpuRecord{Kind: "run", Who: whoTorch, Method: method, Setting: s, Rank: b.rank, Round: round + 1}, b.peer.python, strings.NewReader(peerScript), args)
}

// measured runs a program that measures itself, and reads the last line that it prints.
func (b *gpuBench) measured(ctx context.Context, r gpuRecord, program string, stdin io.Reader, args []string) gpuRecord {
	ctx, stop := context.WithTimeout(ctx, b.budget)
	defer stop()
	c := exec.CommandContext(ctx, program, append(args, "--began", fmt.Sprint(time.Now().UnixNano()))...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = stdin, &out, &errs, 5*time.Second
	var m GPUMeasurement
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, lastLine(errs.String()))
	} else if err = json.Unmarshal([]byte(lastLine(out.String())), &m); err != nil {
		err = fmt.Errorf("its last line is no measurement: %w: %.200s", err, lastLine(out.String()))
	} else if len(m.Steps) == 0 {
		err = fmt.Errorf("it timed no step")
	}
	if err != nil {
		r.Error = err.Error()
		fmt.Fprintf(b.notes, "%s %s, %s %s: %v\n", r.Who, r.Method, r.Setting.Shape, r.Setting.Recompute, err)
		return r
	}
	r.GPUMeasurement = &m
	fmt.Fprintf(b.notes, "%s %s, %s %s: %.3f s, %.2f GB\n", r.Who, r.Method, r.Setting.Shape, r.Setting.Recompute, m.Step(), float64(m.Used)/1e9)
	return r
}
