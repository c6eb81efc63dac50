package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/splora/splora/dist"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/tensor"
)

// reduced is the length of the vector of doctor's all-reduce.
const reduced = 1 << 18

// rankResult is what a rank of doctor says, on one line.
type rankResult struct {
	Rank         int     `json:"rank"`
	GPU          string  `json:"gpu,omitempty"`
	Product      Product `json:"product"`
	Over         string  `json:"over"`
	Exact        bool    `json:"exact"`
	Milliseconds float64 `json:"milliseconds"` // of the second all-reduce
}

// doctorRank is one rank: a product on its GPU if it has one, and an all-reduce with the others.
func doctorRank(ctx context.Context, out io.Writer) error {
	place, launched, err := launch.FromEnv(os.Getenv)
	if err == nil && !launched {
		err = errors.New("doctor --as-rank: no launcher started it: run splora doctor")
	}
	if err != nil {
		return usage{err}
	}
	r, err := examineRank(ctx, place)
	if err != nil {
		_ = place.Fail(place.Rank, 0, err, false) // the exit code tells, too
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

func examineRank(ctx context.Context, place launch.Contract) (r rankResult, err error) {
	r = rankResult{Rank: place.Rank, GPU: place.GPU, Over: "loopback"}
	device := "cpu"
	if place.GPU != "" {
		device = "cuda"
	}
	be, err := openDevice(device, place.GPU != "", 1, false, func(string) {})
	if err != nil {
		return r, err
	}
	defer be.Close()
	c := dist.Config{Job: place.Job, Key: place.Key, Bind: place.Bind, GossipPort: place.GossipPort, Seeds: place.Seeds, Generation: place.Generation,
		NodeRank: place.NodeRank, LocalRank: place.LocalRank, LocalSize: place.LocalSize, WorldMin: place.WorldMin, WorldMax: place.WorldMax, Timeout: 60 * time.Second}
	if be.gpu != nil {
		if r.Product, err = product(be, tensor.BF16); err != nil {
			return r, err
		}
		c.NCCL = &dist.NCCL{Stream: be.gpu.Stream(), Timeout: time.Minute}
		r.Over = "NCCL"
	}
	g := dist.Solo()
	if place.WorldMax > 1 {
		if g, err = dist.Join(ctx, c); err != nil {
			return r, err
		}
	}
	defer g.Close()
	return r, r.reduce(g, be)
}

// reduce sums numbers whose sums float32 holds exactly, in any order, twice; the second time is measured.
func (r *rankResult) reduce(g dist.Group, be hardware) error {
	v := alloc(be, tensor.F32, 1, reduced)
	host := tensor.New(tensor.F32, 1, reduced)
	x := host.Float32()
	for range 2 {
		for i := range x {
			x[i] = float32((g.Rank() + 1) * (i%251 + 1))
		}
		be.Upload(v, host.Mem.Host)
		if err := be.Sync(); err != nil {
			return err
		}
		began := time.Now()
		if err := g.AllReduce(v); err != nil {
			return err
		}
		r.Milliseconds = time.Since(began).Seconds() * 1e3
	}
	be.Download(host.Mem.Host, v)
	if err := be.Sync(); err != nil {
		return err
	}
	r.Exact = true
	ranks := g.Size() * (g.Size() + 1) / 2
	for i, got := range x {
		r.Exact = r.Exact && got == float32(ranks*(i%251+1))
	}
	return nil
}

// tryPort binds a port for TCP and UDP, on all addresses.
func tryPort(port int) error {
	addr := net.JoinHostPort("", strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return udp.Close()
}
