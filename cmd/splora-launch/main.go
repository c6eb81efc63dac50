// Command splora-launch starts the ranks of `splora train` on this node, by hand or under Slurm, and starts
// them again when one fails. What it does is package launch; this is flags → launch.Config.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/splora/splora/cmd/internal/output"
	"github.com/splora/splora/launch"
)

func main() {
	f := flags{getenv: os.Getenv, environ: os.Environ(), open: launch.OpenGPUs, root: os.DirFS("/")}
	os.Exit(run(context.Background(), os.Args[1:], f, os.Stdout, os.Stderr))
}

// run is main without the process around it; it gives the exit code.
func run(ctx context.Context, args []string, f flags, stdout, stderr io.Writer) int {
	code := launch.ExitUsage // until the ranks are started every error is one of usage
	reason := ""
	printed := &output.Checked{W: stdout}
	cmd := &cobra.Command{
		Use:               "splora-launch [flags] -- train [flags of splora train]",
		Short:             "Start the ranks of splora train on this node, watch them, restart them",
		Long:              long,
		Example:           example,
		Args:              cobra.ArbitraryArgs,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.config(cmd, args)
			if c.GPUs != nil {
				defer c.GPUs.Close()
			}
			if err != nil {
				return err
			}
			shared := zapcore.Lock(zapcore.AddSync(stderr)) // by the ranks' lines and the launcher's
			c.Stdout, c.Stderr, c.Logger = printed, shared, logger(shared, f.verbose)
			if f.note != "" {
				c.Logger.Warn(f.note)
			}
			report, err := launch.Run(ctx, c)
			code, reason = report.ExitCode, report.Reason
			return err
		},
	}
	f.register(cmd)
	cmd.SetArgs(args)
	cmd.SetOut(printed)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	if err == nil && printed.Err() != nil {
		err, code = printed.Err(), launch.ExitFailed
	}
	return exit(err, code, reason, f.logDir, stderr)
}

// exit says in one line how it ended. reason is the report's, which also tells why there was no restart.
func exit(err error, code int, reason, logDir string, stderr io.Writer) int {
	if err == nil {
		return launch.ExitDone
	}
	line := err.Error()
	var failure *launch.Failure
	if errors.As(err, &failure) {
		line = reason
		if logDir != "" {
			line += "; logs and exit-report.json are below " + logDir
		}
	}
	fmt.Fprintf(stderr, "splora-launch: %s\n", strings.TrimPrefix(line, "launch: "))
	return code
}

// logger writes the launcher's own events to stderr: warnings, and with verbose all of them.
func logger(stderr zapcore.WriteSyncer, verbose bool) *zap.Logger {
	level := zapcore.WarnLevel
	if verbose {
		level = zapcore.InfoLevel
	}
	enc := zap.NewDevelopmentEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.CallerKey, enc.StacktraceKey = "", ""
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(enc), stderr, level)
	return zap.New(core).Named("splora-launch")
}
