package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/splora/splora/cmd/internal/train"
	"github.com/splora/splora/data"
	"github.com/splora/splora/data/tokenizer"
	"github.com/splora/splora/dist"
	"github.com/splora/splora/launch"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/decoder"
	"github.com/splora/splora/model/family"
)

func newTrain() *cobra.Command {
	cfg, file := train.Defaults(), ""
	c := &cobra.Command{
		Use:   "train",
		Short: "Fine-tune a pruned model with adapters that keep it sparse",
		Long: `train is one rank of a fine-tuning run: alone, it is the whole run; started by splora-launch, it finds the other ranks and
trains with them. Every flag is also a key of the --config file, with underscores; flags win over the file.`,
		Example: `  splora train --model pruned/ --data train.jsonl --out run/ --max-steps 200
  splora-launch --nproc-per-node 2 -- train --config run.yaml --lr 5e-4`,
		Args: noArgs,
	}
	c.Flags().StringVar(&file, "config", "", "YAML file with any of these settings")
	train.Flags(c.Flags(), &cfg)
	completeTrain(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := train.Resolve(c.Flags(), &cfg, file); err != nil {
			return err
		}
		if _, _, err := parseDevice(cfg.Device); err != nil {
			return err
		}
		return runRank(c, cfg)
	}
	return c
}

// runRank is train as this process's rank, its outcome told to the launcher if there is one.
func runRank(c *cobra.Command, cfg train.Config) error {
	place, launched, err := launch.FromEnv(os.Getenv)
	if err != nil {
		return usage{err}
	}
	if !launched {
		place = launch.Contract{LocalSize: 1, WorldMin: 1, WorldMax: 1}
	}
	signals, stop := stopSignals(launched)
	defer stop()
	r := &rank{Config: cfg, place: place, signals: signals, log: newLog(c, cfg.LogFormat, place)}
	defer r.log.Sync()
	defer func() { // the launcher's report names a bug of ours, too
		if p := recover(); p != nil {
			if launched {
				_ = place.Fail(r.number(), r.reached, fmt.Errorf("bug: %v", p), false)
			}
			panic(p)
		}
		r.close()
	}()
	err = r.run(c)
	if ctx := c.Context(); err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = stoppedEarly{}
	}
	if err != nil && !errors.Is(err, train.ErrStopped) && launched {
		err = errors.Join(err, r.tell(err))
	}
	return err
}

// tell the launcher why this rank ends.
func (r *rank) tell(cause error) error {
	var late *dist.Late
	if errors.As(cause, &late) {
		return r.place.Late(late.Generation, cause)
	}
	var lost *dist.Aborted
	return r.place.Fail(r.number(), r.reached, cause, errors.As(cause, &lost) && lost.Unwrap() == nil)
}

// stoppedEarly ends a rank that a signal stopped before its first step, while it read its rows or looked for the others.
type stoppedEarly struct{}

func (stoppedEarly) Error() string {
	return "stopped on a signal before the first step; nothing is lost: run the same command again to go on"
}

// Is says that it is a stop like any other, with its exit code.
func (stoppedEarly) Is(target error) bool { return target == train.ErrStopped }

// rank gathers what one rank needs: its model, its rows, its place among the others.
type rank struct {
	train.Config
	place   launch.Contract
	signals <-chan os.Signal
	log     *zap.Logger
	group   dist.Group
	closers []func() error
	reached int // the last checkpoint's step
}

