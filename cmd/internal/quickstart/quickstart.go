// Package quickstart is the main job on a small model that comes with the program: prune it, fine-tune it on two ranks, merge,
// prove that every pruned weight is still zero, and say what it was worth.
//
// The story is told by the commands themselves: each step runs this program as a user would, and prints how.
package quickstart

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/splora/splora/launch"
)

//go:embed model/config.json model/generation_config.json model/model.safetensors model/split.json model/tokenizer.json model/tokenizer_config.json
var model embed.FS

// Config of the story.
type Config struct {
	Out    string // folder for everything; must not exist or be empty
	Ranks  int    // ranks of each training
	Self   string // this program
	Stdout io.Writer
	Stderr io.Writer
}

// Result is what came out, as OUT/quickstart.json has it.
type Result struct {
	DensePPL   float64 `json:"ppl_dense"`
	PrunedPPL  float64 `json:"ppl_pruned"`
	SPLoRAPPL  float64 `json:"ppl_splora"`         // merged, sparse
	LoRAPPL    float64 `json:"ppl_lora"`           // plain LoRA on the pruned model, merged, dense
	ControlPPL float64 `json:"ppl_dense_lora"`     // plain LoRA on the dense model
	Closed     float64 `json:"gap_closed"`         // (pruned − splora) / (pruned − dense)
	ClosedBy   float64 `json:"gap_closed_by_lora"` // the same for plain LoRA

	PrunedWeights int     `json:"pruned_weights"`
	Extra         int     `json:"pruned_weights_not_zero"`
	Density       float64 `json:"density"`
	DensityLoRA   float64 `json:"density_lora"`
	TokensPerS    float64 `json:"tokens_per_s"` // both ranks together, median step
	PeakRSSBytes  int64   `json:"peak_rss_bytes"`
	CommBytes     int64   `json:"comm_bytes_per_step"`
	TrainS        float64 `json:"train_s"`
	Seconds       float64 `json:"seconds"`
	Merged        string  `json:"merged"`
	Promises      []Claim `json:"promises"`
}

// Claim is a promise of the README with what was seen.
type Claim struct {
	Claim string `json:"claim"`
	Seen  string `json:"seen"`
	Kept  bool   `json:"kept"`
}

// The recipe, the same for all three trainings.
var recipe = []string{
	"--seq", "256", "--packing", "--too-long", "split", "--micro-batch", "2", "--global-batch", "4", "--max-steps", "160",
	"--rank", "16", "--alpha", "32", "--lr", "3e-3", "--warmup-steps", "8", "--schedule", "cosine", "--recompute", "none", "--seed", "1",
}

// story is one run.
type story struct {
	Config
	ctx context.Context
	Result
	chapter int
}

// Run tells the story. It fails when a step fails, and when a promise is not kept.
func Run(ctx context.Context, c Config) error {
	began := time.Now()
	s := &story{Config: c, ctx: ctx}
	for _, step := range []func() error{s.prepare, s.prune, s.tune, s.merge, s.controls} {
		if err := step(); err != nil {
			return err
		}
	}
	s.Seconds = time.Since(began).Seconds()
	return s.conclude()
}

func (s *story) path(name string) string { return filepath.Join(s.Out, name) }

// prepare writes the model and the texts.
func (s *story) prepare() error {
	if list, err := os.ReadDir(s.Out); err == nil && len(list) > 0 {
		return fmt.Errorf("quickstart: %s is not empty; choose another --out or remove it", s.Out)
	}
	if err := WriteModel(s.path("dense")); err != nil {
		return err
	}
	sp, err := readSplit()
	if err != nil {
		return err
	}
	s.title("A small LLaMA, trained on the Go standard library; %d packages of it were held out", len(sp.HeldOut))
	if err := sp.writeTexts(s.path("held-out.txt"), s.path("train.jsonl")); err != nil {
		return err
	}
	s.DensePPL, err = s.perplexity("dense", "")
	return err
}

// WriteModel writes the shipped model, dense, into a folder, which it makes.
func WriteModel(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	files, err := model.ReadDir("model")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := model.ReadFile("model/" + f.Name())
		if err != nil {
			return err
		}
		if f.Name() == "split.json" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), b, 0o644); err != nil {
			return fmt.Errorf("quickstart: %w", err)
		}
	}
	return nil
}

func (s *story) prune() (err error) {
	s.title("Prune it: of every 4 consecutive weights the 2 with the lowest Wanda score go")
	if _, err = s.splora("prune", "--model", s.path("dense"), "--out", s.path("pruned"), "--pattern", "2:4", "--calibration", s.path("train.jsonl"),
		"--calibration-samples", "64", "--calibration-seq", "256"); err != nil {
		return err
	}
	s.PrunedPPL, err = s.perplexity("pruned", "")
	return err
}

func (s *story) tune() error {
	s.title("Fine-tune it with SP-LoRA on %d ranks", s.Ranks)
	began := time.Now()
	if err := s.train("splora", "pruned", "run-splora", true); err != nil {
		return err
	}
	s.TrainS = time.Since(began).Seconds()
	return s.readMetrics(s.path("run-splora/metrics.jsonl"))
}

