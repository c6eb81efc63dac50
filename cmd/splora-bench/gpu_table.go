package main

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
)

// gpuTable is the measurements of one setting.
type gpuTable struct {
	setting  gpuSetting
	runs     []gpuRecord
	recorded int
}

func (t *gpuTable) add(r gpuRecord) { t.runs = append(t.runs, r) }

// record writes what was added since it was last called.
func (t *gpuTable) record(rec *recorder) error {
	for ; t.recorded < len(t.runs); t.recorded++ {
		if err := rec.write(t.runs[t.recorded]); err != nil {
			return err
		}
	}
	return nil
}

// failed is the first failure of who's measurements.
func (t *gpuTable) failed(who string) error {
	for _, r := range t.runs {
		if r.Who == who && r.Error != "" {
			return fmt.Errorf("%s %s: %s", r.Who, r.Method, r.Error)
		}
	}
	return nil
}

// methods are the distinct rows in the order of their first measurement.
func (t *gpuTable) methods() (names [][2]string) {
	seen := map[[2]string]bool{}
	for _, r := range t.runs {
		if k := [2]string{r.Who, r.Method}; !seen[k] {
			seen[k], names = true, append(names, k)
		}
	}
	return names
}

// middle is the median over the rounds; NaN where nothing was measured.
func (t *gpuTable) middle(name [2]string, of func(*GPUMeasurement) float64) float64 {
	var v []float64
	for _, r := range t.runs {
		if r.GPUMeasurement != nil && name == [2]string{r.Who, r.Method} {
			v = append(v, of(r.GPUMeasurement))
		}
	}
	return median(v)
}

func gpuStepTime(m *GPUMeasurement) float64 { return m.Step() }
func gpuUsed(m *GPUMeasurement) float64     { return float64(m.Used) }
func gpuPlanned(m *GPUMeasurement) float64  { return float64(m.Planned) }

// best is the shortest step among the peer's methods with a prefix.
func (t *gpuTable) best(prefix string) (name [2]string, step float64) {
	step = math.NaN()
	for _, n := range t.methods() {
		if s := t.middle(n, gpuStepTime); n[0] == whoTorch && strings.HasPrefix(n[1], prefix) && !(s >= step) && !math.IsNaN(s) {
			name, step = n, s
		}
	}
	return name, step
}

// product is the measured rate of a large bfloat16 product, in FLOP/s, and N.
func (t *gpuTable) product() (rate, linears float64) {
	for _, r := range t.runs {
		if m := r.GPUMeasurement; m != nil {
			rate, linears = max(rate, m.Product), max(linears, float64(m.Linears))
		}
	}
	return rate, linears
}

// String is the table: speeds and memory beside the peer's fastest LoRA and fastest exact SP-LoRA, and the use of the device at 6·N.
func (t *gpuTable) String() string {
	var b strings.Builder
	s := t.setting
	rate, linears := t.product()
	lora, loraStep := t.best("lora")
	exact, exactStep := t.best("splora")
	loraUsed := t.middle(lora, gpuUsed)
	fmt.Fprintf(&b, "%s, seq %d, batch %d, recompute %s; the device's bfloat16 product: %.0f TFLOP/s; ratios to torch %s and torch %s\n", s.Shape, s.Seq, s.Batch, s.Recompute, rate/1e12, lora[1], exact[1])
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tstep s\ttokens/s\tof product at 6N\tspeed to lora\tto SP-LoRA\tGB\tto lora's\tto plan\t")
	for _, n := range t.methods() {
		step, used := t.middle(n, gpuStepTime), t.middle(n, gpuUsed)
		if math.IsNaN(step) {
			fmt.Fprintf(w, "%s %s\tfailed\t\t\t\t\t\t\t\t\n", n[0], n[1])
			continue
		}
		tokens := float64(s.Seq*s.Batch) / step
		plan := "-"
		if p := t.middle(n, gpuPlanned); p > 0 {
			plan = fmt.Sprintf("%.3f", used/p)
		}
		fmt.Fprintf(w, "%s %s\t%.4f\t%.0f\t%.1f %%\t%.2f x\t%.2f x\t%.2f\t%.2f\t%s\t\n", n[0], n[1], step, tokens, 100*6*linears*tokens/rate, loraStep/step, exactStep/step, used/1e9, used/loraUsed, plan)
	}
	w.Flush()
	b.WriteString(t.ops())
	return b.String()
}

// ops is where the profiled steps' device time went.
func (t *gpuTable) ops() string {
	var b strings.Builder
	for _, r := range t.runs {
		if r.GPUMeasurement == nil || len(r.Ops) == 0 {
			continue
		}
		var all float64
		for _, o := range r.Ops {
			all += o.Seconds
		}
		fmt.Fprintf(&b, "device time of a step of %s %s: %.4f s\n", r.Who, r.Method, all)
		for _, o := range r.Ops {
			fmt.Fprintf(&b, "  %-22s %6d calls %9.4f s %5.1f %%\n", o.Op, o.Calls, o.Seconds, 100*o.Seconds/all)
		}
	}
	return b.String()
}
