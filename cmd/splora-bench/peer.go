package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/splora/splora/cmd/internal/train"
)

//go:embed peer.py
var peerScript string

// peerMethods are those of peer.py.
var peerMethods = [...]string{"lora", "lora-half", "splora-naive", "splora-gc", "splora-recompute", "spp", "spp-gc"}

// peer is a Python that can run peer.py.
type peer struct{ python string }

// probe prints the versions of what the peer needs, or fails by naming what is not there.
const probe = `
import json, platform
from importlib.metadata import version
print(json.dumps(dict({p: version(p) for p in ("torch", "transformers", "peft")}, python=platform.python_version())))`

// findPeer gives the peer and its versions, or why there is none.
func findPeer(ctx context.Context, python string) (p *peer, versions map[string]string, why string) {
	c := exec.CommandContext(ctx, python, "-c", probe)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil && errs.Len() > 0 {
		return nil, nil, fmt.Sprintf("%s: %s", python, lastLine(errs.String()))
	}
	if err == nil {
		err = json.Unmarshal(out, &versions)
	}
	if err != nil {
		return nil, nil, fmt.Sprintf("%s: %v; it needs torch, transformers and peft", python, err)
	}
	return &peer{python}, versions, ""
}

// measure runs peer.py, which it reads from its standard input.
func (p *peer) measure(ctx context.Context, s setting, method string, o cpuConfig) (Measurement, error) {
	args := []string{"-", "--method", method, "--recompute", s.Recompute, "--pattern", s.Pattern, "--dtype", s.DType, "--alpha", fmt.Sprint(train.Defaults().Alpha)}
	for _, f := range []struct {
		name string
		v    int
	}{
		{"hidden", s.Shape.Hidden}, {"inter", s.Shape.Inter}, {"layers", s.Shape.Layers}, {"heads", s.Shape.Heads}, {"vocab", s.Shape.Vocab},
		{"seq", s.Shape.Seq}, {"batch", s.Shape.Batch}, {"rank", o.rank}, {"steps", o.steps + 1}, {"threads", s.Threads},
	} {
		args = append(args, "--"+f.name, fmt.Sprint(f.v))
	}
	n := fmt.Sprint(s.Threads)
	return child(ctx, p.python, strings.NewReader(peerScript), []string{"OMP_NUM_THREADS=" + n, "MKL_NUM_THREADS=" + n, "CUDA_VISIBLE_DEVICES="}, args...)
}