func (s *story) merge() (err error) {
	s.title("Merge the adapter, and prove that every pruned weight is still exactly zero")
	if _, err = s.splora("merge", "--model", s.path("pruned"), "--adapter", s.path("run-splora"), "--out", s.path("merged")); err != nil {
		return err
	}
	v, err := s.verify("merged")
	if err != nil {
		return err
	}
	s.PrunedWeights, s.Extra, s.Density = v.Pruned, v.Extra, v.Density
	s.SPLoRAPPL, err = s.perplexity("merged", "")
	return err
}

// controls are what the result must be held against: plain LoRA on the pruned model, and more training of the dense one.
func (s *story) controls() error {
	s.title("The same budget for plain LoRA, which fills the zeros in")
	if err := s.train("lora", "pruned", "run-lora", false); err != nil {
		return err
	}
	if _, err := s.splora("merge", "--model", s.path("pruned"), "--adapter", s.path("run-lora"), "--out", s.path("merged-lora")); err != nil {
		return err
	}
	v, err := s.verify("merged-lora")
	if err != nil {
		return err
	}
	s.DensityLoRA = v.Density
	if s.LoRAPPL, err = s.perplexity("merged-lora", ""); err != nil {
		return err
	}
	s.title("The same budget for the dense model: how much is recovery, how much is more training?")
	if err := s.train("lora", "dense", "run-dense", false); err != nil {
		return err
	}
	s.ControlPPL, err = s.perplexity("dense", "run-dense")
	return err
}

// splora runs a command of this program and gives its stdout.
func (s *story) splora(args ...string) ([]byte, error) {
	fmt.Fprintf(s.Stdout, "$ splora %s\n", strings.Join(args, " "))
	var out, errs bytes.Buffer
	c := exec.CommandContext(s.ctx, s.Self, args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("quickstart: splora %s: %w\n%s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}

func (s *story) perplexity(name, adapter string) (float64, error) {
	args := []string{"eval", "--json", "--data", s.path("held-out.txt"), "--seq", "512", "--model", s.path(name)}
	if adapter != "" {
		args = append(args, "--adapter", s.path(adapter))
	}
	out, err := s.splora(args...)
	if err != nil {
		return 0, err
	}
	var p struct{ PPL float64 }
	if err := json.Unmarshal(out, &p); err != nil {
		return 0, fmt.Errorf("quickstart: eval: %w", err)
	}
	fmt.Fprintf(s.Stdout, "  perplexity on the held-out packages: %.3f\n", p.PPL)
	return p.PPL, nil
}

type verification struct {
	Pruned, Extra int
	Density       float64
}

// verify compares a merged model with its pruned base. Pruned weights that are no longer zero are counted, which is the point;
// any other difference is an error.
func (s *story) verify(name string) (v verification, err error) {
	out, failed := s.splora("verify", "--json", "--base", s.path("pruned"), "--merged", s.path(name))
	if err := json.Unmarshal(out, &v); err != nil {
		return v, errors.Join(failed, err)
	}
	if failed != nil && v.Extra == 0 {
		return v, failed
	}
	fmt.Fprintf(s.Stdout, "  %d of %d pruned weights are no longer zero; density %.2f %%\n", v.Extra, v.Pruned, 100*v.Density)
	return v, nil
}

// train runs the recipe as ranks of this program.
func (s *story) train(method, base, run string, whole bool) error {
	args := append([]string{"train", "--method", method, "--model", s.path(base), "--data", s.path("train.jsonl"), "--out", s.path(run)}, recipe...)
	args = append(args, "--cache-dir", s.path("cache"))
	fmt.Fprintf(s.Stdout, "$ splora-launch --nproc-per-node %d -- %s\n", s.Ranks, strings.Join(args, " "))
	show := &lines{w: s.Stderr, keep: func(l string) bool { return whole || strings.Contains(l, "step ") }}
	report, err := launch.Run(s.ctx, launch.Config{Program: s.Self, Args: args, NProc: s.Ranks, Stdout: io.Discard, Stderr: show,
		LogDir: s.path(run + "-logs"), Grace: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("quickstart: %w: %s", err, report.Reason)
	}
	return nil
}

// readMetrics takes the speed and the memory from a run's metrics.
func (s *story) readMetrics(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	var speed []float64
	for line := range bytes.Lines(b) {
		var r struct {
			TokensPerS   float64 `json:"tokens_per_s"`
			PeakRSSBytes int64   `json:"peak_rss_bytes"`
			CommBytes    int64   `json:"comm_bytes"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("quickstart: %s: %w", path, err)
		}
		speed = append(speed, r.TokensPerS)
		s.PeakRSSBytes, s.CommBytes = max(s.PeakRSSBytes, r.PeakRSSBytes), r.CommBytes
	}
	s.TokensPerS = median(speed)
	return nil
}

func (s *story) title(format string, args ...any) {
	s.chapter++
	fmt.Fprintf(s.Stdout, "\n%s. %s\n\n", strconv.Itoa(s.chapter), fmt.Sprintf(format, args...))
}
