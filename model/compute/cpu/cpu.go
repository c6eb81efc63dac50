// Package cpu is the specification of every operation, and the default backend.
//
// One idea carries it: an operation is a task over independent rows (or tiles), cut into pieces whose size depends on the
// shapes alone; threads take pieces, never parts of a sum. So the result is the same bits for any number of threads.
//
// Each operation stands here as the plain loop of its formula. Where time is spent (products, attention, the merge, exp,
// norms) a kernel of internal/simd takes the loop's place, and that of a product one of internal/amx where the processor has
// tiles; Config.ISA "go" keeps the loops, the twin that passes the same suite.
//
// The kernels for arm64 (NEON) pass that suite under emulation. Nothing has measured their speed on hardware, and the choices that depend on
// speed, as in WalksKept, are those measured on amd64.
package cpu

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cpu/internal/amx"
	"github.com/splora/splora/model/compute/cpu/internal/simd"
	"github.com/splora/splora/model/tensor"
)

// Config of a CPU backend.
type Config struct {
	// Threads is the number of threads; 0 means runtime.GOMAXPROCS(0).
	Threads int
	// ISA is "go", "avx2", "avx512", or avx512 with a unit for products of bfloat16: "avx512bf16" (pairs) or "amx" (tiles); on arm64 "neon";
	// "" means the best that this machine has. ISAs lists them.
	ISA string
}

// Backend computes on the host. One goroutine owns it.
type Backend struct {
	kern   *simd.Kernels
	unit   unit
	pool   *pool
	tasks  tasks
	gemm   gemmBuffers
	kept   keptBuffers
	masked maskedBuffers
	flash  flashBuffers
	sums   []float64

	unitBack unitBackBuffers
}

var _ compute.Backend = (*Backend)(nil)

// tasks holds the arguments of the operation that runs, so that starting one allocates nothing.
type tasks struct {
	fill     fillTask
	copyTask copyTask
	pack     packTask
	tiles    tileTask
	thin     thinTask
	thinPack thinPackTask
	round    roundTask
	unitPack unitPackTask
	unit     unitTask
	merger   merger
	reducer  reducer
	parts    partsTask
	dots     dotTask
	merge    mergeTask
	mask     maskTask
	bias     biasTask
	drop     dropTask
	add      addTask
	gather   gatherTask
	scatter  scatterTask
	norm     normTask
	normBack normBackTask
	rope     ropeTask
	gate     gateTask
	gateBack gateBackTask
	attn     attnTask
	attnBack attnBackTask
	finite   finiteTask

	flashBack flashBackTask
	unitBack  unitBackTask
	unitAhead unitAheadTask
	loss      lossTask
	adam      adamTask
	squares   squaresTask

	keptMerge keptMergeTask
	keptTurn  keptTurnTask
	keptPanel keptPanelsTask
	panels    panelTask
	pairs     pairTask
	walk      walkTask
	classes   classTask
	classWalk classWalkTask
	keptDots  keptDotsTask
	keptSum   keptSumTask
	place     placeTask

	keptReduce keptReduceTask
}

// New starts the workers of a backend; Close ends them.
func New(c Config) *Backend {
	if c.Threads == 0 {
		c.Threads = min(runtime.GOMAXPROCS(0), compute.MaxThreads)
	}
	if c.Threads < 0 || c.Threads > compute.MaxThreads {
		panic(fmt.Sprintf("cpu: %d threads", c.Threads))
	}
	k := kernels(c.ISA)
	b := &Backend{kern: k, unit: unitFor(k.Name), pool: newPool(c.Threads, looksOf(c.Threads), vec{k})}
	for i := range b.pool.workers {
		b.pool.workers[i].beside = &b.unit
	}
	return b
}

// ISAs are the instruction sets that this machine has, best first; "go", the portable loops, is always the last.
func ISAs() []string {
	names := []string{"amx", "avx512bf16", "avx512", "avx2", "neon"}
	if !amx.PairsPay() {
		names = []string{"amx", "avx512", "avx512bf16", "avx2", "neon"}
	}
	var have []string
	for _, name := range names {
		if u := unitFor(name); simd.For(vectorsOf(name)) != nil && (u.Kernels != nil || vectorsOf(name) == name) {
			have = append(have, name)
		}
	}
	return append(have, "go")
}

// vectorsOf is the instruction set of an ISA's vector kernels.
func vectorsOf(isa string) string {
	if isa == "amx" || isa == "avx512bf16" {
		return "avx512"
	}
	return isa
}

func kernels(isa string) *simd.Kernels {
	if isa == "" {
		isa = ISAs()[0]
	}
	if isa == "go" {
		return loops()
	}
	if !slices.Contains(ISAs(), isa) {
		panic(fmt.Sprintf("cpu: instruction set %q, this machine has %v", isa, ISAs()))
	}
	k := simd.For(vectorsOf(isa))
	k.Name = isa
	return k
}

// Name says what was detected: "cpu (2 threads, avx512)".
func (b *Backend) Name() string {
	return fmt.Sprintf("cpu (%d threads, %s)", b.pool.threads(), b.kern.Name)
}

// Sync has nothing to wait for: operations return when they are done, and none can fail.
func (b *Backend) Sync() error { return nil }

// Close ends the workers. The backend must not be used afterwards.
func (b *Backend) Close() error {
	b.pool.close()
	return nil
}

// Alloc gives n zeroed bytes, 64-byte aligned.
func (b *Backend) Alloc(n int) tensor.Mem {
	const align = 64
	raw := make([]byte, n+align)
	skip := int(-uintptr(unsafe.Pointer(&raw[0])) & (align - 1))
	return tensor.Mem{Host: raw[skip : skip+n : skip+n]}
}
