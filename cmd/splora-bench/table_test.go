package main

import (
	"math"
	"strings"
	"testing"
)

func at(step float64, peak, empty int64) *Measurement {
	return &Measurement{Steps: []float64{step}, Work: []float64{step}, PeakRSS: peak, EmptyRSS: empty}
}

func TestTheMedianIsTheMiddleOrTheMeanOfTheTwoMiddleOnes(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{[]float64{5}, 5}, {[]float64{9, 1, 4}, 4}, {[]float64{8, 1, 2, 4}, 3}} {
		before := append([]float64(nil), c.v...)
		if got := median(c.v); got != c.want || c.v[0] != before[0] {
			t.Errorf("median of %v is %v, want %v, and the order kept: %v", before, got, c.want, c.v)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	a := &row{runs: []*Measurement{at(1, 10, 5), at(4, 30, 5), at(9, 10, 5), nil}}
	b := &row{runs: []*Measurement{at(2, 20, 5), at(2, 20, 5), at(3, 20, 5), at(7, 1, 0)}}
	// Steps: 1/2, 4/2, 9/3 → 2, where the ratio of the medians were 4/2.5.
	if got := ratio(a, b, Measurement.Step); got != 2 {
		t.Errorf("ratio of steps %v, want 2", got)
	}
	// Above empty: 5/15, 25/15, 5/15 → 1/3.
	if got := ratio(a, b, above); !(math.Abs(got-1./3) <= 1e-15) {
		t.Errorf("ratio above empty %v, want 1/3", got)
	}
}

func TestTheTableComparesWithPEFTAndWithTheFastestExactPeer(t *testing.T) {
	g := newGroup(setting{shape{Hidden: 64, Seq: 10, Batch: 2}, "none", 2, "float32", "2:4"}, []string{"splora"}, []string{"lora", "splora-naive", "splora-recompute"})
	m := at(0.5, 40e6, 20e6)
	m.Planned, m.First, m.Making = 16e6, 0.75, 0.25
	for i, r := range []*Measurement{m, at(1, 100e6, 60e6), at(4, 300e6, 60e6), at(2, 160e6, 60e6)} {
		g.rows[i].runs = []*Measurement{r}
	}
	text := g.String()
	for _, want := range [][]string{
		{"splora", "splora", "0.500", "40", "2.00", "x", "0.50", "0.50", "40", "0.40", "20", "0.50", "16", "0.50"},
		{"torch", "splora-naive", "4.000", "5", "0.25", "x", "4.00", "4.00", "300", "3.00", "240", "6.00", "-", "0.00"},
	} {
		if !hasRow(text, want) {
			t.Errorf("no row %v in:\n%s", want, text)
		}
	}
	for _, want := range []string{"ratios to torch lora", "splora splora: 4.00 x the speed of torch splora-recompute, 0.25 of its peak", "measured 1.250 of the plan"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestShapesHaveLLaMAsProportions(t *testing.T) {
	for text, want := range map[string]shape{
		"512x2048": {Hidden: 512, Seq: 2048, Inter: 1376, Heads: 8, Layers: 8, Vocab: 9, Batch: 1},
		"1024x512": {Hidden: 1024, Seq: 512, Inter: 2752, Heads: 16, Layers: 8, Vocab: 9, Batch: 1},
		"4096x256": {Hidden: 4096, Seq: 256, Inter: 11008, Heads: 32, Layers: 8, Vocab: 9, Batch: 1},
	} {
		if got, err := parseShape(text, 8, 9, 1); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", text, got, err, want)
		}
	}
}
