package launch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	slice   = time.Second            // one wait for faults; bounds how long the end of Run waits for the watch
	arrival = 500 * time.Millisecond // how long a fault may come after the failure of a rank that it caused
)

// gpuWatch waits for faults of the ranks' GPUs, and samples their health, for as long as the launcher lives.
type gpuWatch struct {
	gpus   GPUs
	events Events
	seats  []seat
	every  time.Duration
	log    *zap.Logger
	faults chan Event // to whoever sees an attempt through
	quit   chan struct{}
	done   chan struct{}
	slow   map[string]Throttle
}

// watchGPUs begins to watch. Without an event set it goes on without faults, and says so.
func (l *launcher) watchGPUs() {
	if l.GPUs == nil {
		return
	}
	w := &gpuWatch{gpus: l.GPUs, seats: l.seated, every: l.HealthEvery, log: l.Logger, faults: make(chan Event, 64),
		quit: make(chan struct{}), done: make(chan struct{}), slow: map[string]Throttle{}}
	var err error
	if w.events, err = l.GPUs.Watch(roots(l.seated)); err != nil {
		l.Logger.Warn("faults of GPUs will not be seen", zap.Error(err))
	}
	l.watching, l.faults = w, w.faults
	go w.run()
}

// roots are the whole GPUs under the seats, each once.
func roots(seats []seat) []string {
	var out []string
	for _, s := range seats {
		out = append(out, s.root())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// stop ends the watch. A driver that does not answer any more is not waited for.
func (w *gpuWatch) stop() {
	if w == nil {
		return
	}
	close(w.quit)
	select {
	case <-w.done:
	case <-time.After(5 * slice):
		w.log.Warn("the NVIDIA driver does not answer")
	}
}

func (w *gpuWatch) run() {
	defer close(w.done)
	next := time.Now().Add(min(w.every, 10*time.Second))
	for w.wait() {
		if now := time.Now(); now.After(next) {
			next = now.Add(w.every)
			w.sample()
		}
	}
	if w.events != nil {
		_ = w.events.Close() // nothing to do about it
	}
}

// wait passes on a fault if one comes within a slice; false at the end.
func (w *gpuWatch) wait() bool {
	if w.events == nil {
		return w.pause()
	}
	e, ok, err := w.events.Next(slice)
	if err != nil {
		w.log.Warn("faults of GPUs are not seen any more", zap.Error(err))
		_ = w.events.Close()
		w.events = nil
	}
	if ok {
		select {
		case w.faults <- e:
		default: // a storm: who reads has enough to fail
		}
	}
	select {
	case <-w.quit:
		return false
	default:
		return true
	}
}

func (w *gpuWatch) pause() bool {
	select {
	case <-w.quit:
		return false
	case <-time.After(slice):
		return true
	}
}

// sample logs how the GPUs are, and warns when one begins to be slow or is well again.
func (w *gpuWatch) sample() {
	var all []string
	for i, s := range w.seats {
		if s.share > 0 {
			continue
		}
		h, err := w.gpus.Health(s.UUID)
		if err != nil {
			w.log.Warn("no health of a GPU", zap.Int("local_rank", i), zap.String("gpu", s.UUID), zap.Error(err))
			continue
		}
		all = append(all, fmt.Sprintf("%d: %s", i, h))
		if slow := h.Throttle.Slow(); slow != w.slow[s.UUID] {
			w.slow[s.UUID] = slow
			w.sayThrottle(i, s, h, slow)
		}
	}
	w.log.Info("GPUs: " + strings.Join(all, " · "))
}

func (w *gpuWatch) sayThrottle(i int, s seat, h Health, slow Throttle) {
	at := []zap.Field{zap.Int("local_rank", i), zap.String("gpu", s.UUID), zap.String("pci", s.PCI), zap.Int("temp_c", h.TempC),
		zap.Float64("power_w", h.PowerW), zap.Int("clock_mhz", h.ClockMHz), zap.Int("max_clock_mhz", h.MaxClockMHz)}
	if slow == 0 {
		w.log.Warn("a GPU is at full speed again", at...)
		return
	}
	w.log.Warn("a GPU is slowed down, and with it all ranks: "+slow.String(), at...)
}

// String is one short line, for people.
func (h Health) String() string {
	parts := []string{fmt.Sprintf("%.1f/%.1f GiB", float64(h.MemUsed)/(1<<30), float64(h.MemTotal)/(1<<30))}
	if h.PowerW >= 0 {
		parts = append(parts, fmt.Sprintf("%.0f W", h.PowerW))
	}
	if h.Util >= 0 {
		parts = append(parts, fmt.Sprintf("%d %%", h.Util))
	}
	if h.ClockMHz >= 0 {
		parts = append(parts, fmt.Sprintf("%d MHz", h.ClockMHz))
	}
	if h.TempC >= 0 {
		parts = append(parts, fmt.Sprintf("%d °C", h.TempC))
	}
	if t := h.Throttle &^ ThrottleIdle; t != 0 {
		parts = append(parts, t.String())
	}
	return strings.Join(parts, " ")
}
