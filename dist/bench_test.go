package dist

import (
	"errors"
	"fmt"
	"testing"
)

// Bytes per second are 4·len over the time of one all-reduce, both ranks in this process.
func BenchmarkAllReduceOverTCP(b *testing.B) {
	for _, mb := range []int{1, 16, 160} {
		b.Run(fmt.Sprintf("%dMB", mb), func(b *testing.B) {
			gs := mustJoin(b, configs(b, 2))
			v := [2]Floats{make(Floats, mb<<18), make(Floats, mb<<18)}
			b.SetBytes(int64(mb) << 20)
			for b.Loop() {
				if err := errors.Join(onAll(gs, func(g Group) error { return g.AllReduce(v[g.Rank()]) })...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
