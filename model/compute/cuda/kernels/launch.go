package kernels

import "fmt"

// Threads is the block size of every kernel whose Launch is not given here.
const Threads = 256

// LossThreads is the block size of crossentropy.
const LossThreads = 512

// SumSquaresBlocks is the grid of sumsquares_f32, and the length of its float64 sums.
const SumSquaresBlocks = 512

// Launch is one kernel launch without its parameters.
type Launch struct {
	Module, Name string
	Grid         [3]int
	Threads      int
	Shared       int // dynamic shared memory, bytes
}

// Sweep is the grid of an elementwise kernel over n elements on a device of so many multiprocessors.
func Sweep(n, processors int) int { return max(1, min((n+2047)/2048, 16*processors)) }

// Heads is the shape of one attention call.
type Heads struct {
	BF16                  bool
	B, Tq, Tk, Hq, Hkv, D int
}

// attention's tiles: rows of queries and of keys that stand in shared memory at once.
type tiles struct{ queries, keys int }

// widths are the head dimensions that kernels are compiled for; a smaller head is padded with zeros.
var widths = [...]int{64, 80, 96, 128, 256}

// Width is the P of the kernel that takes heads of D elements; 0 if there is none.
func Width(d int) int {
	for _, p := range widths {
		if d <= p {
			return p
		}
	}
	return 0
}

// Attention is the launch of attention.
func (h Heads) Attention() Launch {
	t := tiles{128, 64}
	switch p := Width(h.D); {
	case !h.BF16:
		t = tiles{32, 32}
	case p == 128:
		t.keys = 32
	case p > 128:
		t.queries = 64
	}
	l := h.launch("attention", t.queries+2*t.keys, h.Tk, t.keys)
	l.Grid = [3]int{ceil(h.Tq, t.queries), h.Hq, h.B}
	return l
}

// Delta is the launch of attention_delta.
func (h Heads) Delta() Launch {
	return Launch{"attention_dq", "attention_delta_" + h.dtype(), [3]int{ceil(h.B*h.Tq*h.Hq, 8), 1, 1}, Threads, 0}
}

// DQ is the launch of attention_dq.
func (h Heads) DQ() Launch {
	t := tiles{128, 32}
	switch {
	case !h.BF16:
		t.queries = 32
	case Width(h.D) > 128:
		t.queries = 64
	}
	l := h.launch("attention_dq", 2*t.queries+2*h.stages()*t.keys, h.Tk, t.keys)
	l.Grid = [3]int{ceil(h.Tq, t.queries), h.Hq, h.B}
	return l
}

// DKV is the launch of attention_dkv.
func (h Heads) DKV() Launch {
	t, split := tiles{64, 64}, 1
	switch p := Width(h.D); {
	case !h.BF16:
		t = tiles{32, 32}
	case p > 64:
		t.queries = 32
		split = ceil(p, 128)
	}
	l := h.launch("attention_dkv", 2*h.stages()*t.queries+2*t.keys, h.Tq, t.queries)
	l.Grid = [3]int{ceil(h.Tk, t.keys) * split, h.Hkv, h.B}
	return l
}

func (h Heads) dtype() string {
	if h.BF16 {
		return "bf16"
	}
	return "f32"
}

// stages is how many tiles of those that a backward pass goes over stand in shared memory at once.
func (h Heads) stages() int {
	if h.BF16 {
		return 2
	}
	return 1
}

// launch is a kernel that keeps so many rows in shared memory, and one byte for each of the tiles that it goes over.
func (h Heads) launch(name string, rows, along, tile int) Launch {
	p := Width(h.D)
	if p == 0 {
		panic(fmt.Sprintf("kernels: attention of heads of %d elements; at most %d are supported", h.D, widths[len(widths)-1]))
	}
	size, extra := 4, 1024+2*32*36*4
	if h.BF16 {
		size, extra = 2, 1024
	}
	shared := rows*(p*size+16) + extra + (ceil(along, tile)+15)/16*16
	return Launch{name, fmt.Sprintf("%s_%s_%d", name, h.dtype(), p), [3]int{1, 1, 1}, 128, shared}
}

// Compressed is the size in bytes of a 2:4 weight [out,in] as compress leaves it for spmm, in a multiple of 64: the kept weights in bfloat16 and
// two bits for each one's place, in tiles of 16 rows.
func Compressed(out, in int) int { return ceil(out, 16) * (in / 64) * tileBytes }

// tileBytes is the size of 16 rows and 64 inputs: 2·512 and 2·512/8.
const tileBytes = 1152

// Compress is the launch of compress; to its name comes the type of the values.
func Compress(out, in int) Launch {
	return Launch{"compress", "compress", [3]int{ceil(in, 256), ceil(out, 128), 1}, Threads, 0}
}

// Spmm is the launch of spmm for n rows.
func Spmm(n, out int) Launch {
	const side, stages = 128, 3
	return Launch{"spmm", "spmm_bf16", [3]int{ceil(n, side), ceil(out, side), 1}, 128, stages * (side/16*tileBytes + 2*side*64)}
}

// Adapter is the launch of adapter, and what adapter_sum needs of it.
type Adapter struct {
	Launch
	R, Stripe    int // the rank rounded up; the rows of a block
	PartA, PartB int // float32s that the blocks leave
}

// AdapterGradient is the masked gradient of an adapter of rank r of a linear [out,in] on a device of so many multiprocessors; false: the
// rank is too large or the width no multiple of 8, and mask and products must do. G must be 16-byte aligned.
func AdapterGradient(out, in, r, processors int) (Adapter, bool) {
	const side, threads = 128, 256
	a := Adapter{R: 16}
	for a.R < r {
		a.R *= 2
	}
	if a.R > 64 || in%8 != 0 || out == 0 || in == 0 {
		return Adapter{}, false
	}
	columns := 8192 / a.R
	x := ceil(in, columns)
	rows := ceil(out, side)                             // in units of side
	rows = ceil(rows, min(rows, ceil(2*processors, x))) // of a block: two blocks for each multiprocessor, if there are as many
	a.Stripe = rows * side
	y := ceil(out, a.Stripe)
	a.PartA, a.PartB = y*a.R*in, x*out*a.R
	shared := 4*a.R*columns + 2*(side*(side+8)+a.R*(columns+8)+side*(a.R+8))
	a.Launch = Launch{"adapter", fmt.Sprintf("adapter_bf16_%d", a.R), [3]int{x, y, 1}, threads, shared}
	return a, true
}

func ceil(a, b int) int { return (a + b - 1) / b }
