package launch

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	maxLine  = 64 << 10 // a longer line is passed on in pieces
	tailLen  = 20       // lines kept for the report
	tailLine = 1000     // bytes kept of each of them
)

// sink is a writer that all ranks share: one Write at a time, each made of whole lines. A broken one is
// written to no more, and the ranks go on.
type sink struct {
	mu     sync.Mutex
	w      io.Writer
	broken bool
}

func (s *sink) put(b []byte) {
	if len(b) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.broken {
		_, err := s.w.Write(b)
		s.broken = err != nil
	}
}

// lines cuts one stream of one rank into lines and passes them on: raw to file, whole and prefixed to sink,
// the last ones to tail.
//
// A progress line ends in \r. Without a prefix it is passed on as it is. With one it becomes a line of its
// own, at most one per period, and the last one before a \n always.
type lines struct {
	sink   *sink // nil: not wanted there
	prefix string
	period time.Duration
	file   io.Writer // nil: none

	pending  []byte // begun, not ended
	progress []byte // last \r line, not passed on
	shown    time.Time
	out      []byte // scratch of one Write

	tail  []string // the last tailLen lines
	crash string   // the first line that tells of a Go panic or runtime crash
}

// Write never fails: a rank must not be blocked by its log.
func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	if l.file != nil {
		if _, err := l.file.Write(p); err != nil {
			l.file = nil
		}
	}
	l.out = l.out[:0]
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		switch {
		case i >= 0 && len(l.pending)+i <= maxLine:
			l.end(append(l.pending, p[:i]...), p[i])
			p = p[i+1:]
		case len(l.pending)+len(p) <= maxLine:
			l.pending = append(l.pending, p...)
			p = nil
		default:
			k := maxLine - len(l.pending)
			l.whole(append(l.pending, p[:k]...))
			p = p[k:]
		}
	}
	l.flush()
	return n, nil
}

// end takes a segment and what ended it.
func (l *lines) end(seg []byte, by byte) {
	l.pending = seg[:0]
	switch {
	case by == '\n' && len(seg) == 0 && len(l.progress) > 0: // \r\n, or \n after progress
		l.whole(l.progress)
	case by == '\n':
		l.whole(seg)
	case l.prefix == "":
		l.keep(seg)
		l.out = append(append(l.out, seg...), '\r')
	case len(seg) > 0:
		l.update(seg)
	}
}

// update takes a progress line.
func (l *lines) update(seg []byte) {
	if now := time.Now(); l.shown.IsZero() || now.Sub(l.shown) >= l.period {
		l.shown = now
		l.whole(seg)
		return
	}
	l.progress = append(l.progress[:0], seg...)
}

// whole passes one line on.
func (l *lines) whole(line []byte) {
	l.keep(line)
	l.out = append(l.out, l.prefix...)
	l.out = append(l.out, line...)
	l.out = append(l.out, '\n')
	l.pending = l.pending[:0]
	l.progress = l.progress[:0]
}

// keep adds a line to the tail.
func (l *lines) keep(line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return
	}
	s := string(line[:min(len(line), tailLine)])
	if len(l.tail) == tailLen {
		l.tail = append(l.tail[:0], l.tail[1:]...)
	}
	l.tail = append(l.tail, s)
	if l.crash == "" && (strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ")) {
		l.crash = s
	}
}

func (l *lines) flush() {
	if l.sink != nil {
		l.sink.put(l.out)
	}
	l.out = l.out[:0]
}

// close passes on what was begun and never ended.
func (l *lines) close() {
	if len(l.progress) > 0 && len(l.pending) == 0 {
		l.whole(l.progress)
	}
	if len(l.pending) > 0 {
		l.whole(l.pending)
	}
	l.flush()
}
