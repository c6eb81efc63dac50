package launch

import (
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// awaitMemory waits until the memory of the ranks' GPUs is free again: the driver frees what a killed process held
// only some time after its end, and the next attempt must not start into that. Empty: it is free; else why there
// is no further attempt.
func (l *launcher) awaitMemory() string {
	if l.GPUs == nil {
		return ""
	}
	deadline := time.Now().Add(l.GPUWait)
	for said := false; ; said = true {
		held := l.stillHeld()
		if held == "" {
			return ""
		}
		if time.Now().After(deadline) {
			return fmt.Sprintf("not restarted: after %v %s", l.GPUWait, held)
		}
		if !said {
			l.Logger.Warn("waiting for memory to be freed: "+held, zap.Duration("budget", l.GPUWait))
		}
		if why := l.rest(l.GPUPoll); why != "" {
			return why
		}
	}
}

// stillHeld says which GPU is in use, and by whom.
func (l *launcher) stillHeld() string {
	for _, s := range l.seated {
		if l.broken[s.root()] != nil {
			continue
		}
		if why, _ := l.survey().busy(l.GPUs, s.GPU); why != "" {
			return fmt.Sprintf("GPU %s: %s", s.UUID, why)
		}
	}
	return ""
}

// again prepares another attempt: memory is free, and there are GPUs for all ranks. Empty: go on.
func (l *launcher) again() string {
	if l.GPUs == nil {
		return ""
	}
	l.oldFaults()
	if why := l.awaitMemory(); why != "" {
		return why
	}
	before := l.seated
	if err := l.sit(); err != nil {
		return "not restarted: " + strings.TrimPrefix(err.Error(), "launch: ")
	}
	if fmt.Sprint(roots(before)) != fmt.Sprint(roots(l.seated)) {
		l.Logger.Warn("ranks have moved to other GPUs", zap.Strings("from", roots(before)), zap.Strings("to", roots(l.seated)))
		l.watching.stop()
		l.watchGPUs()
	}
	return ""
}
