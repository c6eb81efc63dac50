// Package jinja renders the Jinja templates that Hugging Face models carry to lay out conversations.
//
//	template ─ lex ─► tokens ─ parse ─► functions over a frame ─ Render ─► text, and where {% generation %} lies in it
//
// It is the part of Jinja that such templates use, with transformers' settings (trim_blocks, lstrip_blocks, break and
// continue, tojson as json.dumps writes, raise_exception, {% generation %}) and Python's values: dictionaries keep their
// order, None is not undefined, str(x) is Python's, and integers beyond 64 bits are an error. Not there: inheritance, include,
// import, async, i18n, autoescape.
package jinja

import (
	"errors"
	"fmt"
	"strings"
)

// Span is a piece of the rendered text, in bytes.
type Span struct{ Start, End int }

// Template is a parsed template. It is safe for concurrent use.
type Template struct {
	body       block
	generation bool
}

// Parse parses a template.
func Parse(source string) (t *Template, err error) {
	defer rescue(&err)
	p := &parser{tokens: lex(source)}
	return &Template{body: p.block(), generation: p.generation}, nil
}

// MarksGeneration reports whether the template has {% generation %} blocks.
func (t *Template) MarksGeneration() bool { return t.generation }

// Render renders the template and returns what lies in its {% generation %} blocks. vars may hold nil, bool, int, float64,
// string, []any, Tuple, *Dict and Func.
func (t *Template) Render(vars map[string]any) (text string, spans []Span, err error) {
	defer rescue(&err)
	var out strings.Builder
	s := &state{root: &out}
	f := &frame{vars: map[string]any{}, out: &out, state: s}
	for name, fn := range globals {
		f.vars[name] = fn
	}
	for name, v := range vars {
		f.vars[name] = v
	}
	t.body.run(f)
	return out.String(), s.spans, nil
}

// Raised is the error of a template that calls raise_exception: the conversation does not suit it.
type Raised struct{ Message string }

func (r Raised) Error() string { return r.Message }

// templateError is a failure while parsing or rendering; it travels by panic inside the package only.
type templateError struct {
	err  error
	line int
}

func failure(format string, args ...any) *templateError {
	return &templateError{err: fmt.Errorf(format, args...)}
}

// at names the line if none has been named.
func (e *templateError) at(line int) *templateError {
	if e.line == 0 {
		e.line = line
	}
	return e
}

func rescue(err *error) {
	switch e := recover().(type) {
	case nil:
	case *templateError:
		var raised Raised
		if errors.As(e.err, &raised) {
			*err = raised
		} else if *err = fmt.Errorf("template line %d: %w", e.line, e.err); e.line == 0 {
			*err = fmt.Errorf("template: %w", e.err)
		}
	default:
		panic(e)
	}
}

// state is shared by all frames of a rendering.
type state struct {
	root  *strings.Builder
	spans []Span
	depth int // of macro calls
}

// frame is a scope: names not found in it are looked up in its parent, assignments stay in it.
type frame struct {
	vars   map[string]any
	parent *frame
	out    *strings.Builder
	state  *state
}

func (f *frame) child() *frame {
	return &frame{vars: map[string]any{}, parent: f, out: f.out, state: f.state}
}

func (f *frame) get(name string) any {
	for s := f; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v
		}
	}
	return undefined{"'" + name + "'"}
}

// capture runs body in a scope of its own and returns its output.
func (f *frame) capture(body block) string {
	c := f.child()
	c.out = &strings.Builder{}
	body.run(c)
	return c.out.String()
}

// signal is how a statement ends.
type signal int

const (
	proceed signal = iota
	breakLoop
	continueLoop
)

type stmt func(*frame) signal
type expr func(*frame) any

type block []stmt

func (b block) run(f *frame) signal {
	for _, s := range b {
		if sig := s(f); sig != proceed {
			return sig
		}
	}
	return proceed
}
