package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newSummary() *cobra.Command {
	return &cobra.Command{
		Use:   "summary FILE...",
		Short: "Tables of raw results that cpu wrote",
		Long: `summary reads raw results (cpu --out) and prints one table in Markdown: a row for each setting, with the seconds of a step and the
peak of the resident set in MB, and ratios to PyTorch's methods of the same rounds: x is a speed, and behind it, in brackets, the
same in processor time over all threads, which a busy machine disturbs less. Medians over the rounds.`,
		Example: "  splora-bench summary cmd/splora-bench/results/cpu-zen5-*.jsonl",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			var all []*group
			for _, f := range files {
				g, err := readResults(f)
				if err != nil {
					return err
				}
				all = append(all, g...)
			}
			_, err := io.WriteString(c.OutOrStdout(), markdown(all))
			return err
		},
	}
}

// readResults gives the groups of a raw file, in its order.
func readResults(path string) ([]*group, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []*group
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: line %d is no record of splora-bench: %w", path, n, err)
		}
		if r.Kind == "run" {
			all = take(all, r)
		}
	}
	return all, lines.Err()
}

// take puts a measurement into the group of its setting; what has failed or is missing in a round has no figures.
func take(all []*group, r record) []*group {
	if len(all) == 0 || all[len(all)-1].setting != r.Setting {
		all = append(all, &group{setting: r.Setting})
	}
	g := all[len(all)-1]
	i := 0
	for i < len(g.rows) && (g.rows[i].who != r.Who || g.rows[i].method != r.Method) {
		i++
	}
	if i == len(g.rows) {
		g.rows = append(g.rows, row{who: r.Who, method: r.Method})
	}
	for len(g.rows[i].runs) < r.Round-1 {
		g.rows[i].runs = append(g.rows[i].runs, nil)
	}
	g.rows[i].runs = append(g.rows[i].runs, r.Measurement)
	return all
}

// find is the row of a method, or nil when it was not measured.
func (g *group) find(who, method string) *row {
	for i := range g.rows {
		if r := &g.rows[i]; r.who == who && r.method == method && r.measured() {
			return r
		}
	}
	return nil
}

// markdown is a table of groups: ours, and beside it what it is compared with.
func markdown(all []*group) string {
	var b strings.Builder
	fmt.Fprintln(&b, "| hidden · seq | compute | pattern | recompute | threads | splora | PEFT LoRA | PyTorch's fastest exact SP-LoRA | x LoRA | x exact | peak / LoRA's |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, g := range all {
		lora, exact := g.find(whoTorch, "lora"), g.exactPeer()
		for i := range g.rows {
			if r := &g.rows[i]; r.who == whoSplora && r.measured() {
				fmt.Fprintf(&b, "| %d · %d | %s | %s | %s | %d | %s%s | %s | %s | %s | %s | %s |\n", g.Shape.Hidden, g.Shape.Seq, g.DType, g.Pattern, g.Recompute, g.Threads,
					cell(r), strings.TrimSuffix(" "+r.method, " splora"), cell(lora), named(exact), speed(r, lora), speed(r, exact), share(r, lora))
			}
		}
	}
	return b.String()
}

// cell is a method's step and peak: "0.25 s, 509 MB".
func cell(r *row) string {
	if r == nil {
		return "–"
	}
	return fmt.Sprintf("%.3g s, %.0f MB", r.middle(Measurement.Step), r.middle(peak)/1e6)
}

func named(r *row) string {
	if r == nil {
		return "–"
	}
	return cell(r) + " (" + strings.TrimPrefix(r.method, "splora-") + ")"
}

func speed(r, other *row) string {
	if other == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f)", 1/ratio(r, other, Measurement.Step), 1/ratio(r, other, Measurement.Worked))
}

func share(r, other *row) string {
	if other == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", ratio(r, other, peak))
}
