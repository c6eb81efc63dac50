package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/model/family"
)

// TestThePlanIsThePeakOfTheProcess: what splora plan says beforehand is the largest resident set of the process that trains, within
// 5 %, or 3 MB where 5 % are less: that is the garbage which the heap may hold, and need not.
func TestThePlanIsThePeakOfTheProcess(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("only Linux tells a process its peak:", err)
	}
	w := newWorld(t)
	for name, c := range map[string]family.InitConfig{
		"wide": {Config: shape(448, 1200, 2, 2000), Pattern: "2:4", Packed: true},
		"deep": {Config: shape(128, 344, 6, 9000), Pattern: "0.6"},
	} {
		if err := family.Init(t.Context(), w.path(name), c); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		model string
		seq   int
		flags string
	}{
		{"wide", 96, "--memory fused"},
		{"wide", 400, "--memory reuse --recompute none --rank 64"},
		{"wide", 200, "--memory fused --micro-batch 2 --dtype bfloat16"},
		{"deep", 500, "--memory reuse --rank 8"},
		{"deep", 120, "--memory fused --recompute none --method lora"},
	} {
		args := append(strings.Fields(c.flags), "--model", w.path(c.model), "--seq", fmt.Sprint(c.seq), "--threads", "2")
		var said struct {
			Total int `json:"total_bytes"`
			Rows  int `json:"rows_bytes"`
		}
		if err := json.Unmarshal([]byte(ok(t, append([]string{"plan", "--json"}, args...)...).stdout), &said); err != nil {
			t.Fatal(err)
		}
		out := w.path(fmt.Sprint("run", i))
		ok(t, append([]string{"train", "--data", w.rows(t, c.seq), "--out", out, "--cache-dir", w.path("cache"), "--max-steps", "3", "--save-every", "1"}, args...)...)
		records, err := train.ReadMetrics(filepath.Join(out, "metrics.jsonl"))
		if err != nil || len(records) != 3 {
			t.Fatal(records, err)
		}
		peak := float64(records[2].PeakRSSBytes)
		if off := math.Abs(float64(said.Total) - peak); !(off <= 0.05*peak || off <= 3e6) {
			t.Errorf("%s %d %s: plan says %.2f MB, the peak is %.2f MB", c.model, c.seq, c.flags, float64(said.Total)/1e6, peak/1e6)
		} else {
			t.Logf("%s %d %s: plan %.2f MB, peak %.2f MB", c.model, c.seq, c.flags, float64(said.Total)/1e6, peak/1e6)
		}
	}
}

// TestAShortRowIsTrainedInASlotThatHoldsNoDenseWeight: where the longest rows walk every layer the slot is packed, or empty, and rows that
// would go through a dense one do without. The numbers are those of the dense slot.
func TestAShortRowIsTrainedInASlotThatHoldsNoDenseWeight(t *testing.T) {
	w := newWorld(t)
	c := family.InitConfig{Config: shape(192, 384, 2, 600), Pattern: "0.7"}
	if err := family.Init(t.Context(), w.path("pruned"), c); err != nil {
		t.Fatal(err)
	}
	rows := w.write(t, "rows.jsonl", strings.Join([]string{row(t, 0, 90), row(t, 1, 7), row(t, 2, 33), row(t, 3, 2)}, "\n")+"\n")
	var runs [2][]train.Record
	for i, memory := range []string{"reuse", "fused"} {
		args := []string{"--model", w.path("pruned"), "--seq", "90", "--memory", memory, "--threads", "2"}
		var said struct{ Plan struct{ Slot int } }
		if err := json.Unmarshal([]byte(ok(t, append([]string{"plan", "--json"}, args...)...).stdout), &said); err != nil {
			t.Fatal(err)
		}
		if dense := 4 * 192 * 384; memory == "reuse" && said.Plan.Slot != dense || memory == "fused" && said.Plan.Slot >= dense/2 {
			t.Errorf("--memory %s: a slot of %d bytes; a dense weight is %d", memory, said.Plan.Slot, dense)
		}
		out := w.path(memory)
		ok(t, append([]string{"train", "--data", rows, "--out", out, "--cache-dir", w.path("cache"), "--epochs", "1", "--shuffle=false", "--lr", "1e-2", "--schedule", "constant"}, args...)...)
		var err error
		if runs[i], err = train.ReadMetrics(filepath.Join(out, "metrics.jsonl")); err != nil || len(runs[i]) != 4 {
			t.Fatal(runs[i], err)
		}
	}
	for k, want := range runs[0] {
		if got := runs[1][k]; got.Tokens != want.Tokens || !(math.Abs(got.Loss/want.Loss-1) <= 1e-5) || !(math.Abs(got.GradNorm/want.GradNorm-1) <= 1e-3) {
			t.Errorf("step %d: loss %v, norm %v of %d tokens; through the dense slot %v, %v of %d", k+1, got.Loss, got.GradNorm, got.Tokens, want.Loss, want.GradNorm, want.Tokens)
		}
	}
}

