//go:build cuda

package cuda

import (
	"cmp"
	"errors"
	"slices"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute/cuda/internal/driver"
)

// spans is the number of operations that are timed before the times are read.
const spans = 1024

// profile times every operation by two events around it.
type profile struct {
	events [2 * spans]cu.Event
	ops    []string // of the spans under way
	times  map[string]*Time
}

// Profile begins to time every operation; Times ends it.
func (b *Backend) Profile() error {
	p := &profile{times: map[string]*Time{}}
	err := b.q.Do(func() (err error) {
		for i := range p.events {
			if p.events[i], err = cu.MakeEvent(cu.DefaultEvent); err != nil {
				break
			}
		}
		return err
	})
	if err == nil {
		b.prof = p
	}
	return err
}

// Times waits, and gives the device time of every operation since Profile, the longest first.
func (b *Backend) Times() (list []Time, err error) {
	p := b.prof
	if p == nil {
		return nil, nil
	}
	b.prof = nil
	err = errors.Join(b.Sync(), p.collect(b.q))
	for _, t := range p.times {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(x, y Time) int { return cmp.Or(cmp.Compare(y.Seconds, x.Seconds), cmp.Compare(x.Op, y.Op)) })
	return list, errors.Join(err, p.close(b.q))
}

// begin marks the beginning of an operation, end its end.
func (p *profile) begin(q *driver.Queue, op string) (err error) {
	if p == nil {
		return nil
	}
	if len(p.ops) == spans {
		err = p.collect(q)
	}
	p.ops = append(p.ops, op)
	return errors.Join(err, q.Do(func() error { return p.events[2*len(p.ops)-2].Record(q.Stream) }))
}

func (p *profile) end(q *driver.Queue) error {
	if p == nil {
		return nil
	}
	return q.Do(func() error { return p.events[2*len(p.ops)-1].Record(q.Stream) })
}

// collect adds up the spans under way.
func (p *profile) collect(q *driver.Queue) error {
	err := q.Wait()
	for i, op := range p.ops {
		var ms float64
		err = errors.Join(err, q.Do(func() (err error) {
			ms, err = p.events[2*i].Elapsed(p.events[2*i+1])
			return err
		}))
		t := p.times[op]
		if t == nil {
			t = &Time{Op: op}
			p.times[op] = t
		}
		t.Calls, t.Seconds = t.Calls+1, t.Seconds+ms/1000
	}
	p.ops = p.ops[:0]
	return err
}

func (p *profile) close(q *driver.Queue) error {
	if p == nil {
		return nil
	}
	return q.Do(func() (err error) {
		for i := range p.events {
			err = errors.Join(err, cu.DestroyEvent(&p.events[i]))
		}
		return err
	})
}
