//go:build !cuda

package dist

import (
	"context"
	"strings"
	"testing"
)

func TestAProgramBuiltWithoutNCCLSaysSoWhenItIsAskedFor(t *testing.T) {
	cs := configs(t, 2)
	cs[0].NCCL = &NCCL{}
	if _, err := Join(context.Background(), cs[0]); err == nil || !strings.Contains(err.Error(), "dist: nccl: this program was built without NCCL: build it with cgo and -tags cuda") {
		t.Error(err)
	}
}