// shape is a LLaMA with heads of 64.
func shape(hidden, inter, layers, vocab int) []byte {
	return fmt.Appendf(nil, `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":%d,"intermediate_size":%d,
		"num_hidden_layers":%d,"num_attention_heads":%d,"num_key_value_heads":%d,"vocab_size":%d,"max_position_embeddings":512,"rms_norm_eps":1e-5,
		"rope_theta":10000,"tie_word_embeddings":false}`, hidden, inter, layers, hidden/64, hidden/64, vocab)
}

// rows is a file of a few rows of seq tokens.
func (w world) rows(t *testing.T, seq int) string {
	t.Helper()
	var b strings.Builder
	for r := range 4 {
		b.WriteString(row(t, r, seq) + "\n")
	}
	return w.write(t, fmt.Sprintf("rows%d.jsonl", seq), b.String())
}

// row is a row of n tokens.
func row(t *testing.T, r, n int) string {
	t.Helper()
	ids := make([]int, n)
	for i := range ids {
		ids[i] = (r*31 + i*i*7) % 550
	}
	line, err := json.Marshal(map[string]any{"input_ids": ids, "labels": ids})
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// TestAStreamedModelStandsInMemoryBlockByBlock: the numbers are those of a resident one, and the process stays far below the model's size.
func TestAStreamedModelStandsInMemoryBlockByBlock(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes several times the memory")
	}
	w := newWorld(t)
	if err := family.Init(t.Context(), w.path("deep"), family.InitConfig{Config: shape(512, 1376, 10, 9000), Pattern: "2:4", Packed: true}); err != nil {
		t.Fatal(err)
	}
	type run struct {
		records []train.Record
		said    train.Footprint
		total   int
	}
	runs := map[string]run{}
	for _, base := range []string{"resident", "streamed"} {
		args := []string{"--model", w.path("deep"), "--seq", "70", "--rank", "2", "--memory", "fused", "--targets", "q_proj,v_proj", "--base", base}
		var said struct {
			train.Footprint
			Total int `json:"total_bytes"`
		}
		if err := json.Unmarshal([]byte(ok(t, append([]string{"plan", "--json"}, args...)...).stdout), &said); err != nil {
			t.Fatal(err)
		}
		out := w.path(base)
		ok(t, append([]string{"train", "--data", w.rows(t, 70), "--out", out, "--cache-dir", w.path("cache"), "--max-steps", "2"}, args...)...)
		records, err := train.ReadMetrics(filepath.Join(out, "metrics.jsonl"))
		if err != nil || len(records) != 2 {
			t.Fatal(records, err)
		}
		runs[base] = run{records, said.Footprint, said.Total}
	}
	r, s := runs["resident"], runs["streamed"]
	for i := range r.records {
		if a, b := r.records[i], s.records[i]; a.Loss != b.Loss || a.GradNorm != b.GradNorm {
			t.Errorf("step %d: resident %v, %v, streamed %v, %v", i+1, a.Loss, a.GradNorm, b.Loss, b.GradNorm)
		}
	}
	t.Logf("linears of %.1f MB; resident: plan %.1f, peak %.1f MB; streamed: plan %.1f, peak %.1f MB", float64(s.said.Linears)/1e6,
		float64(r.total)/1e6, float64(r.records[1].PeakRSSBytes)/1e6, float64(s.total)/1e6, float64(s.records[1].PeakRSSBytes)/1e6)
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return // the peaks are not known
	}
	for base, run := range runs {
		peak := float64(run.records[1].PeakRSSBytes)
		if off := math.Abs(float64(run.total) - peak); !(off <= 0.05*peak || off <= 4e6) {
			t.Errorf("%s: plan says %.2f MB, the peak is %.2f MB", base, float64(run.total)/1e6, peak/1e6)
		}
	}
	if saved := float64(r.records[1].PeakRSSBytes - s.records[1].PeakRSSBytes); !(saved > 0.8*float64(s.said.Linears)) {
		t.Errorf("streaming %.1f MB saves %.1f MB", float64(s.said.Linears)/1e6, saved/1e6)
	}
}
