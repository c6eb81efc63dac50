//go:build !cuda

package nccl

import (
	"strings"
	"testing"
)

func TestWithoutTheBuildTagOpenSaysWhatIsLacking(t *testing.T) {
	for _, path := range []string{"", "/usr/lib/libnccl.so.2"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "-tags cuda") {
			t.Error(err)
		}
	}
}
