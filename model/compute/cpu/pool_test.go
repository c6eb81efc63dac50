package cpu

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// counting counts how often each item was done, and by how many pieces.
type counting struct {
	items  []int32 // of one item each, so that two workers at one item are a race
	pieces atomic.Int32
}

func (c *counting) do(_ *worker, i, j int) {
	c.pieces.Add(1)
	for ; i < j; i++ {
		c.items[i]++
	}
}

func TestEveryItemIsDoneOnceByAnyNumberOfWorkersAwakeOrAsleep(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 7} {
		for _, lookout := range []int{0, looks} {
			t.Run(fmt.Sprintf("%d threads, %d looks", threads, lookout), func(t *testing.T) {
				p := newPool(threads, lookout, vec{})
				defer p.close()
				for round := range 300 {
					n, grain := round%23, round%5
					c := &counting{items: make([]int32, n)}
					if round%100 == 99 {
						time.Sleep(time.Millisecond) // the workers go to sleep
					}
					p.run(c, n, grain)
					for i, k := range c.items {
						if k != 1 {
							t.Fatalf("round %d: item %d of %d was done %d times", round, i, n, k)
						}
					}
					if g := max(grain, 1); int(c.pieces.Load()) != (n+g-1)/g {
						t.Fatalf("round %d: %d items in %d pieces of %d", round, n, c.pieces.Load(), g)
					}
				}
			})
		}
	}
}
