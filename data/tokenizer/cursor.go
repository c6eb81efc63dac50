package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
)

// eachField calls visit with the unquoted key and the raw value of every field of a JSON object. Nested values are
// delimited, not validated: who decodes them does that. The slices are parts of data.
func eachField(data []byte, visit func(key, value []byte) error) error {
	c := cursor{data: data}
	return c.list('{', '}', func() error {
		raw, err := c.value()
		if err != nil {
			return err
		}
		key, err := unquote(raw)
		if err != nil {
			return err
		}
		if c.space(); c.i >= len(c.data) || c.data[c.i] != ':' {
			return c.fail("a colon is missing")
		}
		c.i++
		value, err := c.value()
		if err != nil {
			return err
		}
		return visit(key, value)
	})
}

// eachElement calls visit with the raw bytes of every element of a JSON array.
func eachElement(data []byte, visit func(value []byte) error) error {
	c := cursor{data: data}
	return c.list('[', ']', func() error {
		value, err := c.value()
		if err != nil {
			return err
		}
		return visit(value)
	})
}

// cursor walks over JSON text.
type cursor struct {
	data []byte
	i    int
}

func (c *cursor) fail(what string) error { return fmt.Errorf("at byte %d: %s", c.i, what) }

func (c *cursor) space() {
	for c.i < len(c.data) {
		switch c.data[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return
		}
	}
}

// list walks "open item , item … close" and nothing after it.
func (c *cursor) list(open, close byte, item func() error) error {
	if c.space(); c.i >= len(c.data) || c.data[c.i] != open {
		return c.fail(fmt.Sprintf("%q is missing", open))
	}
	c.i++
	if c.space(); c.i < len(c.data) && c.data[c.i] == close {
		c.i++
		return c.end()
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if c.space(); c.i >= len(c.data) {
			return c.fail("unexpected end")
		}
		switch c.i++; c.data[c.i-1] {
		case ',':
		case close:
			return c.end()
		default:
			return c.fail(fmt.Sprintf("comma or %q is missing", close))
		}
	}
}

func (c *cursor) end() error {
	if c.space(); c.i < len(c.data) {
		return c.fail("text after the end")
	}
	return nil
}

// value gives the raw bytes of the next value.
func (c *cursor) value() ([]byte, error) {
	c.space()
	start, depth := c.i, 0
	for c.i < len(c.data) {
		switch c.data[c.i] {
		case '"':
			if err := c.quoted(); err != nil {
				return nil, err
			}
			c.i--
		case '{', '[':
			depth++
		case '}', ']', ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				if c.i == start {
					return nil, c.fail("a value is missing")
				}
				return c.data[start:c.i], nil
			}
			if b := c.data[c.i]; b == '}' || b == ']' {
				depth--
			}
		}
		c.i++
		if b := c.data[c.i-1]; depth == 0 && (b == '"' || b == '}' || b == ']') {
			return c.data[start:c.i], nil
		}
	}
	return nil, c.fail("unexpected end")
}

// quoted steps over a string.
func (c *cursor) quoted() error {
	for c.i++; c.i < len(c.data); c.i++ {
		switch b := c.data[c.i]; {
		case b == '\\':
			c.i++
		case b == '"':
			c.i++
			return nil
		case b < ' ':
			return c.fail("control character in a string")
		}
	}
	return c.fail("a string does not end")
}

// unquote gives the text of a JSON string: a part of raw unless it has escapes.
func unquote(raw []byte) ([]byte, error) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, errors.New("a string was expected")
	}
	body := raw[1 : len(raw)-1]
	for _, b := range body {
		if b == '\\' {
			var s string
			err := json.Unmarshal(raw, &s)
			return []byte(s), err
		}
	}
	return body, nil
}
