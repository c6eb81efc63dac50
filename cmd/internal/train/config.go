package train

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/splora/splora/model/compute"
)

// Config is a run as the user wrote it: every field is a key of the YAML file and, with dashes, a flag. Zero values are
// not defaults here, because 0 and false are values a user can ask for; Defaults is. Keys tagged resume:"same" must not
// change when a run is resumed; those tagged ranks:"own" may differ from rank to rank.
type Config struct {
	Model    string `yaml:"model" ranks:"own" help:"model folder: Hugging Face or packed"`
	Data     List   `yaml:"data" ranks:"own" help:"training files: .jsonl rows or plain text, comma-separated"`
	Out      string `yaml:"out" ranks:"own" help:"folder for checkpoints, metrics and the final adapter"`
	Adapter  string `yaml:"adapter" ranks:"own" help:"adapter folder to go on from (weights only, a new run)"`
	Resume   string `yaml:"resume" ranks:"own" help:"auto: from the newest checkpoint in --out, if there is one; none: anew; or a checkpoint folder"`
	CacheDir string `yaml:"cache_dir" ranks:"own" help:"folder of the tokenised data cache (default: the user's cache folder)"`

	Method  string  `yaml:"method" resume:"same" help:"splora: exact masked merge, stays sparse; lora: plain LoRA, merges to a dense model"`
	Rank    int     `yaml:"rank" resume:"same" help:"adapter rank r"`
	Alpha   float64 `yaml:"alpha" resume:"same" help:"adapter scale numerator: s = alpha/r (with rslora alpha/sqrt(r))"`
	RSLoRA  bool    `yaml:"rslora" resume:"same" help:"scale by alpha/sqrt(r)"`
	Dropout float64 `yaml:"dropout" resume:"same" help:"dropout on the adapter's input (plain lora only)"`
	Targets List    `yaml:"targets" resume:"same" help:"linears to adapt: all-linear, or names such as q_proj,v_proj"`

	Seq           int     `yaml:"seq" resume:"same" help:"tokens per row, at most (0: the smaller of 2048 and the model's positions)"`
	MicroBatch    int     `yaml:"micro_batch" help:"rows per forward and backward pass"`
	Accum         int     `yaml:"accum" help:"micro-batches per step and rank; the alternative to --global-batch"`
	GlobalBatch   int     `yaml:"global_batch" help:"rows per step over all ranks (0: ranks x accum x micro-batch)"`
	MaxSteps      int     `yaml:"max_steps" help:"optimizer steps (0: as --epochs says)"`
	Epochs        float64 `yaml:"epochs" help:"passes over the data, when --max-steps is 0"`
	LR            float64 `yaml:"lr" resume:"same" help:"peak learning rate"`
	MinLR         float64 `yaml:"min_lr" resume:"same" help:"learning rate at the end of the schedule"`
	Schedule      string  `yaml:"schedule" resume:"same" help:"cosine, linear or constant"`
	WarmupSteps   int     `yaml:"warmup_steps" resume:"same" help:"steps of linear warm-up"`
	WarmupRatio   float64 `yaml:"warmup_ratio" resume:"same" help:"warm-up as a fraction of all steps, when --warmup-steps is 0"`
	WeightDecay   float64 `yaml:"weight_decay" resume:"same" help:"AdamW's decoupled weight decay"`
	Beta1         float64 `yaml:"beta1" resume:"same" help:"AdamW's beta 1"`
	Beta2         float64 `yaml:"beta2" resume:"same" help:"AdamW's beta 2"`
	Eps           float64 `yaml:"eps" resume:"same" help:"AdamW's epsilon"`
	Clip          float64 `yaml:"clip" resume:"same" help:"largest global gradient norm (0: no clipping)"`
	Packing       bool    `yaml:"packing" resume:"same" help:"pack several documents into a row, with a document mask"`
	Shuffle       bool    `yaml:"shuffle" resume:"same" help:"shuffle the rows of each epoch"`
	TrainOnPrompt bool    `yaml:"train_on_prompt" resume:"same" help:"train on prompts, too, not on responses alone"`
	TooLong       string  `yaml:"too_long" resume:"same" help:"rows longer than --seq: truncate, split or error"`
	Seed          uint64  `yaml:"seed" resume:"same" help:"seed of adapters, order and dropout"`

	Recompute string `yaml:"recompute" help:"block: keep block inputs, recompute the rest in backward; none: keep activations"`
	Memory    string `yaml:"memory" help:"auto: layer by layer what this machine is expected to do fastest; reuse: each layer is merged, dense, into the one reused weight slot; fused: its merged weight and its gradient do not stand dense as a whole, where that is faster: they are merged and masked within the products, or the products walk the kept weights only (in bfloat16 without a matrix unit, where the processor multiplies pairs of bfloat16: at 2:4 both products, that with the gradient from 128 tokens on, and the gradient of the adapters whatever the pattern); on a GPU, where auto does not choose it: bfloat16 forward products of 2:4 weights by the sparse tensor cores, not measured yet"`
	DType     string `yaml:"dtype" resume:"same" help:"compute type of activations, merged weights and logits: float32 or bfloat16; sums, adapters and optimizer are float32"`
	Device    string `yaml:"device" ranks:"own" help:"auto: the NVIDIA GPU that the launcher gave this rank, or the first one, if the program was built for CUDA; else the CPU; cpu; or cuda[:N]"`
	Base      string `yaml:"base" ranks:"own" help:"a packed model's linears: resident: they stay in memory; streamed: they are read block by block, twice a step; auto: resident if the plan fits in this host's memory"`
	Threads   int    `yaml:"threads" ranks:"own" help:"CPU threads of this rank (0: all it may use)"`

	EvalData      List   `yaml:"eval_data" ranks:"own" help:"held-out files, as --data"`
	EvalEvery     int    `yaml:"eval_every" help:"steps between evaluations (0: at the end only)"`
	SaveEvery     int    `yaml:"save_every" help:"steps between checkpoints (0: at the end only)"`
	KeepLast      int    `yaml:"keep_last" help:"checkpoints kept (0: all)"`
	KeepBest      bool   `yaml:"keep_best" help:"keep the checkpoint with the lowest evaluation loss in OUT/best"`
	Patience      int    `yaml:"patience" help:"stop after so many evaluations without a better loss (0: never)"`
	ChecksumEvery int    `yaml:"checksum_every" help:"steps between checks that all ranks hold the same bits (0: never)"`
	LogEvery      int    `yaml:"log_every" ranks:"own" help:"steps between progress lines (0: a line a second)"`
	LogFormat     string `yaml:"log_format" ranks:"own" help:"text or json"`
	Transport     string `yaml:"transport" help:"how ranks exchange gradients: auto: NCCL when they compute on GPUs, else tcp; nccl; or tcp, from and to host memory"`
	JoinTimeout   int    `yaml:"join_timeout" ranks:"own" help:"seconds to wait for the other ranks"`
}

