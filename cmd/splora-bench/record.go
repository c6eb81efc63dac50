package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// header is the first line of a raw result: what ran, and on what.
type header struct {
	Kind     string            `json:"kind"`
	Command  []string          `json:"command"`
	Time     time.Time         `json:"time"`
	Versions map[string]string `json:"versions"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	System   string            `json:"system"`
	Load     string            `json:"load_average"`
}

// record is one measurement as it was asked for and as it came back.
type record struct {
	Kind    string  `json:"kind"`
	Who     string  `json:"who"`
	Method  string  `json:"method"`
	Setting setting `json:"setting"`
	Rank    int     `json:"rank"`
	Storage string  `json:"storage"`
	Round   int     `json:"round"`
	Load    string  `json:"load_average"` // before it began
	Error   string  `json:"error,omitempty"`
	*Measurement
}

// newHeader describes this process and its machine; versions are the peer's.
func newHeader(versions map[string]string) header {
	h := header{Kind: "header", Command: append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...), Time: time.Now().UTC().Truncate(time.Second), Versions: map[string]string{"go": runtime.Version()},
		CPU: cpuModel(), CPUs: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Load: load()}
	for k, v := range versions {
		h.Versions[k] = v
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
				h.Versions[s.Key] = s.Value
			}
		}
	}
	return h
}

// cpuModel is the processor's name where /proc/cpuinfo tells it.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// load is the system's load average over 1, 5 and 15 minutes, where /proc/loadavg tells it.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}

// recorder writes raw results as they come, so that what was measured before an interruption is kept.
type recorder struct {
	io.Writer
	file *os.File
}

// newRecorder writes to a new file; "" is nowhere.
func newRecorder(path string) (*recorder, error) {
	if path == "" {
		return &recorder{Writer: io.Discard}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if os.IsExist(err) {
		return nil, usagef("--out %s exists: raw results are not overwritten; choose another file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	return &recorder{f, f}, nil
}

func (r *recorder) write(v any) error { return json.NewEncoder(r).Encode(v) }

// Close ends the file.
func (r *recorder) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// firstError is the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
