//go:build cuda

package cuda

import (
	"errors"

	"gorgonia.org/cu"

	"github.com/splora/splora/model/compute/cuda/internal/driver"
)

// half is the size of each half of the pinned memory that copies go through.
const half = 8 << 20

// staging is pinned host memory in two halves. A half is used again when the copies that were queued from it are done.
type staging struct {
	pinned []byte
	done   [2]cu.Event // after the last copy of a half
	now    int         // the half in use
	top    int         // of it
}

func newStaging(q *driver.Queue) (s staging, err error) {
	if s.pinned, err = q.Pinned(2 * half); err != nil {
		return s, err
	}
	err = q.Do(func() (err error) {
		for i := range s.done {
			if s.done[i], err = cu.MakeEvent(cu.DisableTiming); err != nil {
				break
			}
		}
		return err
	})
	return s, err
}

// next gives n ≤ half bytes of pinned memory that no copy uses.
func (s *staging) next(q *driver.Queue, n int) ([]byte, error) {
	var err error
	if s.top+n > half {
		err = q.Do(func() error { return s.done[s.now].Record(q.Stream) })
		s.now, s.top = 1-s.now, 0
		err = errors.Join(err, q.Do(func() error { return s.done[s.now].Synchronize() }))
	}
	at := s.now*half + s.top
	s.top += (n + 63) &^ 63
	return s.pinned[at : at+n : at+n], err
}

func (s *staging) close(q *driver.Queue) (err error) {
	if s.pinned == nil {
		return nil
	}
	err = errors.Join(q.Wait(), q.Unpin(s.pinned))
	return errors.Join(err, q.Do(func() (err error) {
		for i := range s.done {
			err = errors.Join(err, cu.DestroyEvent(&s.done[i]))
		}
		return err
	}))
}
