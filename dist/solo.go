package dist

import (
	"bytes"
	"context"
	"sync"
)

// Solo is the group of one: every collective is the identity.
func Solo() Group { return &solo{} }

type solo struct {
	generation int
	mu         sync.Mutex
	err        error
}

func (g *solo) Rank() int                { return 0 }
func (g *solo) Size() int                { return 1 }
func (g *solo) Generation() int          { return g.generation }
func (g *solo) SetProgress(int, string)  {}
func (g *solo) Traffic() Traffic         { return Traffic{} }
func (g *solo) Close() error             { return nil }
func (g *solo) AllReduce(v Vector) error { return g.state() }

func (g *solo) Broadcast(v Vector, root int) error {
	checkRoot(root, 1)
	return g.state()
}

func (g *solo) Barrier(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return g.state()
}

func (g *solo) AllGatherBytes(ctx context.Context, b []byte) ([][]byte, error) {
	checkGather(b)
	return [][]byte{bytes.Clone(b)}, g.Barrier(ctx)
}

func (g *solo) Abort(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = &Aborted{Rank: 0, Cause: cause.Error(), err: cause}
	}
}

func (g *solo) state() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
