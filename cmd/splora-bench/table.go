package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Whose measurement it is.
const (
	whoSplora = "splora"
	whoTorch  = "torch"
)

// row is a method and its measurements by round; nil where it failed.
type row struct {
	who, method string
	runs        []*Measurement
}

func (r *row) name() string { return r.who + " " + r.method }

// group is the rows of one setting.
type group struct {
	setting
	rows []row
}

func newGroup(s setting, methods, peers []string) *group {
	g := &group{setting: s}
	for _, m := range methods {
		g.rows = append(g.rows, row{who: whoSplora, method: m})
	}
	for _, p := range peers {
		g.rows = append(g.rows, row{who: whoTorch, method: p})
	}
	return g
}

// reference is the row that all are compared with: PEFT's LoRA if it was measured, else the last row, which is plain LoRA unless
// asked otherwise.
func (g *group) reference() *row {
	for i := range g.rows {
		if r := &g.rows[i]; r.who == whoTorch && r.method == "lora" && r.measured() {
			return r
		}
	}
	return &g.rows[len(g.rows)-1]
}

// exactPeer is the peer's fastest exact masked merge, or nil.
func (g *group) exactPeer() (best *row) {
	for i := range g.rows {
		r := &g.rows[i]
		if r.who == whoTorch && strings.HasPrefix(r.method, "splora") && r.measured() && (best == nil || r.middle(Measurement.Step) < best.middle(Measurement.Step)) {
			best = r
		}
	}
	return best
}

func (r *row) measured() bool {
	return slices.ContainsFunc(r.runs, func(m *Measurement) bool { return m != nil })
}

// middle is the median over the rounds.
func (r *row) middle(of func(Measurement) float64) float64 {
	var v []float64
	for _, m := range r.runs {
		if m != nil {
			v = append(v, of(*m))
		}
	}
	return median(v)
}

// ratio is the median over the rounds of of(r)/of(s): both were measured within moments.
func ratio(r, s *row, of func(Measurement) float64) float64 {
	var v []float64
	for i := range min(len(r.runs), len(s.runs)) {
		if r.runs[i] != nil && s.runs[i] != nil {
			v = append(v, of(*r.runs[i])/of(*s.runs[i]))
		}
	}
	return median(v)
}

// median is NaN for nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// What the table shows of a measurement.
func peak(m Measurement) float64    { return float64(m.PeakRSS) }
func above(m Measurement) float64   { return float64(m.AboveEmpty()) }
func first(m Measurement) float64   { return m.First - m.Making }
func planned(m Measurement) float64 { return float64(m.Planned) }

// others is the median over all measurements of the processors that other programs kept busy meanwhile.
func (g *group) others() float64 {
	var v []float64
	for _, r := range g.rows {
		for _, m := range r.runs {
			if m != nil {
				v = append(v, m.Others)
			}
		}
	}
	return median(v)
}

// String is the table of a setting: medians, and ratios to the reference.
func (g *group) String() string {
	var b strings.Builder
	ref, s := g.reference(), g.Shape
	fmt.Fprintf(&b, "hidden %d, inner %d, %d layers, vocabulary %d, seq %d, batch %d; %s, %s, recompute %s, %d threads; ratios to %s; other programs kept %.2f cores busy\n",
		s.Hidden, s.Inter, s.Layers, s.Vocab, s.Seq, s.Batch, g.DType, g.Pattern, g.Recompute, g.Threads, ref.name(), g.others())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tstep s\ttokens/s\tspeed\tcpu s\tratio\tpeak MB\tratio\tabove empty MB\tratio\tplanned MB\tfirst step s\t")
	for i := range g.rows {
		fmt.Fprintln(w, g.line(&g.rows[i], ref))
	}
	w.Flush()
	b.WriteString(g.verdict())
	return b.String()
}

func (g *group) line(r, ref *row) string {
	if !r.measured() {
		return r.name() + "\tfailed" + strings.Repeat("\t", 11)
	}
	step, plan := r.middle(Measurement.Step), "-"
	if p := r.middle(planned); p > 0 {
		plan = fmt.Sprintf("%.0f", p/1e6)
	}
	return fmt.Sprintf("%s\t%.3f\t%.0f\t%.2f x\t%.2f\t%.2f\t%.0f\t%.2f\t%.0f\t%.2f\t%s\t%.2f\t", r.name(), step, float64(g.Shape.Batch*g.Shape.Seq)/step,
		1/ratio(r, ref, Measurement.Step), r.middle(Measurement.Worked), ratio(r, ref, Measurement.Worked), r.middle(peak)/1e6, ratio(r, ref, peak), r.middle(above)/1e6, ratio(r, ref, above), plan, r.middle(first))
}

// verdict is one line for each of our exact methods against the peer's fastest, and what the plan was worth.
func (g *group) verdict() string {
	var b strings.Builder
	best := g.exactPeer()
	for i := range g.rows {
		r := &g.rows[i]
		if r.who != whoSplora || !r.measured() {
			continue
		}
		if strings.HasPrefix(r.method, "splora") && best != nil {
			fmt.Fprintf(&b, "%s: %.2f x the speed of %s, %.2f of its peak\n", r.name(), 1/ratio(r, best, Measurement.Step), best.name(), ratio(r, best, peak))
		}
		fmt.Fprintf(&b, "%s: measured %.3f of the plan\n", r.name(), r.middle(func(m Measurement) float64 { return above(m) / planned(m) }))
	}
	return b.String()
}
