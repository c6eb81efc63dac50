package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu"
	"github.com/splora/splora/model/tensor"
)

// Product is a matrix product on one device. Errors are ‖a−b‖₂/‖b‖₂ against float64.
type Product struct {
	Device   string  `json:"device"`
	Float32  float64 `json:"float32_error"`
	BFloat16 float64 `json:"bfloat16_error"`
	GFLOPS   float64 `json:"gflops"` // of a larger one, of type Timed
	Timed    string  `json:"timed"`
}

// Tolerances: float32 sums of 131 products; and one rounding to bfloat16, whose operands are exact.
const (
	tolerance32 = 1e-5
	tolerance16 = 3e-3
)

// product multiplies odd sizes in both types and compares, and times larger and larger square products, until one takes 20 ms.
func product(be compute.Backend, timed tensor.DType) (Product, error) {
	p := Product{Device: be.Name(), Timed: timed.String()}
	for dt, to := range map[tensor.DType]*float64{tensor.F32: &p.Float32, tensor.BF16: &p.BFloat16} {
		var err error
		if *to, err = productError(be, dt, 33, 67, 131); err != nil {
			return p, err
		}
	}
	for n, s := 128, 0.0; s < 20e-3 && n <= 8192; n *= 2 {
		var err error
		if s, err = seconds(be, timed, n); err != nil {
			return p, err
		}
		p.GFLOPS = 2 * math.Pow(float64(n), 3) / s / 1e9
	}
	return p, nil
}

// seconds is the time of an n×n×n product, the best of three.
func seconds(be compute.Backend, dt tensor.DType, n int) (float64, error) {
	a, b, y := alloc(be, dt, n, n), alloc(be, dt, n, n), alloc(be, dt, n, n)
	best := math.Inf(1)
	for range 3 {
		began := time.Now()
		be.Gemm(y, 1, a, false, b, true, 0)
		if err := be.Sync(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(began).Seconds())
	}
	return best, nil
}

// productError is how far y [m,n] = a [m,k] · b [n,k]ᵀ is from float64's.
func productError(be compute.Backend, dt tensor.DType, m, n, k int) (float64, error) {
	a, av := ramp(be, dt, m, k, 0.37)
	b, bv := ramp(be, dt, n, k, -0.61)
	y, y32 := alloc(be, dt, m, n), alloc(be, tensor.F32, m, n)
	be.Gemm(y, 1, a, false, b, true, 0)
	be.Copy(y32, y)
	got := tensor.New(tensor.F32, m, n)
	be.Download(got.Mem.Host, y32)
	if err := be.Sync(); err != nil {
		return 0, err
	}
	var diff, norm float64
	for i := range m {
		for j := range n {
			want := 0.0
			for l := range k {
				want += float64(av[i*k+l]) * float64(bv[j*k+l])
			}
			diff += math.Pow(float64(got.Float32()[i*n+j])-want, 2)
			norm += want * want
		}
	}
	return math.Sqrt(diff / norm), nil
}

// ramp is a matrix on the device, of numbers that dt holds exactly, and its values.
func ramp(be compute.Backend, dt tensor.DType, rows, cols int, step float64) (tensor.Tensor, []float32) {
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(math.Sin(float64(i) * step))
		if dt == tensor.BF16 {
			v[i] = float32(math.Round(float64(v[i])*64) / 64)
		}
	}
	t32, t := alloc(be, tensor.F32, rows, cols), alloc(be, dt, rows, cols)
	be.Upload(t32, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)))
	be.Copy(t, t32)
	return t, v
}

func alloc(be compute.Backend, dt tensor.DType, rows, cols int) tensor.Tensor {
	return tensor.Tensor{DType: dt, Rows: rows, Cols: cols, Mem: be.Alloc(rows * cols * dt.Size())}
}

// checkProducts multiplies on the CPU.
func (d *doctor) checkProducts() {
	be := cpu.New(cpu.Config{})
	defer be.Close()
	p, err := product(be, tensor.F32)
	d.sayProduct(p, err)
}

func (d *doctor) sayProduct(p Product, err error) {
	good := p.Float32 <= tolerance32 && p.BFloat16 <= tolerance16
	switch {
	case err != nil:
		d.say("fail", "matrix product", "the driver's own message says more: dmesg, nvidia-smi", "%s", say1(err))
	case !good:
		d.say("fail", "matrix product", "the arithmetic is wrong: the memory, the processor or the driver is faulty; do not train on this machine",
			"on %s: off by %.2g in float32 (allowed %.0e), by %.2g in bfloat16 (allowed %.0e)", p.Device, p.Float32, tolerance32, p.BFloat16, tolerance16)
	default:
		d.say("ok", "matrix product", "", "on %s: off by %.1e in float32, %.1e in bfloat16; %.0f GFLOP/s in %s", p.Device, p.Float32, p.BFloat16, p.GFLOPS, p.Timed)
	}
}

