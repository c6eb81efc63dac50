package train

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/decoder"
)

// Footprint is the memory of one rank, in bytes.
type Footprint struct {
	Linears int          `json:"linears_bytes"`         // frozen linears as they stand in memory: kept values, mask bits
	Dense   int          `json:"dense_bytes"`           // the same linears without packing, for comparison
	Tables  int          `json:"tables_bytes"`          // embedding, head, norms, biases
	Mapped  int          `json:"mapped_bytes"`          // of these two, what stays in the mapped files
	Block   int          `json:"block_bytes,omitempty"` // a streamed base: the linears of the largest block, of which one stands in memory at a time; 0: not streamed
	Rows    int          `json:"rows_bytes"`            // the tokenised data, mapped; 0 in a plan, which has none
	Process int          `json:"process_bytes"`         // the program itself: code, runtime, tokenizer
	Plan    decoder.Plan `json:"plan"`

	Device *DeviceMemory `json:"device,omitempty"` // of a backend with memory of its own
}

// DeviceMemory is what a rank holds on its device, as planned before the run and as the driver then says, in bytes.
type DeviceMemory struct {
	compute.Usage
	// Collectives is what a communicator is expected to take.
	Collectives int `json:"collectives_bytes"`
}

// Estimates of what cannot be asked for beforehand: the driver's context with the kernels, what cuBLAS loads, and NCCL's buffers, which
// depend on the GPUs' links.
const (
	driver       = 512 << 20
	cublas       = 64 << 20
	communicator = 512 << 20
)

// PlannedOn is the footprint on a device that is not there, whose backend takes own bytes for itself.
func (f Footprint) PlannedOn(own int) Footprint {
	f.Process, f.Mapped, f.Block = 0, 0, 0
	f.Device = &DeviceMemory{Usage: compute.Usage{Before: driver, Library: cublas, Own: own, Arena: own + f.Total()}}
	return f
}

// onDevice is the device's memory; nil when the backend has none of its own.
func (t *trainer) onDevice() (*DeviceMemory, error) {
	d, ok := t.be.(compute.Planned)
	if !ok {
		return nil, nil
	}
	u, err := d.Usage()
	m := &DeviceMemory{Usage: u}
	if t.OnDevice && t.Group.Size() > 1 {
		m.Collectives = communicator
	}
	return m, err
}

// Planned is all that the rank was planned to take, with what was in use on the device before it.
func (m *DeviceMemory) Planned() int { return m.Before + m.Library + m.Arena + m.Collectives }

// InUse is what the driver says is in use.
func (m *DeviceMemory) InUse() int { return m.Total - m.Free }

func (m *DeviceMemory) String() string {
	if m.Total == 0 {
		return fmt.Sprintf("memory of the device: about %s for context and kernels, %s for cuBLAS, arena %s (%s scratch and workspace): %s;\n"+
			"and about %s for NCCL where there are several ranks", size(m.Before), size(m.Library), size(m.Arena), size(m.Own), size(m.Planned()), size(communicator))
	}
	off := 100 * (float64(m.InUse())/float64(max(1, m.Planned())) - 1)
	return fmt.Sprintf("memory of the device: %s in use at the start (context, kernels, others), cuBLAS %s, arena %s (%s scratch and workspace),\n"+
		"collectives %s: planned %s; the driver says %s of %s (%+.1f %%)", size(m.Before), size(m.Library), size(m.Arena), size(m.Own), size(m.Collectives), size(m.Planned()),
		size(m.InUse()), size(m.Total), off)
}

func size(n int) string { return humanize.Bytes(uint64(max(0, n))) }

// Total is the resident set that the rank comes to have, when the system leaves it in memory; or what it takes of its device.
func (f Footprint) Total() int {
	n := f.standing() + f.Tables + f.Plan.Total()
	if f.Device != nil {
		return n
	}
	return n + f.Rows + f.Process
}

// standing is what of the frozen linears stands in memory.
func (f Footprint) standing() int {
	if f.Block > 0 {
		return f.Block
	}
	return f.Linears
}

