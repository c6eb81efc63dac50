package main

import (
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/splora/splora/launch"
)

// health samples the GPU that the rank computes on, once a second; nil where it computes on the CPU, or the driver does not tell.
func (r *rank) health(be hardware) func() (launch.Health, bool) {
	if be.gpu == nil {
		return nil
	}
	s, err := sampler(r.Device)
	if err != nil {
		r.log.Warn("no memory, power and utilisation of the GPU in the metrics", zap.Error(err))
		return nil
	}
	r.closers = append(r.closers, s.Close)
	return s.Last
}

// sampler finds the GPU of that device name among those that this process may see.
func sampler(device string) (*launch.Sampler, error) {
	n, _, err := parseDevice(device)
	if err != nil {
		return nil, err
	}
	g, err := launch.OpenGPUs()
	if err != nil {
		return nil, err
	}
	seen, err := launch.Survey{Env: os.Environ()}.Take(g)
	if err == nil && n >= len(seen) {
		err = launch.ErrNoDriver
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return launch.NewSampler(g, seen[n].UUID, time.Second), nil
}
