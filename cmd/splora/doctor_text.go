package main

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// describe prints what there is.
func (d *doctor) describe(b *strings.Builder) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-10s%s\n", name, fmt.Sprintf(format, args...))
	}
	with := "built without -tags cuda"
	if d.Program.CUDA {
		with = "built with -tags cuda"
	}
	line("program", "%s %s/%s, %s", d.Program.Go, d.Program.OS, d.Program.Arch, with)
	h := d.Host
	line("system", "%s, kernel %s", orUnknown(h.System), orUnknown(h.Kernel))
	line("cpu", "%s: %d threads, %d of them used; %s", orUnknown(h.CPU), h.Threads, h.Usable, orUnknown(strings.Join(h.ISA, " ")))
	for _, n := range h.NUMA {
		line("numa", "node %d: CPUs %s, %s", n.ID, n.CPUs, bytesOf(n.Memory))
	}
	line("memory", "%s, %s available; cgroup %s and %s CPUs; /dev/shm %s", bytesOf(h.Memory), bytesOf(h.Available), noLimit(h.CgroupMem, bytesOf), cpus(h.CgroupCPU), bytesOf(h.Shm))
	line("limits", "%s open files, %s locked memory, %s processes", noLimit(h.OpenFiles, number), noLimit(h.Locked, bytesOf), noLimit(h.Processes, number))
	if d.Driver != nil {
		line("driver", "%s, for CUDA up to %s; NVML %s; kernel module %s", d.Driver.Version, d.Driver.CUDA, orUnknown(d.Driver.NVML), orUnknown(h.Module))
	}
	for _, l := range d.Libraries {
		line("library", "%s %s at %s", l.Name, orUnknown(l.Version), l.Path)
	}
	for i, g := range d.GPUs {
		line(fmt.Sprintf("gpu %d", i), "%s", describeGPU(g))
	}
	d.matrix(b)
}

func describeGPU(g GPU) string {
	node := "NUMA node unknown"
	if g.NUMA >= 0 {
		node = fmt.Sprintf("NUMA node %d", g.NUMA)
	}
	s := fmt.Sprintf("%s, %s at %s, %s, %s, compute capability %s, compute mode %s, MIG %s, ECC %s", g.UUID, g.Name, g.PCI, node, bytesOf(g.Memory),
		orUnknown(g.Capability), g.Mode, onOff(g.MIG), orUnknown(g.ECC))
	if g.Health != nil {
		s += "\n          now " + g.Health.String()
	}
	for _, h := range g.Holders {
		s += "\n          used by " + h.String()
	}
	return s
}

// matrix prints how the GPUs reach each other; ! marks pairs without peer access.
func (d *doctor) matrix(b *strings.Builder) {
	n := len(d.GPUs)
	if len(d.Links) == 0 {
		return
	}
	cells := make([][]string, n)
	for i := range cells {
		cells[i] = make([]string, n)
		cells[i][i] = "-"
	}
	for _, l := range d.Links {
		cells[l.A][l.B] = l.Link.String()
		if !l.Peer {
			cells[l.A][l.B] += "!"
		}
	}
	fmt.Fprintf(b, "%-10s", "links")
	for i := range n {
		fmt.Fprintf(b, "%6d", i)
	}
	for i, row := range cells {
		fmt.Fprintf(b, "\n%9d ", i)
		for _, c := range row {
			fmt.Fprintf(b, "%6s", c)
		}
	}
	b.WriteString("\n          NVn n NVLinks; PIX, PXB, PHB, NODE, SYS ever farther over PCI; ! no peer access\n")
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func onOff(b bool) string { return map[bool]string{true: "on", false: "off"}[b] }

func bytesOf(n int64) string {
	if n <= 0 {
		return "unknown"
	}
	return humanize.IBytes(uint64(n))
}

func number(n int64) string { return humanize.Comma(n) }

// noLimit prints a limit, of which −1 is none.
func noLimit(n int64, print func(int64) string) string {
	if n < 0 {
		return "unlimited"
	}
	return print(n)
}

func cpus(n float64) string {
	if n < 0 {
		return "all"
	}
	return fmt.Sprintf("%.3g", n)
}