// Defaults is a run's settings before the file and the flags.
func Defaults() Config {
	return Config{
		Resume: "auto", Method: "splora", Rank: 16, Alpha: 32, Targets: List{"all-linear"},
		MicroBatch: 1, Accum: 1, Epochs: 1, LR: 1e-3, Schedule: "cosine",
		Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Clip: 1, Shuffle: true, TooLong: "truncate",
		Recompute: "block", Memory: "auto", Base: "auto", DType: "float32", Device: "auto",
		KeepLast: 2, ChecksumEvery: 100, LogFormat: "text", Transport: "auto", JoinTimeout: 600,
	}
}

// Validate reports the first setting that cannot be, by its flag.
func (c *Config) Validate() error {
	for _, e := range []struct {
		bad bool
		msg string
	}{
		{c.Model == "", "--model is missing: a Hugging Face or packed folder"},
		{len(c.Data) == 0, "--data is missing: a .jsonl or text file"},
		{c.Out == "", "--out is missing: a folder for checkpoints and the adapter"},
		{!slices.Contains([]string{"splora", "lora"}, c.Method), fmt.Sprintf("--method %q: splora or lora", c.Method)},
		{c.Rank < 1, fmt.Sprintf("--rank %d: at least 1", c.Rank)},
		{!(c.Alpha > 0), fmt.Sprintf("--alpha %v: greater than 0", c.Alpha)},
		{!(c.Dropout >= 0 && c.Dropout < 1), fmt.Sprintf("--dropout %v: in [0, 1)", c.Dropout)},
		{c.Dropout > 0 && c.Method == "splora", "--dropout needs --method lora: the masked merge has no separate adapter path whose input could be dropped"},
		{len(c.Targets) == 0, "--targets is empty: all-linear, or names such as q_proj,v_proj"},
		{c.Seq < 0 || c.Seq == 1, fmt.Sprintf("--seq %d: at least 2", c.Seq)},
		{c.MicroBatch < 1, fmt.Sprintf("--micro-batch %d: at least 1", c.MicroBatch)},
		{c.Accum < 1, fmt.Sprintf("--accum %d: at least 1", c.Accum)},
		{c.GlobalBatch < 0, fmt.Sprintf("--global-batch %d: at least 1", c.GlobalBatch)},
		{c.GlobalBatch > 0 && c.Accum > 1, "--accum and --global-batch say the same thing twice: give one"},
		{c.MaxSteps < 0, fmt.Sprintf("--max-steps %d: at least 1", c.MaxSteps)},
		{c.MaxSteps == 0 && !(c.Epochs > 0), fmt.Sprintf("--epochs %v: greater than 0", c.Epochs)},
		{!(c.LR > 0), fmt.Sprintf("--lr %v: greater than 0", c.LR)},
		{!(c.MinLR >= 0 && c.MinLR <= c.LR), fmt.Sprintf("--min-lr %v: between 0 and --lr", c.MinLR)},
		{!slices.Contains([]string{"cosine", "linear", "constant"}, c.Schedule), fmt.Sprintf("--schedule %q: cosine, linear or constant", c.Schedule)},
		{c.WarmupSteps < 0, fmt.Sprintf("--warmup-steps %d: at least 0", c.WarmupSteps)},
		{!(c.WarmupRatio >= 0 && c.WarmupRatio < 1), fmt.Sprintf("--warmup-ratio %v: in [0, 1)", c.WarmupRatio)},
		{c.WarmupSteps > 0 && c.WarmupRatio > 0, "--warmup-steps and --warmup-ratio say the same thing twice: give one"},
		{!(c.WeightDecay >= 0), fmt.Sprintf("--weight-decay %v: at least 0", c.WeightDecay)},
		{!(c.Beta1 > 0 && c.Beta1 < 1 && c.Beta2 > 0 && c.Beta2 < 1), "--beta1, --beta2: in (0, 1)"},
		{!(c.Eps > 0), fmt.Sprintf("--eps %v: greater than 0", c.Eps)},
		{!(c.Clip >= 0), fmt.Sprintf("--clip %v: at least 0", c.Clip)},
		{!slices.Contains([]string{"truncate", "split", "error"}, c.TooLong), fmt.Sprintf("--too-long %q: truncate, split or error", c.TooLong)},
		{!slices.Contains([]string{"block", "none"}, c.Recompute), fmt.Sprintf("--recompute %q: block or none", c.Recompute)},
		{!slices.Contains([]string{"auto", "resident", "streamed"}, c.Base), fmt.Sprintf("--base %q: auto, resident or streamed", c.Base)},
		{!slices.Contains([]string{"auto", "reuse", "fused"}, c.Memory), fmt.Sprintf("--memory %q: auto, reuse or fused", c.Memory)},
		{!slices.Contains([]string{"float32", "bfloat16"}, c.DType), fmt.Sprintf("--dtype %q: float32 or bfloat16 (the base keeps the type it is stored in)", c.DType)},
		{c.Threads < 0 || c.Threads > compute.MaxThreads, fmt.Sprintf("--threads %d: from 0 to %d", c.Threads, compute.MaxThreads)},
		{min(c.EvalEvery, c.SaveEvery, c.KeepLast, c.Patience, c.ChecksumEvery) < 0, "--eval-every, --save-every, --keep-last, --patience, --checksum-every: at least 0"},
		{(c.KeepBest || c.Patience > 0 || c.EvalEvery > 0) && len(c.EvalData) == 0, "--eval-every, --keep-best and --patience need --eval-data"},
		{c.Patience > 0 && c.EvalEvery == 0, "--patience needs --eval-every"},
		{c.LogEvery < 0, fmt.Sprintf("--log-every %d: at least 0", c.LogEvery)},
		{!slices.Contains([]string{"text", "json"}, c.LogFormat), fmt.Sprintf("--log-format %q: text or json", c.LogFormat)},
		{!slices.Contains([]string{"auto", "nccl", "tcp"}, c.Transport), fmt.Sprintf("--transport %q: auto, nccl or tcp", c.Transport)},
		{c.JoinTimeout < 1, fmt.Sprintf("--join-timeout %d: at least 1", c.JoinTimeout)},
	} {
		if e.bad {
			return fmt.Errorf("train: %w", usageError{errors.New(e.msg)})
		}
	}
	return c.checkRange()
}

// most bounds every count, and the rows of a step, so that products of counts do not overflow.
const most = math.MaxInt32

// checkRange reports the first number that is not finite, or a count beyond all use.
func (c *Config) checkRange() error {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f, why := v.Field(i), ""
		switch {
		case f.CanFloat() && !finite(f.Float()):
			why = "a finite number"
		case f.CanInt() && f.Int() > most:
			why = fmt.Sprintf("at most %d", most)
		default:
			continue
		}
		return fmt.Errorf("train: %w", usageError{fmt.Errorf("--%s %v: %s", strings.ReplaceAll(v.Type().Field(i).Tag.Get("yaml"), "_", "-"), f.Interface(), why)})
	}
	if c.Accum*c.MicroBatch > most {
		return fmt.Errorf("train: %w", usageError{fmt.Errorf("--accum %d of --micro-batch %d: at most %d rows", c.Accum, c.MicroBatch, most)})
	}
	return nil
}

// usageError marks what the user wrote wrongly: exit code 2.
type usageError struct{ error }

// IsUsage reports whether err is a wrong setting rather than a failed run.
func IsUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}
