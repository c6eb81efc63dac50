// Command splora-bench measures splora side by side with what else there is, in one run on one machine.
//
// Machines differ and are noisy, so a figure of one program alone says little: what counts is the ratio of two programs that ran
// in turns, A B A B …, each measurement in a fresh process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/output"
	"github.com/splora/splora/cmd/internal/train"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program with its streams; it gives the exit code: 0, 1 for a failure, 2 for a wrong command line.
func run(ctx context.Context, args []string, out, errw io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	printed := &output.Checked{W: out}
	root.SetOut(printed)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = printed.Err()
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		fmt.Fprintln(errw, "splora-bench: stopped on a signal; --out has what was measured")
		return 1
	}
	fmt.Fprintln(errw, "splora-bench:", err)
	var wrong usage
	if errors.As(err, &wrong) || train.IsUsage(err) {
		return 2
	}
	return 1
}

// usage marks an error in how the command was called.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "splora-bench",
		Short:         "Measure training steps side by side: time, memory, cold start",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(newCPU(), newStep(), newSummary())
	root.AddCommand(newCollective(), newCollectiveRank(), newSize(), newCold())
	root.AddCommand(newGPU(), newGPUStep(), newGPUProduct())
	return root
}

// noArgs refuses positional arguments.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument %q; see %s --help", c.Name(), args[0], c.CommandPath())
	}
	return nil
}
