package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/splora/splora/model/safetensors"
)

// A checkpoint is a folder OUT/checkpoint-N:
//
//	adapter_model.safetensors, adapter_config.json   the adapters, as PEFT names them
//	optimizer.safetensors                            AdamW's m and v, one tensor per A and B
//	config.yaml                                      the run's configuration
//	state.json                                       State; written last, with the sha256 of the other files
//
// It is written aside, made durable, renamed, and only then named in OUT/latest. Everything random is a function of
// (seed, step, row), and the data position is Step·GlobalBatch, so there is no generator state to save beside them.
const (
	stateFile     = "state.json"
	optimizerFile = "optimizer.safetensors"
	configFile    = "config.yaml"
	latestFile    = "latest"
	metricsFile   = "metrics.jsonl"
	stateFormat   = 1
)

// State is where a run stands after Step steps.
type State struct {
	Format      int               `json:"format"`
	Step        int               `json:"step"`
	TotalSteps  int               `json:"total_steps"`
	GlobalBatch int               `json:"global_batch"`
	Row         int64             `json:"row"` // of the concatenated epochs: the first one not yet trained
	Tokens      int64             `json:"tokens"`
	World       int               `json:"world"`
	Job         string            `json:"job,omitempty"`
	Best        *float64          `json:"best_eval_loss,omitempty"`
	BestStep    int               `json:"best_step,omitempty"`
	SinceBest   int               `json:"evaluations_since_best,omitempty"`
	Model       string            `json:"model"` // identity of the base model's content
	Data        string            `json:"data"`  // identity of the rows
	Eval        string            `json:"eval,omitempty"`
	Settings    map[string]string `json:"settings"`
	Files       map[string]string `json:"files"` // sha256 of the other files
}

// settings are the values that a resumed run must share with the one that it goes on from, by their keys.
func (c *Config) settings() map[string]string {
	out := map[string]string{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("resume") == "same" {
			out[f.Tag.Get("yaml")] = fmt.Sprint(v.Field(i).Interface())
		}
	}
	return out
}

// mayFollow reports why a run cannot go on from s, by the name of what differs.
func (s *State) mayFollow(now State) error {
	switch {
	case s.Model != now.Model:
		return errors.New("it was trained on another model (the folder's content differs); give that --model, or --resume none and another --out")
	case s.Data != now.Data:
		return errors.New("it was trained on other rows (--data, the tokenizer or how rows are cut differ); give the same, or --resume none and another --out")
	case s.GlobalBatch != now.GlobalBatch:
		return fmt.Errorf("--global-batch was %d and now is %d: the order of the rows would change; give --global-batch %d", s.GlobalBatch, now.GlobalBatch, s.GlobalBatch)
	}
	keys := make([]string, 0, len(now.Settings))
	for k := range now.Settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if was, is := s.Settings[k], now.Settings[k]; was != is {
			return fmt.Errorf("--%s was %s and now is %s: that would be another run; give the old value, or --resume none and another --out", strings.ReplaceAll(k, "_", "-"), was, is)
		}
	}
	if s.TotalSteps == now.TotalSteps {
		return nil
	}
	if is := now.Settings["schedule"]; is != "constant" {
		return fmt.Errorf("the run had %d steps and now has %d: the %s schedule would change; give --max-steps %d, or --schedule constant from the start", s.TotalSteps, now.TotalSteps, is, s.TotalSteps)
	}
	if is := now.Settings["warmup_ratio"]; is != "0" {
		return fmt.Errorf("the run had %d steps and now has %d: --warmup-ratio %s would give another warm-up; give --max-steps %d, or --warmup-steps from the start", s.TotalSteps, now.TotalSteps, is, s.TotalSteps)
	}
	if s.Step > now.TotalSteps {
		return fmt.Errorf("it stands after step %d, beyond the %d steps of this run; give a larger --max-steps, or an earlier checkpoint to --resume", s.Step, now.TotalSteps)
	}
	return nil
}

// follow is s as the beginning of the run now. A best loss on other evaluation rows means nothing.
func (s State) follow(now State) State {
	s.TotalSteps, s.World, s.Job, s.Settings = now.TotalSteps, now.World, now.Job, now.Settings
	if now.Eval != "" && now.Eval != s.Eval {
		s.Eval, s.Best, s.BestStep, s.SinceBest = now.Eval, nil, 0, 0
	}
	return s
}

