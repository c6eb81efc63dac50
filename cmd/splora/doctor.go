package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/lora"
	"github.com/splora/splora/nccl"
)

func newDoctor() *cobra.Command {
	asJSON, ranks, asRank := false, 0, false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What this machine has, whether it works, and how to mend what does not",
		Long: `doctor prints the system, the CPU, the memory and its limits, the NVIDIA driver, its libraries, the GPUs and how they are
connected. Then it works: a matrix product on the CPU and on every GPU that can be used, checked against float64, and an
all-reduce among ranks that it starts as splora-launch would, one for each GPU, or two on the CPU.

Exit codes: 0 nothing is broken, warnings aside · 1 something is broken, and it says how to mend it.`,
		Args: noArgs,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().IntVar(&ranks, "ranks", 0, "ranks of the all-reduce (default: one for each GPU that can be used, else 2)")
	c.Flags().BoolVar(&asRank, "as-rank", false, "be one of those ranks")
	c.Flags().MarkHidden("as-rank")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if ranks < 0 || ranks > lora.MaxRanks {
			return usagef("doctor: --ranks %d: 1 to %d", ranks, lora.MaxRanks)
		}
		if asRank {
			return doctorRank(c.Context(), c.OutOrStdout())
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		d := doctor{root: os.DirFS("/"), env: os.Environ(), open: launch.OpenGPUs, nccl: openNCCL, self: self, ranks: ranks}
		d.examine(c.Context())
		if asJSON {
			err = printJSON(c, d.Diagnosis)
		} else {
			err = d.print(c.OutOrStdout())
		}
		if err == nil && !d.OK {
			err = errors.New("doctor: something is broken; what to do about it is said above")
		}
		return err
	}
	return c
}

// Diagnosis is what doctor found.
type Diagnosis struct {
	OK        bool           `json:"ok"` // no check failed
	Program   Program        `json:"program"`
	Host      Host           `json:"host"`
	Driver    *launch.Driver `json:"driver,omitempty"`
	Libraries []Library      `json:"libraries"`
	GPUs      []GPU          `json:"gpus"`
	Links     []GPULink      `json:"links,omitempty"`
	Checks    []Check        `json:"checks"`
}

// Program is this build.
type Program struct {
	Go   string `json:"go"`
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CUDA bool   `json:"cuda"` // built with -tags cuda
}

// Check is one thing that was tried or looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warn: it works, but, fail: it is broken, absent: nothing to check
	Says   string `json:"says"`
	Mend   string `json:"mend,omitempty"`
}

// doctor looks at a machine through what a test can replace.
type doctor struct {
	Diagnosis
	root  fs.FS
	env   []string
	open  func() (launch.GPUs, error)
	nccl  func() (Library, error)
	self  string // the program to start as ranks
	ranks int
	gpus  launch.GPUs // nil without a driver
}

// examine fills in the diagnosis.
func (d *doctor) examine(ctx context.Context) {
	d.Program = Program{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CUDA: true}
	d.Host = readHost(d.root)
	d.checkHost()
	d.findLibraries()
	d.checkDriver()
	if d.gpus != nil {
		defer d.gpus.Close()
		d.checkGPUs()
		d.checkNCCL()
	}
	d.checkPort()
	d.checkProducts()
	d.checkRanks(ctx)
	d.OK = true
	for _, c := range d.Checks {
		d.OK = d.OK && c.Status != "fail"
	}
}

func (d *doctor) say(status, name, mend, format string, args ...any) {
	d.Checks = append(d.Checks, Check{name, status, fmt.Sprintf(format, args...), mend})
}

// usable are the GPUs on which ranks can run.
func (d *doctor) usable() (n int) {
	for _, g := range d.GPUs {
		if g.Why == "" {
			n++
		}
	}
	return n
}

// openNCCL finds the library that ranks would use.
func openNCCL() (Library, error) {
	l, err := nccl.Open("")
	if err != nil {
		return Library{}, err
	}
	return Library{Name: "NCCL", Path: l.Path(), Version: l.GetVersion().String(), lacks: l.Missing(), code: int(l.GetVersion())}, nil
}

// print shows the diagnosis to people.
func (d *doctor) print(w io.Writer) error {
	var b strings.Builder
	d.describe(&b)
	b.WriteString("\n")
	for _, c := range d.Checks {
		fmt.Fprintf(&b, "%-7s %s: %s\n", c.Status, c.Name, strings.ReplaceAll(c.Says, "\n", "\n        "))
		if c.Mend != "" && c.Status != "ok" {
			fmt.Fprintf(&b, "        → %s\n", strings.ReplaceAll(c.Mend, "\n", "\n          "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// say1 is the first line of an error, without the package that said it.
func say1(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	for _, p := range []string{"launch: ", "nccl: ", "cuda: ", "dist: "} {
		s = strings.TrimPrefix(s, p)
	}
	return s
}
