//go:build linux

package launch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// story is a machine's GPUs as a test tells it.
type story struct {
	mu      sync.Mutex
	gpus    []GPU
	health  map[string]Health
	holders map[string][]Holder
	deaf    map[string]bool // the driver does not answer for them
	broken  error           // of List
	noWatch error
	faults  chan Event
	watched [][]string
	open    int // event sets
}

// h200s tells of n GPUs, half of them on each of two NUMA nodes, the last UUID first on the bus.
func h200s(n int) *story {
	s := &story{health: map[string]Health{}, holders: map[string][]Holder{}, deaf: map[string]bool{}, faults: make(chan Event, 16)}
	for i := range n {
		g := GPU{UUID: fmt.Sprintf("GPU-%c%07d", 'a'+n-1-i, i), Name: "NVIDIA H200", PCI: fmt.Sprintf("0000:%02x:00.0", 0x10+i), NUMA: 2 * i / n, Memory: 140 << 30}
		s.gpus = append(s.gpus, g)
		s.health[g.UUID] = Health{MemUsed: 4 << 20, MemTotal: g.Memory, PowerW: 90, Util: 0, ClockMHz: 1980, MaxClockMHz: 1980, TempC: 31}
	}
	return s
}

func (s *story) uuid(i int) string { return s.gpus[i].UUID }

// hold has a process keep memory of GPU i; free takes it away again.
func (s *story) hold(i int, h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.uuid(i)
	s.holders[id] = append(s.holders[id], h)
	health := s.health[id]
	health.MemUsed += max(0, h.Memory)
	s.health[id] = health
}

func (s *story) free(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.uuid(i)
	health := s.health[id]
	health.MemUsed = 4 << 20
	s.health[id], s.holders[id] = health, nil
}

// change alters GPU i.
func (s *story) change(i int, how func(*GPU)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(&s.gpus[i])
}

func (s *story) Driver() (Driver, error) { return Driver{Version: "570.86.15", CUDA: "12.8"}, nil }
func (s *story) Link(string, string) (Link, error) {
	return Link{Path: "SYS", NVLinks: 18, Peer: true}, nil
}
func (s *story) Close() error { return nil }
func (s *story) List() ([]GPU, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gpus), s.broken
}

func (s *story) Health(uuid string) (Health, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.health[uuid]
	if !ok || s.deaf[uuid] {
		return Health{}, errors.New("GPU is lost")
	}
	return h, nil
}

func (s *story) Holders(uuid string) ([]Holder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.holders[uuid]), nil
}

func (s *story) Watch(uuids []string) (Events, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noWatch != nil {
		return nil, s.noWatch
	}
	s.watched = append(s.watched, uuids)
	s.open++
	return &told{s: s, uuids: uuids}, nil
}

// fault has the driver report something.
func (s *story) fault(i int, e Event) {
	e.UUID, e.When = s.uuid(i), time.Now()
	s.faults <- e
}

// told is an event set of a story. It reports, as NVML does, only what it was asked to watch.
type told struct {
	s     *story
	uuids []string
}

func (t *told) Next(wait time.Duration) (Event, bool, error) {
	select {
	case e := <-t.s.faults:
		return e, slices.Contains(t.uuids, e.UUID), nil
	case <-time.After(min(wait, 5*time.Millisecond)):
		return Event{}, false, nil
	}
}

func (t *told) Close() error {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.open--
	return nil
}

// onGPUs is a job whose ranks play role on the GPUs of s.
func onGPUs(t *testing.T, s *story, role string, nproc int) (Config, string) {
	t.Helper()
	c, dir := job(t, role, nproc)
	c.GPUs, c.GPUPoll, c.GPUWait = s, 10*time.Millisecond, 10*time.Second
	t.Cleanup(func() {
		if s.mu.Lock(); s.open != 0 {
			t.Errorf("%d event sets are still open", s.open)
		}
		s.mu.Unlock()
	})
	return c, dir
}
