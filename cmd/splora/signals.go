package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// heeded leaves out the signals that this process was started to ignore, as nohup and a script's & do. SIGTERM always counts.
func heeded(all ...os.Signal) []os.Signal {
	return slices.DeleteFunc(all, func(s os.Signal) bool { return s != syscall.SIGTERM && signal.Ignored(s) })
}

// stopSignals gives the signals that ask a run for a checkpoint and a stop. When no launcher watches over the run, its first
// SIGINT gives the next one its usual meaning back: the end, at once.
func stopSignals(launched bool) (signals <-chan os.Signal, stop func()) {
	raw, out := make(chan os.Signal, 8), make(chan os.Signal, 8)
	signal.Notify(raw, heeded(syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)...)
	go func() {
		for s := range raw {
			select {
			case out <- s:
			default: // it has been asked often enough
			}
			if s == syscall.SIGINT && !launched {
				signal.Reset(s)
			}
		}
	}()
	return out, func() {
		signal.Stop(raw)
		close(raw)
	}
}
