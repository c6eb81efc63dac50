package train

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
)

// reporter shows progress on rank 0: a line of text, or a structured log record.
type reporter struct {
	w     io.Writer
	log   *zap.Logger
	json  bool
	every int // steps between lines; 0: a line a second
	total int

	first int // step this process began at
	began time.Time
	last  time.Time
}

// begin starts the clock of a run that goes on from s.
func (r *reporter) begin(s State) {
	r.total, r.first, r.began, r.last = s.TotalSteps, s.Step, time.Now(), time.Now()
}

// step shows a step when it is due. The ETA is from this process's mean step time.
func (r *reporter) step(rec Record) {
	now := time.Now()
	if !r.due(rec, now) {
		return
	}
	r.last = now
	eta := time.Duration(float64(now.Sub(r.began)) / float64(rec.Step-r.first) * float64(r.total-rec.Step))
	if r.json {
		r.log.Info("step", append(rec.GPU.fields(), zap.Int("step", rec.Step), zap.Int("of", r.total), zap.Float64("loss", rec.Loss), zap.Float64("grad_norm", rec.GradNorm),
			zap.Float64("lr", rec.LR), zap.Float64("tokens_per_s", rec.TokensPerS), zap.Int64("peak_rss_bytes", rec.PeakRSSBytes),
			zap.Int64("comm_bytes", rec.CommBytes), zap.Duration("eta", eta), zap.Float64("first_step_s", rec.FirstStepS))...)
		return
	}
	fmt.Fprintf(r.w, "step %*d/%d  loss %.4f  grad %.3g  lr %.2e  %s tok/s  peak %s  sent %s%s  eta %s\n", len(fmt.Sprint(r.total)), rec.Step, r.total,
		rec.Loss, rec.GradNorm, rec.LR, humanize.Comma(int64(rec.TokensPerS)), humanize.Bytes(uint64(rec.PeakRSSBytes)), humanize.Bytes(uint64(rec.CommBytes)), rec.GPU.line(), clock(eta))
	if rec.FirstStepS > 0 {
		fmt.Fprintf(r.w, "the first step was done %.2f s after the program was started\n", rec.FirstStepS)
	}
}

func (r *reporter) due(rec Record, now time.Time) bool {
	switch {
	case rec.Step == r.first+1 || rec.Step == r.total:
		return true
	case r.every > 0:
		return rec.Step%r.every == 0
	}
	return now.Sub(r.last) >= time.Second
}

// clock is d as h:mm:ss or m:ss.
func clock(d time.Duration) string {
	s := int(d.Seconds() + 0.5)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
