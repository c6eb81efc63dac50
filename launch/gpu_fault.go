package launch

import (
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// fault notes what the driver reported. A fault of a rank's GPU ends the attempt: the rank may not notice it,
// and its peers would wait for it.
func (w *watch) fault(e Event) {
	i := w.rankOn(e.UUID)
	if i < 0 {
		return // of a GPU that an earlier attempt used
	}
	w.events = append(w.events, e)
	at := []zap.Field{zap.String("rank", w.ranks[min(i, len(w.ranks)-1)].label()), zap.String("gpu", e.UUID)}
	if e.verdict().reset {
		w.broken[e.UUID] = &e
	}
	if !e.Fatal() {
		w.Logger.Warn("the driver reported "+e.String(), at...)
		return
	}
	w.Logger.Error("the driver reported "+e.String(), at...)
	if w.fatal == nil {
		w.fatal = &e
	}
	w.stop()
}

// rankOn gives the first rank on the GPU; −1 = none.
func (w *watch) rankOn(uuid string) int {
	for i, s := range w.seated {
		if s.root() == uuid || s.UUID == uuid {
			return i
		}
	}
	return -1
}

// lateFaults waits a little for faults that the driver reports after the rank died of them.
func (w *watch) lateFaults() {
	if w.faults == nil {
		return
	}
	deadline := time.After(arrival)
	for {
		select {
		case e := <-w.faults:
			w.fault(e)
		case <-deadline:
			return
		}
	}
}

// oldFaults drops what came between two attempts, but for what condemns a GPU.
func (l *launcher) oldFaults() {
	for {
		select {
		case e := <-l.faults:
			if e.verdict().reset {
				l.broken[e.UUID] = &e
			}
		default:
			return
		}
	}
}

// blame makes the fault of a GPU the failure of the rank on it.
func (w *watch) blame(before oom) *Failure {
	i := min(w.rankOn(w.fatal.UUID), len(w.ranks)-1)
	if i < 0 {
		return nil
	}
	s := w.suspect(w.ranks[i])
	f := w.failure(s, before)
	f.GPUFault = w.fatal.String()
	said := f.Reason
	f.Reason = fmt.Sprintf("its GPU %s (%s) reported %s", w.seated[i].UUID, w.seated[i].PCI, w.fatal)
	if s.exit.failed() && !s.exit.ByUs {
		f.Reason += "; the rank: " + said
	}
	return f
}

// hint tells what else the driver reported of the rank's GPU.
func (w *watch) hint(r *rank) string {
	var said []string
	for _, e := range w.events {
		if s := w.seatOf(r); s != nil && s.root() == e.UUID && !e.Fatal() {
			said = append(said, e.String())
		}
	}
	if len(said) == 0 {
		return ""
	}
	return "; the driver reported " + strings.Join(said, ", ")
}

func (w *watch) seatOf(r *rank) *seat {
	if i := r.LocalRank - w.LocalBase; i >= 0 && i < len(w.seated) {
		return &w.seated[i]
	}
	return nil
}
