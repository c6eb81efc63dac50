package dist

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A member that comes when an elastic group already stands does not get in, is told why, and harms nobody.
func TestAMemberThatComesTooLateLeavesTheGroupAlone(t *testing.T) {
	cs := configs(t, 3)
	for i := range cs {
		cs[i].WorldMin, cs[i].LocalSize = 2, 0
	}
	gs := mustJoin(t, cs[:2])
	late := make(chan error, 1)
	go func() {
		cs[2].Timeout = 4 * time.Second
		_, err := Join(context.Background(), cs[2])
		late <- err
	}()
	for stop := time.Now().Add(3 * time.Second); time.Now().Before(stop); time.Sleep(20 * time.Millisecond) {
		v := [2]Floats{{1, 2, 3}, {4, 5, 6}}
		if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(v[g.Rank()]) })...); err != nil {
			t.Fatal(err)
		}
		if v[0][2] != 9 || v[1][0] != 5 {
			t.Fatalf("sums %v", v)
		}
	}
	err := <-late
	if l := new(Late); !errors.As(err, &l) || l.Generation != cs[0].Generation || !strings.Contains(err.Error(), "already stands with 2 ranks") {
		t.Error(err)
	}
}
