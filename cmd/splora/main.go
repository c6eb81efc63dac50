// Command splora prunes, fine-tunes, merges, verifies and runs sparse language models: one process, one rank.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/output"
	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/decoder"
)

// Exit codes, a rank's and every other command's.
const (
	exitDone    = launch.ExitDone
	exitFailed  = launch.ExitFailed
	exitUsage   = launch.ExitUsage
	exitStopped = launch.ExitStopped
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), heeded(syscall.SIGINT, syscall.SIGTERM)...)
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	code := guarded(os.Stderr, func() int { return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr) })
	stop()
	os.Exit(code)
}

// guarded has a bug of ours end the program as a failure: the runtime's own exit code for it, 2, would say that the usage was wrong.
func guarded(errw io.Writer, f func() int) (code int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(errw, "splora: bug: %v\n%s", p, debug.Stack())
			code = exitFailed
		}
	}()
	return f()
}

// run is the program with its streams; it gives the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	printed := &output.Checked{W: out}
	root.SetOut(printed)
	root.SetErr(errw)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = printed.Err()
	}
	code := exitFailed
	var wrong usage
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, train.ErrStopped):
		code = exitStopped
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		err = errors.New("stopped on a signal")
	case errors.As(err, &wrong) || train.IsUsage(err):
		code = exitUsage
	}
	conclude(c, err)
	return code
}

// conclude says why the program ends, in the format of the command's log.
func conclude(c *cobra.Command, err error) {
	if f := c.Flags().Lookup("log-format"); f == nil || f.Value.String() != "json" {
		fmt.Fprintln(c.ErrOrStderr(), "splora:", err)
		return
	}
	place, _, _ := launch.FromEnv(os.Getenv) // what is wrong with it is told by train
	log := newLog(c, "json", place)
	if errors.Is(err, train.ErrStopped) {
		log.Warn(err.Error())
		return
	}
	log.Error(err.Error())
}

// usage marks an error in how splora was called: exit code 2.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "splora",
		Short: "Fine-tune pruned language models, and keep every zero a zero",
		Long: `splora fine-tunes pruned (sparse) language models with low-rank adapters whose merge keeps every zero a zero:

    W' = M * (W + s B A)        y = x W'^T

Begin with "splora quickstart"; "splora help formats", "splora help data" and "splora help resume" go deeper.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(newQuickstart(), newInit(), newPrune(), newTrain(), newMerge(), newVerify(), newEval(), newGenerate(), newTokenize(), newExport(), newPlan(), newDoctor())
	root.AddCommand(topics()...)
	root.SetHelpCommand(newHelp(root))
	return root
}

// newHelp is the help of a command or the text of a topic.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "Help on a command or a topic",
		ValidArgsFunction: func(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
			for _, c := range root.Commands() {
				names = append(names, c.Name()+"\t"+c.Short)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil {
				return usage{err}
			}
			if len(rest) > 0 {
				return usagef("help: %s has no command or topic %q; see splora --help", c.CommandPath(), rest[0])
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// noCommand refuses words that are no command, with the nearest one that is.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q", args[0])
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		msg += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usagef("%s; see splora --help", msg)
}

// noArgs refuses positional arguments.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument %q; see %s --help", c.Name(), args[0], c.CommandPath())
	}
	return nil
}

// require reports the first of the named flags that was not given, or without a value.
func require(c *cobra.Command, names ...string) error {
	for _, n := range names {
		if !c.Flags().Changed(n) {
			return usagef("%s: --%s is missing; see %s --help", c.Name(), n, c.CommandPath())
		}
	}
	return filled(c, names...)
}

// filled reports the first of the named flags that was given as nothing, as an unset variable of a script is.
func filled(c *cobra.Command, names ...string) error {
	for _, n := range names {
		if f := c.Flags().Lookup(n); f.Changed && strings.TrimSpace(f.Value.String()) == "" {
			return usagef("%s: --%s is empty; see %s --help", c.Name(), n, c.CommandPath())
		}
	}
	return nil
}

// refuse reports the first of the named flags that was given, though it has no effect there.
func refuse(c *cobra.Command, where string, names ...string) error {
	for _, n := range names {
		if c.Flags().Changed(n) {
			return usagef("%s: --%s has no effect %s: leave it out", c.Name(), n, where)
		}
	}
	return nil
}

// complete gives the words of a flag that takes one of a few.
func complete(c *cobra.Command, flag string, words ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("splora: " + err.Error())
	}
}

// completeTrain does so for train's flags.
func completeTrain(c *cobra.Command) {
	complete(c, "method", "splora", "lora")
	complete(c, "targets", append([]string{"all-linear"}, decoder.Linears[:]...)...)
	complete(c, "schedule", "cosine", "linear", "constant")
	complete(c, "too-long", "truncate", "split", "error")
	complete(c, "recompute", "block", "none")
	complete(c, "memory", "auto", "reuse", "fused")
	complete(c, "base", "auto", "resident", "streamed")
	complete(c, "dtype", "float32", "bfloat16")
	complete(c, "device", "auto", "cpu", "cuda")
	complete(c, "transport", "auto", "nccl", "tcp")
	complete(c, "log-format", "text", "json")
}

// printJSON writes exactly one JSON object to stdout.
func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}
