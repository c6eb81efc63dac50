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

// lines cuts one stream of one rank into lines and passes them on: raw to file, at line ends to sink, the last
// ones to tail.
//
// Without a prefix sink gets the very bytes. With one it gets whole lines: a long line in pieces, and a
// progress line, which ends in \r, as a line of its own, at most one per period and always the last.
type lines struct {
	sink   *sink // nil: not wanted there
	prefix string
	period time.Duration
	file   io.Writer // nil: none

	pending  []byte // begun, not ended
	cr       bool   // pending ended in \r, and what follows will tell what that meant
	progress []byte // last progress line, not passed on
	shown    time.Time
	out      []byte // scratch of one Write

	tail  []string // the last tailLen lines
	crash string   // the first line that tells of a panic or another crash
}

// Write never fails: a rank must not be blocked by its log.
func (l *lines) Write(p []byte) (int, error) {
	if l.file != nil {
		if _, err := l.file.Write(p); err != nil {
			l.file = nil
		}
	}
	n := len(p)
	for len(p) > 0 {
		p = p[l.take(p):]
	}
	l.flush()
	return n, nil
}

// take uses up the beginning of p: to the end of a line, of a piece of one, or of p.
func (l *lines) take(p []byte) int {
	if l.cr {
		l.cr = false
		if p[0] == '\n' {
			l.newline()
			return 1
		}
		l.update()
	}
	room := maxLine - len(l.pending)
	i := bytes.IndexAny(p[:min(len(p), room+1)], "\r\n")
	if i < 0 {
		k := min(len(p), room)
		l.pending = append(l.pending, p[:k]...)
		if k < len(p) {
			l.whole(l.pending, l.open())
		}
		return k
	}
	l.pending = append(l.pending, p[:i]...)
	switch {
	case p[i] == '\n':
		l.newline()
	case l.prefix == "":
		l.whole(l.pending, "\r")
	default:
		l.cr = true
	}
	return i + 1
}

// newline ends the pending line; an empty one after progress shows the last of that.
func (l *lines) newline() {
	if len(l.pending) == 0 && len(l.progress) > 0 {
		l.pending = append(l.pending, l.progress...)
	}
	l.whole(l.pending, "\n")
}

// update takes the pending line as progress.
func (l *lines) update() {
	if now := time.Now(); len(l.pending) > 0 && (l.shown.IsZero() || now.Sub(l.shown) >= l.period) {
		l.shown = now
		l.whole(l.pending, "\n")
	} else if len(l.pending) > 0 {
		l.progress = append(l.progress[:0], l.pending...)
	}
	l.pending = l.pending[:0]
}

// whole passes a line on, with what ended it.
func (l *lines) whole(line []byte, end string) {
	l.keep(line)
	l.out = append(append(append(l.out, l.prefix...), line...), end...)
	l.pending, l.progress = l.pending[:0], l.progress[:0]
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
	if l.crash == "" && crashed(s) {
		l.crash = s
	}
}

// crashed tells a line by which Go's runtime begins to say why it ends the process: a panic, an error of its own, or a signal in C code
// ("SIGSEGV: segmentation violation").
func crashed(line string) bool {
	what, _, ok := strings.Cut(line, ": ")
	return ok && (what == "panic" || what == "fatal error" || strings.HasPrefix(what, "SIG") && !strings.ContainsFunc(what, func(r rune) bool { return r < 'A' || r > 'Z' }))
}

func (l *lines) flush() {
	if l.sink != nil {
		l.sink.put(l.out)
	}
	l.out = l.out[:0]
}

// close passes on what was begun and never ended.
func (l *lines) close() {
	switch {
	case len(l.pending) > 0:
		l.whole(l.pending, l.open())
	case len(l.progress) > 0:
		l.whole(l.progress, "\n")
	}
	l.flush()
}

// open ends a line that its writer did not end.
func (l *lines) open() string {
	if l.prefix == "" {
		return ""
	}
	return "\n"
}
