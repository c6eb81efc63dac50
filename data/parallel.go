package data

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// chunkBytes is about how much text one goroutine tokenises at a time.
const chunkBytes = 1 << 16

// chunk is some consecutive rows of a file. done closes when out holds their samples up to the first error, err.
type chunk struct {
	at   []place
	rows [][]byte
	out  []sample
	err  error
	size int
	done chan struct{}
}

// eachSample calls f with the samples of a file's rows, in order, while as many goroutines as there are processors
// tokenise the rows that follow. The first bad row is the error, as if one goroutine read them one by one. Memory is
// bounded by a few chunks per processor.
func (e *encoder) eachSample(ctx context.Context, path string, f func(place, sample) error) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	work, order := make(chan *chunk, workers), make(chan *chunk, 2*workers)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { readChunks(ctx, path, work, order) })
	for range workers {
		running.Go(func() {
			for c := range work {
				e.encode(c)
			}
		})
	}
	for c := range order {
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		for i, s := range c.out {
			if err := f(c.at[i], s); err != nil {
				return err
			}
		}
		if c.err != nil {
			return c.err
		}
	}
	return ctx.Err()
}

// readChunks sends a file's rows in chunks, each to whoever is free and, in order, to the one who waits for them. What
// stops the reading is the last chunk's error.
func readChunks(ctx context.Context, path string, work, order chan<- *chunk) {
	defer close(work)
	defer close(order)
	send := func(c *chunk) error {
		for _, to := range []chan<- *chunk{order, work} {
			select {
			case to <- c:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	c := &chunk{done: make(chan struct{})}
	err := eachRow(path, func(at place, row []byte) error {
		c.at, c.rows, c.size = append(c.at, at), append(c.rows, slices.Clone(row)), c.size+len(row)
		if c.size < chunkBytes {
			return nil
		}
		full := c
		c = &chunk{done: make(chan struct{})}
		return send(full)
	})
	if ctx.Err() == nil {
		c.err = err
		send(c)
	}
}

// encode tokenises a chunk. A bad row stands before whatever stopped the reading after it.
func (e *encoder) encode(c *chunk) {
	defer close(c.done)
	for i, row := range c.rows {
		s, err := e.row(row)
		if err != nil {
			c.err = fmt.Errorf("data: %v: %w", c.at[i], err)
			return
		}
		c.out = append(c.out, s)
	}
	c.rows = nil
}
