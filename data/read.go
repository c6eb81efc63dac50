package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// place is where a row stands, for errors and counts.
type place struct {
	file string
	line int // from 1; 0: the file is one document
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// form returns how a file is read, by its name: "json" (rows, one to a line, or one array of them) or "text", and
// whether it is gzipped.
func form(path string) (kind string, zipped bool) {
	name := strings.ToLower(path)
	if strings.HasSuffix(name, ".gz") {
		name, zipped = strings.TrimSuffix(name, ".gz"), true
	}
	switch filepath.Ext(name) {
	case ".jsonl", ".ndjson", ".json":
		return "json", zipped
	}
	return "text", zipped
}

// regular refuses what need not say the same when it is read again, or may never end: pipes, devices, folders.
func regular(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("data: %w", err)
	case info.IsDir():
		return fmt.Errorf("data: %s is a folder: give the files in it", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("data: %s is a pipe or a device, and data is read more than once: write it to a file first", path)
	}
	return nil
}

// open opens a file, unzipping it if its name ends in .gz.
func open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if _, zipped := form(path); !zipped {
		return f, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("data: %s: %w", path, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// eachRow calls f with every JSON row of a file, without its line's end; row is valid during the call only.
// Empty lines are no rows, but count as lines.
func eachRow(path string, f func(at place, row []byte) error) error {
	r, err := open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	b := bufio.NewReaderSize(r, 1<<20)
	if mark, _ := b.Peek(3); string(mark) == "\ufeff" {
		b.Discard(3)
	}
	if isArray(b) {
		return eachElement(path, b, f)
	}
	return eachLine(path, b, f)
}

// isArray reports whether the first thing in the file is a [.
func isArray(b *bufio.Reader) bool {
	head, _ := b.Peek(512)
	head = bytes.TrimLeft(head, " \t\r\n")
	return len(head) > 0 && head[0] == '['
}

// eachLine reads one row from each line, however long.
func eachLine(path string, b *bufio.Reader, f func(place, []byte) error) error {
	var long []byte
	for line := 1; ; line++ {
		long = long[:0]
		row, err := b.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, row...)
			row, err = b.ReadSlice('\n')
		}
		if len(long) > 0 {
			long = append(long, row...)
			row = long
		}
		at := place{path, line}
		if err != nil && err != io.EOF {
			return fmt.Errorf("data: %v: %w", at, err)
		}
		if row = bytes.TrimSpace(row); len(row) > 0 {
			if e := f(at, row); e != nil {
				return e
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// eachElement reads the rows of one JSON array, as Alpaca's own file is; lines are counted.
func eachElement(path string, b *bufio.Reader, f func(place, []byte) error) error {
	lines := &lineCounter{r: b}
	dec := json.NewDecoder(lines)
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("data: %s:1: %w", path, err)
	}
	for dec.More() {
		var row json.RawMessage
		err := dec.Decode(&row)
		if err != nil {
			return fmt.Errorf("data: %s:%d: %w", path, lines.at(dec.InputOffset())+blankLines(dec), err)
		}
		at := place{path, lines.at(dec.InputOffset() - int64(len(row)))}
		if err := f(at, row); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("data: %s:%d: the array of rows does not end: %w", path, lines.at(dec.InputOffset()), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("data: %s:%d: more follows the array of rows", path, lines.at(dec.InputOffset()))
	}
	return nil
}

// blankLines counts the line ends between what was decoded and what comes next.
func blankLines(dec *json.Decoder) int {
	rest, _ := io.ReadAll(dec.Buffered())
	return bytes.Count(rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n"))], []byte("\n"))
}

// lineCounter remembers where the lines end that lie between the last place asked for and the last byte read.
type lineCounter struct {
	r    io.Reader
	read int64
	line int     // line ends forgotten
	ends []int64 // offsets of the rest
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.ends = append(c.ends, c.read+int64(i))
		}
	}
	c.read += int64(n)
	return n, err
}

// at returns the line of an offset, from 1; offsets must not fall.
func (c *lineCounter) at(offset int64) int {
	i := 0
	for i < len(c.ends) && c.ends[i] < offset {
		i++
	}
	c.line += i
	c.ends = append(c.ends[:0], c.ends[i:]...)
	return c.line + 1
}

// ReadText returns a plain text file whole, unzipped.
func ReadText(path string) (string, error) {
	r, err := open(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("data: %s: %w", path, err)
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("data: %s: not UTF-8 text (rows are read from .jsonl, .ndjson and .json files, zipped ones from .gz)", path)
	}
	return string(b), nil
}
