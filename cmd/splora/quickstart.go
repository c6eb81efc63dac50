package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/splora/splora/cmd/internal/quickstart"
	"github.com/splora/splora/model/lora"
)

func newQuickstart() *cobra.Command {
	out, ranks := "", 0
	c := &cobra.Command{
		Use:   "quickstart",
		Short: "The main job on the shipped model: prune, fine-tune on two ranks, merge, prove",
		Long: `quickstart prunes a small LLaMA that comes with the program, fine-tunes it with SP-LoRA on two CPU ranks, merges, proves that
every pruned weight is still exactly zero, and compares with plain LoRA and with more training of the dense model. Its
text is the Go standard library's source, read from GOROOT. It takes less than a minute on two cores.`,
		Args: noArgs,
	}
	c.Flags().StringVar(&out, "out", "", "folder for everything (default: a new temporary one)")
	c.Flags().IntVar(&ranks, "ranks", 2, "ranks of each training")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if ranks < 1 || ranks > lora.MaxRanks {
			return usagef("quickstart: --ranks %d: 1 to %d", ranks, lora.MaxRanks)
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		if out == "" {
			if out, err = os.MkdirTemp("", "splora-quickstart-"); err != nil {
				return fmt.Errorf("quickstart: %w", err)
			}
		}
		return quickstart.Run(c.Context(), quickstart.Config{Out: out, Ranks: ranks, Self: self, Stdout: c.OutOrStdout(), Stderr: c.ErrOrStderr()})
	}
	return c
}
