//go:build !linux

package main

import (
	"time"

	"github.com/splora/splora/cmd/internal/train"
)

// resident is what of this process stands in memory now (not known here) and at most stood there, in bytes.
func resident() (now, peak int64) { return 0, train.PeakRSS() }

// processorTime is not known here.
func processorTime() time.Duration { return 0 }
