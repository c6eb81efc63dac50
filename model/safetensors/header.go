package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// entry is one tensor of a header; offsets count from the first byte after the header.
type entry struct {
	Spec
	begin, end int64
}

// header is a checked header: entries tile [0, size of the data) in their order.
type header struct {
	text     []byte
	entries  []entry
	metadata map[string]string
}

// headerLength checks the first 8 bytes of a file of size bytes.
func headerLength(first []byte, size int64) (int64, error) {
	if len(first) < 8 {
		return 0, fmt.Errorf("the file has %d bytes, too few for a header; it is truncated or no safetensors file", size)
	}
	if bytes.HasPrefix(first, []byte("version ")) {
		return 0, errors.New("the file is a git-lfs pointer, not the weights; run `git lfs pull`")
	}
	n := binary.LittleEndian.Uint64(first)
	if n > MaxHeader {
		return 0, fmt.Errorf("the header claims %d bytes, at most %d are read; this is no safetensors file", n, MaxHeader)
	}
	if int64(n) > size-8 {
		return 0, fmt.Errorf("the header claims %d bytes, the file has %d after the length; it is truncated", n, size-8)
	}
	return int64(n), nil
}

// parseHeader checks a header against the number of data bytes that follow it.
func parseHeader(text []byte, data int64) (*header, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the header is not UTF-8")
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, errors.New("the header does not begin with {")
	}
	if err := noDuplicates(text); err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	h := &header{text: text}
	for name, v := range raw {
		if name == "__metadata__" {
			if err := json.Unmarshal(v, &h.metadata); err != nil {
				return nil, fmt.Errorf("__metadata__ is not a map of strings: %w", err)
			}
			continue
		}
		e, err := parseEntry(name, v)
		if err != nil {
			return nil, err
		}
		h.entries = append(h.entries, e)
	}
	return h, h.tile(data)
}

func parseEntry(name string, v json.RawMessage) (entry, error) {
	e := entry{Spec: Spec{Name: name}}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(v, &fields); err != nil {
		return e, fmt.Errorf("tensor %q: %w", name, err)
	}
	var offsets []int64
	for key, dst := range map[string]any{"dtype": &e.DType, "shape": &e.Shape, "data_offsets": &offsets} {
		f, ok := fields[key]
		if !ok || string(f) == "null" {
			return e, fmt.Errorf("tensor %q has no %s", name, key)
		}
		if err := json.Unmarshal(f, dst); err != nil {
			return e, fmt.Errorf("tensor %q: %s: %w", name, key, err)
		}
	}
	if len(fields) > 3 {
		return e, fmt.Errorf("tensor %q has fields beyond dtype, shape and data_offsets", name)
	}
	for _, d := range e.Shape {
		if d < 0 {
			return e, fmt.Errorf("tensor %q has the negative shape %v", name, e.Shape)
		}
	}
	if len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0] {
		return e, fmt.Errorf("tensor %q has the data_offsets %v; want [begin, end]", name, offsets)
	}
	e.begin, e.end = offsets[0], offsets[1]
	n, err := e.size()
	if err == nil && n != e.end-e.begin {
		err = fmt.Errorf("tensor %q: %s %v takes %d bytes, its data_offsets span %d", name, e.DType, e.Shape, n, e.end-e.begin)
	}
	return e, err
}

// tile sorts the entries and checks that they cover [0, data) without hole or overlap.
func (h *header) tile(data int64) error {
	slices.SortFunc(h.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	at := int64(0)
	for i, e := range h.entries {
		switch {
		case e.begin < at:
			return fmt.Errorf("tensor %q begins at byte %d of the data, inside of %q", e.Name, e.begin, h.entries[i-1].Name)
		case e.begin > at:
			return fmt.Errorf("tensor %q begins at byte %d of the data, leaving a hole after byte %d", e.Name, e.begin, at)
		case e.end > data:
			return fmt.Errorf("tensor %q ends at byte %d of the data, but the file holds %d; it is truncated, fetch it again", e.Name, e.end, data)
		}
		at = e.end
	}
	if at != data {
		return fmt.Errorf("%d bytes follow the last tensor", data-at)
	}
	return nil
}

// noDuplicates reports the first key that stands twice in one object, or JSON that is malformed, deeper than a header or an
// index can be, or followed by something.
func noDuplicates(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var open []map[string]bool // nil for an array
	key := false               // the next token of the innermost object is a key
	for {
		t, err := d.Token()
		if err == io.EOF && len(open) == 0 {
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			if len(open) > 16 {
				return errors.New("it is nested deeper than 16")
			}
			key = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if key {
				if seen := open[len(open)-1]; seen[v] {
					return fmt.Errorf("the key %q stands twice", v)
				} else {
					seen[v] = true
				}
				key = false
				continue
			}
		}
		key = len(open) > 0 && open[len(open)-1] != nil
	}
}
