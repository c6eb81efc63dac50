package launch

import (
	"sync"
	"time"
)

// Sampler keeps the latest sample of a GPU's health, so that a training step never waits for the driver.
type Sampler struct {
	gpus GPUs
	uuid string
	quit chan struct{}
	done chan struct{}

	mu   sync.Mutex
	last Health
	ok   bool
}

// NewSampler samples the GPU uuid now and then every so often, at least 100 ms apart; Close ends it, and g with it.
func NewSampler(g GPUs, uuid string, every time.Duration) *Sampler {
	s := &Sampler{gpus: g, uuid: uuid, quit: make(chan struct{}), done: make(chan struct{})}
	s.sample()
	go s.run(max(every, 100*time.Millisecond))
	return s
}

func (s *Sampler) run(every time.Duration) {
	defer close(s.done)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.sample()
		case <-s.quit:
			return
		}
	}
}

func (s *Sampler) sample() {
	h, err := s.gpus.Health(s.uuid)
	s.mu.Lock()
	s.last, s.ok = h, err == nil
	s.mu.Unlock()
}

// Last is the latest sample; false when the driver did not answer.
func (s *Sampler) Last() (Health, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.ok
}

// Close ends the sampling and closes the driver's library.
func (s *Sampler) Close() error {
	close(s.quit)
	<-s.done
	return s.gpus.Close()
}
