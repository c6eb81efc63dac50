package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// kind is what operations of one name take together in a step.
type kind struct {
	name                  string
	calls                 int
	seconds, flops, bytes float64
	alone                 float64 // of products, merges and attention; 0: not known
}

// kinds sums operations by their name, the longest first.
func kinds(ops []Op) []kind {
	all := map[string]kind{}
	for _, o := range ops {
		k, n := all[o.Name], float64(o.Calls)
		all[o.Name] = kind{o.Name, k.calls + o.Calls, k.seconds + o.Seconds, k.flops + n*o.Flops, k.bytes + n*o.Bytes, k.alone + n*o.Alone}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b kind) int { return cmp.Compare(b.seconds, a.seconds) })
}

// breakdown is a table of where the time of a step goes, and what it says of the whole.
func breakdown(m Measurement) string {
	var b strings.Builder
	var known, timed, alone float64
	step := m.Step()
	fmt.Fprintf(&b, "where a step of %.3f s goes on %s; multiply-adds of the vector units: at most %.0f GFLOP/s\n", step, m.Backend, m.Peak/1e9)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tcalls\tms\tshare\tGFLOP/s\tby itself\tGB/s\t")
	for _, k := range kinds(m.Ops) {
		known += k.seconds
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f %%\t%s\t%s\t%.1f\t\n", k.name, k.calls, 1e3*k.seconds, 100*k.seconds/step,
			rate(k.flops, k.seconds), rate(k.flops, k.alone), k.bytes/k.seconds/1e9)
		if k.alone > 0 {
			timed, alone = timed+k.seconds, alone+k.alone
		}
	}
	fmt.Fprintf(w, "rest\t\t%.1f\t%.1f %%\t\t\t\t\n", 1e3*(step-known), 100*(1-known/step))
	w.Flush()
	fmt.Fprintf(&b, "products, merges and attention: %.0f %% of the step; by themselves they would take %.0f %% of it\n", 100*timed/step, 100*alone/step)
	return b.String()
}

// rate is in GFLOP/s, "" for what does not count any.
func rate(flops, seconds float64) string {
	if flops == 0 || seconds == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", flops/seconds/1e9)
}
