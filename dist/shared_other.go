//go:build !linux

package dist

import (
	"errors"
	"sync/atomic"
)

var errNotShared = errors.New("memory is shared on Linux only")

func newShared() (*shared, offer, func(), error) { return nil, offer{}, nil, errNotShared }
func openShared(offer) (*shared, error)          { return nil, errNotShared }
func (s *shared) filled(int) *atomic.Uint32      { panic(errNotShared) }