func (r *rank) run(c *cobra.Command) error {
	folder, err := family.Open(r.Model)
	if err != nil {
		return err
	}
	tok, err := openTokenizer(r.Model, folder)
	if err != nil {
		return err
	}
	if err := r.fitSeq(folder); err != nil {
		return err
	}
	program := train.Program()
	stream, err := r.stream(folder, program)
	if err != nil {
		return err
	}
	id, err := folder.Hash()
	if err != nil {
		return err
	}
	env := train.Env{Arch: folder.Config, Tok: words(tok), ModelID: id, Process: program, LocalRanks: r.place.LocalSize, Signals: r.signals, Log: r.log, Err: c.ErrOrStderr(), Reached: r.progress}
	if err := r.openRows(c.Context(), &env, folder, tok); err != nil {
		return err
	}
	weights, err := folder.Load()
	if err != nil {
		return err
	}
	r.closers = append(r.closers, folder.Close)
	env.Weights, env.Mapped = weights, folder.Mapped(weights)
	if r.place.LocalRank == 0 {
		for _, n := range folder.Notes {
			r.log.Info(n)
		}
	}
	be, err := openDevice(r.Device, r.place.Job == "" || r.place.GPU != "", r.Threads, r.Memory == "fused", func(s string) { r.log.Info(s) })
	if err != nil {
		return err
	}
	r.closers = append(r.closers, be.Close)
	if err := checkStreamed(r.Config, folder.Packed, be.gpu != nil); err != nil {
		return err
	}
	env.Backend, env.Health = be.Backend, r.health(be)
	if stream && be.gpu == nil {
		env.Weights, env.Block = folder.Weights(weights), family.Largest(weights)
		r.log.Info("the packed model is streamed: its linears are read block by block, twice a step", zap.Int("bytes", env.Mapped), zap.Int("block_bytes", env.Block))
	}
	if r.Transport == "nccl" && be.gpu == nil {
		return usagef("train: --transport nccl is between GPUs, and this rank computes on %s; use --transport tcp", be.Name())
	}
	env.OnDevice = be.gpu != nil && r.Transport != "tcp"
	if env.Group, err = r.join(c.Context(), env, be.gpu); err != nil {
		return err
	}
	r.log = r.log.With(zap.Int("rank", env.Group.Rank()), zap.Int("generation", env.Group.Generation()))
	env.Log, env.Job = r.log, r.place.Job
	env.Restarted = r.place.Attempt > 1 || env.Group.Generation() > 1
	group := env.Group // env is not kept: its weights may have moved to a device
	err = train.Run(context.WithoutCancel(c.Context()), r.Config, env)
	if err != nil && !errors.Is(err, train.ErrStopped) {
		group.Abort(err)
	}
	return err
}

// stream has the folder streamed if --base says so, or if this host's memory would not hold its ranks otherwise.
func (r *rank) stream(folder *family.Folder, program int) (bool, error) {
	if err := checkStreamed(r.Config, folder.Packed, false); err != nil {
		return false, err
	}
	if !folder.Packed || r.Base == "resident" {
		return false, nil
	}
	sketch, err := folder.Sketch()
	if err != nil {
		return false, err
	}
	lc, err := r.LoRA()
	if err != nil {
		return false, err
	}
	if err := train.CheckRows(r.Options(r.Seq)); err != nil {
		return false, fmt.Errorf("train: %w", err)
	}
	p, err := decoder.Estimate(nil, folder.Config, sketch, &lc, true, r.Options(r.Seq))
	if err != nil {
		return false, err
	}
	f := train.Measure(sketch, folder.Config, p)
	f.Mapped, f.Process = folder.Mapped(sketch), program
	if !streams(r.Base, f, r.place.LocalSize) {
		return false, nil
	}
	folder.Stream()
	return true, nil
}

// fitSeq sets the row length's default and refuses what the model has no positions for.
func (r *rank) fitSeq(f *family.Folder) error {
	if r.Seq == 0 {
		r.Seq = min(2048, f.Config.MaxPositions)
	}
	if r.Seq > f.Config.MaxPositions {
		return tooManyPositions("train", r.Config, f.Config.MaxPositions)
	}
	return nil
}

func tooManyPositions(command string, c train.Config, most int) error {
	return usagef("%s: --seq %d: %s takes rows of at most %d tokens (max_position_embeddings): give --seq %d or less", command, c.Seq, c.Model, most, most)
}

// openRows tokenises and packs the data once per host, or finds that done.
func (r *rank) openRows(ctx context.Context, env *train.Env, f *family.Folder, tok *tokenizer.Tokenizer) error {
	dir := r.CacheDir
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = os.TempDir()
		}
		dir = filepath.Join(base, "splora", "rows")
	}
	hash, err := tokenizer.Hash(r.Model)
	if err != nil {
		return err
	}
	said := time.Now()
	progress := func(rows int) {
		if time.Since(said) > 2*time.Second {
			said = time.Now()
			r.log.Info("reading and tokenising", zap.Int("rows", rows))
		}
	}
	open := func(files train.List) (*data.Set, error) {
		set, err := data.Open(ctx, data.Config{Files: files, Seq: r.Seq, TooLong: data.TooLong(r.TooLong), Packing: r.Packing,
			TrainOnPrompt: r.TrainOnPrompt, VocabSize: f.Config.Vocab, TokenizerHash: hash, CacheDir: dir, Progress: progress}, words(tok))
		if err == nil {
			r.closers = append(r.closers, set.Close)
		}
		return set, err
	}
	if env.Rows, err = open(r.Data); err != nil {
		return err
	}
	env.DataID = env.Rows.Key()
	if len(r.EvalData) > 0 {
		env.Eval, err = open(r.EvalData)
	}
	return err
}