// Anonymous is the part of Total that the system cannot drop and read again: without swap space it must fit. The ranks of a host share
// the rest.
func (f Footprint) Anonymous() int {
	return f.Linears + f.Tables + f.Process + f.Plan.Total() - f.Mapped
}

// Fits reports whether so many ranks fit in room bytes with the base in memory, which they share as far as it is mapped.
func (f Footprint) Fits(room, ranks int) bool { return ranks*f.Anonymous()+f.Mapped <= room }

// Measure adds up the frozen base, loaded or sketched.
func Measure(w decoder.Weights, arch decoder.Config, p decoder.Plan) Footprint {
	f := Footprint{Plan: p, Tables: w.Embed().Bytes() + w.FinalNorm().Bytes()}
	if !arch.Tied {
		f.Tables += w.Head().Bytes()
	}
	for i := range arch.Layers {
		b := w.Acquire(i)
		f.Tables += b.AttnNorm.Bytes() + b.MLPNorm.Bytes() + b.QNorm.Bytes() + b.KNorm.Bytes()
		for _, l := range b.Linears {
			f.Linears += l.W.Bytes()
			f.Dense += l.W.Out * l.W.In * l.W.Values.DType.Size()
			f.Tables += l.Bias.Bytes()
		}
		w.Release(i)
	}
	return f
}

// String is the plan as a table.
func (f Footprint) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "memory of a rank, planned and allocated before the first step:\n")
	host := func(n int) int {
		if f.Device != nil {
			return 0
		}
		return n
	}
	for _, l := range []struct {
		name  string
		bytes int
	}{
		{fmt.Sprintf("frozen linears, %s (dense: %s)", f.form(), humanize.Bytes(uint64(f.Dense))), f.standing()},
		{"embedding, head, norms", f.Tables},
		{"weight slot (W~, then G)", f.Plan.Slot},
		{fmt.Sprintf("activations, with %d rows of logits", f.Plan.ChunkRows), f.Plan.Stack},
		{"adapters A, B", f.Plan.Adapters},
		{"gradients (the all-reduced vector)", f.Plan.Gradients},
		{"AdamW m, v", f.Plan.Moments},
		{"rotary tables", f.Plan.Rope},
		{"scratch of the backend", f.Plan.Scratch},
		{"the rows, tokenised", host(f.Rows)},
		{"the program itself", host(f.Process)},
		{"in all", f.Total()},
	} {
		if l.bytes == 0 {
			continue
		}
		fmt.Fprintf(&b, "  %-44s %10s\n", l.name, humanize.Bytes(uint64(l.bytes)))
	}
	if f.Device != nil {
		fmt.Fprintln(&b, f.Device)
	}
	if files := f.Mapped - f.Linears + f.standing() + f.Rows; host(f.Mapped) > 0 {
		fmt.Fprintf(&b, "of it %s are mapped files: all ranks of a host share them, and where memory is short the system\n"+
			"reads them again as they are needed; the other %s must fit\n", humanize.Bytes(uint64(files)), humanize.Bytes(uint64(f.Anonymous())))
	}
	return strings.TrimRight(b.String(), "\n")
}

// Streamed is f with a streamed base: the linears of one block stand in memory, and of an embedding that is not the head only the rows of
// the tokens at hand.
func (f Footprint) Streamed(block int, w decoder.Weights, arch decoder.Config) Footprint {
	f.Block = block
	if n := w.Embed().Bytes(); block > 0 && !arch.Tied {
		f.Tables, f.Mapped = f.Tables-n, f.Mapped-n
	}
	return f
}

func (f Footprint) form() string {
	if f.Block > 0 {
		return fmt.Sprintf("a block of %s", humanize.Bytes(uint64(f.Linears)))
	}
	return "packed"
}

// wrap sets the lines of s side by side, as far as 110 columns go, with a list's items behind its name.
func wrap(s string) string {
	s = strings.ReplaceAll(s, "\n- ", " ")
	var b strings.Builder
	col := 0
	for line := range strings.Lines(s) {
		line = "  " + strings.TrimRight(line, "\n")
		if col > 0 && col+len(line) > 110 {
			b.WriteByte('\n')
			col = 0
		}
		b.WriteString(line)
		col += len(line)
	}
	return b.String()
}