// checkRanks starts ranks as splora-launch does: one for each GPU, which multiplies there and reduces over NCCL; or two on the CPU.
// With one GPU both: an all-reduce of one rank proves nothing.
func (d *doctor) checkRanks(ctx context.Context) {
	n := d.usable()
	if n > 0 {
		d.runRanks(ctx, max(n, d.ranks), d.gpus)
	}
	if n < 2 && (n == 0 || d.ranks < 2) {
		if d.ranks > 0 && n == 0 {
			n = d.ranks
		}
		d.runRanks(ctx, max(n, 2), nil)
	}
}

// rankPatience is how long the ranks may take: to start, to meet, to compute.
const rankPatience = 90 * time.Second

// runRanks starts n ranks and judges what they say.
func (d *doctor) runRanks(ctx context.Context, n int, gpus launch.GPUs) {
	ctx, cancel := context.WithTimeout(ctx, rankPatience)
	defer cancel()
	var out, errs bytes.Buffer
	env := slices.Clone(d.env)
	if gpus != nil {
		env = append(env, "CUDA_VISIBLE_DEVICES="+strings.Join(d.usableIDs(), ","))
	}
	_, err := launch.Run(ctx, launch.Config{Program: d.self, Args: []string{"doctor", "--as-rank"}, Env: env, NProc: n, GPUs: gpus,
		Stdout: &out, Stderr: &errs, Grace: 5 * time.Second, NoAffinity: gpus == nil})
	results := readRanks(&out)
	for _, r := range results {
		if r.GPU != "" && r.Product.Device != "" {
			d.sayProduct(r.Product, nil)
		}
	}
	d.judge(n, gpus != nil, results, err, errors.Is(ctx.Err(), context.DeadlineExceeded))
}

func (d *doctor) usableIDs() (ids []string) {
	for _, g := range d.GPUs {
		if g.Why == "" {
			ids = append(ids, g.UUID)
		}
	}
	return ids
}

// readRanks reads the ranks' lines.
func readRanks(out *bytes.Buffer) (results []rankResult) {
	for s := bufio.NewScanner(out); s.Scan(); {
		var r rankResult
		if json.Unmarshal(s.Bytes(), &r) == nil {
			results = append(results, r)
		}
	}
	return results
}

// judge says how the all-reduce went.
func (d *doctor) judge(n int, onGPUs bool, results []rankResult, err error, late bool) {
	where, name := "loopback", fmt.Sprintf("%d ranks", n)
	if onGPUs {
		where = "NCCL"
	}
	if n == 1 {
		name = "1 rank on its GPU"
	}
	if late {
		d.say("fail", name, mendRanks(where, onGPUs), "over %s: no answer within %v", where, rankPatience)
		return
	}
	if err != nil {
		d.say("fail", name, mendRanks(say1(err), onGPUs), "%s", say1(err))
		return
	}
	slowest, exact := 0.0, len(results) == n
	for _, r := range results {
		slowest, exact = max(slowest, r.Milliseconds), exact && r.Exact
	}
	switch {
	case !exact:
		d.say("fail", name, mendRanks(where, onGPUs), "over %s: %d of %d answered, and the all-reduce's sum is wrong", where, len(results), n)
	case n == 1:
		d.say("ok", name, "", "it computes; with one GPU nothing goes over NCCL")
	default:
		d.say("ok", name, "", "met and reduced %d KiB over %s, exactly, in %.2f ms", 4*reduced>>10, results[0].Over, slowest)
	}
}

// mendRanks is what to do about ranks that failed with those words.
func mendRanks(said string, onGPUs bool) string {
	switch {
	case strings.Contains(said, "libcuda"):
		return "install the driver's libcuda.so.1 (Debian: libcuda1); a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
	case strings.Contains(said, "libcublas"):
		return "pip install nvidia-cublas (CUDA 12: nvidia-cublas-cu12); or the toolkit, with CUDA_HOME or LD_LIBRARY_PATH leading to it"
	case strings.Contains(strings.ToLower(said), "nccl"):
		return "run it again with NCCL_DEBUG=INFO; if GPUs cannot reach each other, try NCCL_P2P_DISABLE=1, then NCCL_SHM_DISABLE=1, and tell which helped"
	case onGPUs:
		return "nvidia-smi, and NVRM and Xid in dmesg, say more"
	}
	return "loopback must be up (ip link set lo up), and no firewall may filter it"
}

// checkPort tries the port at which the first rank of each node of a larger job listens.
func (d *doctor) checkPort() {
	if err := tryPort(launch.DefaultGossipPort); err != nil {
		d.say("warn", "gossip port", "another job of this host may hold it: give each job its own with --gossip-port", "%s", say1(err))
	}
}