// write makes the state file of a checkpoint folder whose other files are complete.
func (s State) write(dir string) error {
	s.Format, s.Files = stateFormat, map[string]string{}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if s.Files[e.Name()], err = sha256File(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return safetensors.WriteFile(filepath.Join(dir, stateFile), append(b, '\n'))
}

// readState reads a checkpoint folder's state and checks that every file is as it was written.
func readState(dir string) (State, error) {
	var s State
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return s, fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("checkpoint %s: %s: %w", dir, stateFile, err)
	}
	if s.Format != stateFormat {
		return s, fmt.Errorf("checkpoint %s: format %d, this program reads %d", dir, s.Format, stateFormat)
	}
	if n, ok := strings.CutPrefix(filepath.Base(dir), "checkpoint-"); ok && n != strconv.Itoa(s.Step) ||
		s.Step < 0 || s.Step > s.TotalSteps || s.GlobalBatch < 1 || s.Row < 0 || s.Files[optimizerFile] == "" {
		return s, fmt.Errorf("checkpoint %s: %s is damaged: step %d of %d, %d rows a step, next row %d, %d files", dir, stateFile, s.Step, s.TotalSteps, s.GlobalBatch, s.Row, len(s.Files))
	}
	for name, want := range s.Files {
		got, err := sha256File(filepath.Join(dir, name))
		if err != nil {
			return s, fmt.Errorf("checkpoint %s: %w", dir, err)
		}
		if got != want {
			return s, fmt.Errorf("checkpoint %s: %s is damaged: its sha256 is not the one written in %s", dir, name, stateFile)
		}
	}
	return s, nil
}

func sha256File(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkpoints are the steps of the checkpoint folders in out, ascending.
func checkpoints(out string) ([]int, error) {
	list, err := os.ReadDir(out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var steps []int
	for _, e := range list {
		if n, ok := strings.CutPrefix(e.Name(), "checkpoint-"); ok && e.IsDir() {
			if step, err := strconv.Atoi(n); err == nil && step >= 0 && strconv.Itoa(step) == n {
				steps = append(steps, step)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

func checkpointDir(out string, step int) string {
	return filepath.Join(out, fmt.Sprintf("checkpoint-%d", step))
}

// findCheckpoint gives the folder to resume from, "" for a fresh start. With "auto" it is the newest whole one: each one
// that stands under its name is complete, so a damaged one is skipped with a warning.
func findCheckpoint(resume, out string, warn func(string)) (string, State, error) {
	switch resume {
	case "none":
		return "", State{}, nil
	case "auto", "":
	default:
		s, err := readState(resume)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("--resume: %w; give auto, none or a folder OUT/checkpoint-N", err)
		}
		return resume, s, err
	}
	steps, err := checkpoints(out)
	if err != nil {
		return "", State{}, fmt.Errorf("--out: %w", err)
	}
	for _, step := range slices.Backward(steps) {
		dir := checkpointDir(out, step)
		s, err := readState(dir)
		if err == nil {
			return dir, s, nil
		}
		warn(err.Error() + "; trying the one before")
	}
	if len(steps) > 0 {
		return "", State{}, fmt.Errorf("none of the %d checkpoints in %s is whole; --resume none and another --out begin anew", len(steps), out)
	}
	return "", State{}, nil
}

// LastWorld is the number of ranks with which a job made its newest checkpoint in out; 0 if it made none that this host sees. A part of
// these ranks that has lost sight of the others must not go on by itself.
func LastWorld(out, job string) int {
	steps, err := checkpoints(out)
	if err != nil || len(steps) == 0 || job == "" {
		return 0
	}
	var s State
	b, err := os.ReadFile(filepath.Join(checkpointDir(out, steps[len(steps)-1]), stateFile))
	if err != nil || json.Unmarshal(b, &s) != nil || s.Job != job {
		return 0
	}
	return s.World
}

// dropOld removes all but the newest keep checkpoints; the one just published is never among the removed.
func dropOld(out string, keep int) error {
	steps, err := checkpoints(out)
	if err != nil || keep == 0 {
		return err
	}
	for _, step := range steps[:max(0, len(steps)-keep)] {
		dir := checkpointDir(out, step)
		// Renamed first: a checkpoint that stands under its name is always whole.
		gone := filepath.Join(out, aside+filepath.Base(dir))
		if err := os.Rename(dir, gone); err != nil {
			return err
		}
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
	}
	return nil
}

// Fingerprint is what all ranks must have set alike, by flag. What is at its default is left out.
func (c *Config) Fingerprint() map[string]string {
	out, d := map[string]string{}, Defaults()
	v, standard := reflect.ValueOf(c).Elem(), reflect.ValueOf(&d).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if is := fmt.Sprint(v.Field(i).Interface()); f.Tag.Get("ranks") != "own" && is != fmt.Sprint(standard.Field(i).Interface()) {
			out["--"+strings.ReplaceAll(f.Tag.Get("yaml"), "_", "-")] = is
		}
	}
	return out
}