// join finds the other ranks. All must have the same model, rows and settings.
func (r *rank) join(ctx context.Context, env train.Env, gpu *cuda.Backend) (dist.Group, error) {
	p := r.place
	if p.WorldMax == 1 && p.Job == "" { // no launcher
		return dist.Solo(), nil
	}
	same := r.Fingerprint()
	same["model"], same["data"] = env.ModelID, env.DataID
	if env.Eval != nil {
		same["eval data"] = env.Eval.Key()
	}
	var device *dist.NCCL
	if env.OnDevice {
		device = &dist.NCCL{Stream: gpu.Stream(), Done: gpu.Done, Die: r.die}
	}
	g, err := dist.Join(ctx, dist.Config{
		NCCL: device,
		Job:  p.Job, Key: p.Key, Bind: p.Bind, GossipPort: p.GossipPort, Seeds: p.Seeds, Generation: p.Generation,
		NodeRank: p.NodeRank, LocalRank: p.LocalRank, LocalSize: p.LocalSize, WorldMin: p.WorldMin, WorldMax: p.WorldMax,
		Previous:    train.LastWorld(r.Out, p.Job),
		Fingerprint: same,
		Timeout:     time.Duration(r.JoinTimeout) * time.Second,
		Logger:      structured{r.log.Sugar()},
	})
	if err == nil {
		r.group = g
		r.closers = append(r.closers, g.Close)
	}
	return g, err
}

// die ends the process when NCCL does not let go of the GPU: nothing else would. The launcher is told why, as ever.
func (r *rank) die(cause error) {
	fmt.Fprintln(os.Stderr, "splora: train:", errors.Join(cause, r.tell(cause)))
	os.Exit(exitFailed)
}

func (r *rank) number() int {
	if r.group == nil {
		return r.place.Rank
	}
	return r.group.Rank()
}

// progress tells the launcher how far the run is safe.
func (r *rank) progress(step int) {
	r.reached = step
	if err := r.place.Progress(r.number(), step); err != nil {
		r.log.Warn("the launcher is not told of the progress", zap.Error(err))
	}
}

func (r *rank) close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		if err := r.closers[i](); err != nil {
			r.log.Debug("closing", zap.Error(err))
		}
	}
}

// openTokenizer reads the model's tokenizer and checks that the model knows all its ids. A folder without one gives nil: it
// can do everything with rows of ids.
func openTokenizer(dir string, f *family.Folder) (*tokenizer.Tokenizer, error) {
	if !holds(dir, "tokenizer.json") && !holds(dir, "tokenizer.model") {
		return nil, nil
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, err
	}
	if tok.VocabSize() > f.Config.Vocab {
		return nil, fmt.Errorf("%s: the tokenizer has %d ids, the model's vocab_size is %d: the tokenizer belongs to another model", dir, tok.VocabSize(), f.Config.Vocab)
	}
	return tok, nil
}

func holds(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// words is a tokenizer as package data takes it: none is nil.
func words(tok *tokenizer.Tokenizer) data.Tokenizer {
	if tok == nil {
		return nil
	}
	return tok
}

// newLog is the structured log on stderr: text for people or JSON, with the rank's place in each record.
func newLog(c *cobra.Command, format string, p launch.Contract) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	var e zapcore.Encoder = zapcore.NewJSONEncoder(enc)
	if format == "text" {
		enc.TimeKey, enc.CallerKey = "", ""
		enc.EncodeLevel = zapcore.LowercaseLevelEncoder
		e = zapcore.NewConsoleEncoder(enc)
	}
	l := zap.New(zapcore.NewCore(e, zapcore.Lock(zapcore.AddSync(c.ErrOrStderr())), zap.InfoLevel))
	if p.Job != "" {
		l = l.With(zap.String("job", p.Job), zap.Int("local_rank", p.LocalRank))
	}
	return l
}

// structured is a zap logger as dist wants one. Its records have the job already.
type structured struct{ *zap.SugaredLogger }

func (s structured) Debug(msg string, args ...any) { s.Debugw(msg, jobless(args)...) }
func (s structured) Info(msg string, args ...any)  { s.Infow(msg, jobless(args)...) }
func (s structured) Warn(msg string, args ...any)  { s.Warnw(msg, jobless(args)...) }

func jobless(args []any) []any {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "job" {
			return slices.Delete(slices.Clone(args), i, i+2)
		}
	}
	return args
}
