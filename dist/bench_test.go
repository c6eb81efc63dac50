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
			gs := benchGroup(b)
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

func benchGroup(b *testing.B) []Group {
	port := 20000 + b.N%7
	cs := make([]Config, 2)
	for i := range cs {
		cs[i] = Config{Job: "bench", Key: testKey, LocalRank: i, WorldMax: 2, Seeds: []string{fmt.Sprintf("127.0.0.1:%d", port)}}
	}
	cs[0].GossipPort = port
	gs, errs := joinAll(cs)
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { onAll(gs, func(g Group) error { return g.Close() }) })
	return gs
}
