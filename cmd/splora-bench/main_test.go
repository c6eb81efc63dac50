package main

import (
	"strings"
	"syscall"
	"testing"
)

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAnOutputThatDoesNotArriveIsAFailure(t *testing.T) {
	var errs strings.Builder
	if code := run(t.Context(), []string{"--help"}, full{}, &errs); code != 1 || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
		t.Errorf("exit %d: %s", code, &errs)
	}
}
