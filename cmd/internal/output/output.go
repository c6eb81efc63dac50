// Package output is a command's standard output, whose failure is the command's.
package output

import (
	"fmt"
	"io"
	"sync"
)

// Checked remembers the first error of W, which those who print a line seldom look at. It may be written to concurrently.
type Checked struct {
	W io.Writer

	mu  sync.Mutex
	err error
}

// Write writes to W.
func (c *Checked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.W.Write(p)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("the output is not complete: %w", err)
	}
	return n, err
}

// Err is nil when all that was written has arrived.
func (c *Checked) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
