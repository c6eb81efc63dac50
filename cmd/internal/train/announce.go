package train

import (
	"bytes"
	"fmt"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/goccy/go-yaml"
	"go.uber.org/zap"

	"github.com/splora/splora/data"
)

// announce is what a user wants to see before the first step.
func (t *trainer) announce() error {
	path := filepath.Join(t.Out, configFile)
	if err := publishFile(path, t.Config.YAML()); err != nil {
		return err
	}
	var row bytes.Buffer
	data.Preview(&row, t.Rows.Row(t.order.GlobalBatch(t.state.Step, t.state.GlobalBatch)[0]), t.Tok, false)
	memory := t.footprint()
	var err error
	if memory.Device, err = t.onDevice(); err != nil {
		return err
	}
	if t.LogFormat == "json" {
		return t.announceJSON(row.String(), memory)
	}
	w, st, b := t.Err, t.Rows.Stats(), t.state.GlobalBatch
	first := ""
	if st.Dropped > 0 {
		first = " (the first: " + st.FirstDropped + ")"
	}
	fmt.Fprintf(w, "configuration, as saved in %s:\n%s\n", path, wrap(string(t.Config.YAML())))
	fmt.Fprintf(w, "data: %s rows of at most %d tokens from %s; %s tokens, %s trained; %d truncated, %d split, %d dropped%s\n", humanize.Comma(int64(t.Rows.Len())),
		t.Rows.Longest(), t.Data.String(), humanize.Comma(st.Tokens), humanize.Comma(st.Trained), st.Truncated, st.Split, st.Dropped, first)
	fmt.Fprintf(w, "first row, the trained tokens marked:\n%s%s\n", row.String(), memory)
	fmt.Fprintf(w, "run: %s of %s on %s (generation %d, %s), %s trained values, %.2f epochs; backend %s\n",
		english.Plural(t.state.TotalSteps, "step", ""), english.Plural(b, "row", ""), english.Plural(t.Group.Size(), "rank", ""), t.Group.Generation(),
		time.Now().Format(time.DateTime), humanize.Comma(int64(t.ad.Len())), t.order.Epoch(t.state.TotalSteps, b), t.be.Name())
	return nil
}

// footprint is the plan of this rank.
func (t *trainer) footprint() Footprint {
	f := Measure(t.Weights, t.Arch, t.model.Plan)
	f.Mapped, f.Process, f.Rows = t.Mapped, t.Process, t.Rows.Bytes()
	if t.Eval != nil {
		f.Rows += t.Eval.Bytes()
	}
	return f.Streamed(t.Block, t.Weights, t.Arch)
}

// announceJSON is the same as log records.
func (t *trainer) announceJSON(row string, memory Footprint) error {
	var settings map[string]any
	if err := yaml.Unmarshal(t.Config.YAML(), &settings); err != nil {
		return err
	}
	t.Log.Info("configuration", zap.Any("config", settings))
	t.Log.Info("data", zap.Int("rows", t.Rows.Len()), zap.Int("longest", t.Rows.Longest()), zap.Any("stats", t.Rows.Stats()), zap.String("first_row", row))
	t.Log.Info("memory", zap.Reflect("memory", memory), zap.Int("total_bytes", memory.Total()))
	t.Log.Info("run", zap.Int("steps", t.state.TotalSteps), zap.Int("global_batch", t.state.GlobalBatch), zap.Int("world", t.Group.Size()),
		zap.Int("trained_values", t.ad.Len()), zap.Float64("epochs", t.order.Epoch(t.state.TotalSteps, t.state.GlobalBatch)), zap.String("backend", t.be.Name()))
	return nil
}

// say shows one thing that is not a step.
func (t *trainer) say(format string, args ...any) {
	if t.LogFormat == "json" {
		t.Log.Info(fmt.Sprintf(format, args...))
		return
	}
	fmt.Fprintf(t.Err, format+"\n", args...)
}
