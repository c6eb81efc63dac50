package output

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// failing takes so many writes, and then none.
type failing int

func (f *failing) Write(p []byte) (int, error) {
	if *f--; *f < 0 {
		return 0, fmt.Errorf("write %d failed", -*f)
	}
	return len(p), nil
}

func TestTheFirstFailedWriteIsRemembered(t *testing.T) {
	w := failing(1)
	c := Checked{W: &w}
	if n, err := c.Write([]byte("abc")); n != 3 || err != nil || c.Err() != nil {
		t.Errorf("%d, %v, %v", n, err, c.Err())
	}
	for range 2 {
		fmt.Fprintln(&c, "def")
	}
	if err := c.Err(); err == nil || !strings.HasSuffix(err.Error(), ": write 1 failed") || errors.Unwrap(err) == nil {
		t.Errorf("%v", err)
	}
}
