package cpu_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/computetest"
	"github.com/splora/splora/model/compute/cpu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c cpu.Config) compute.Backend {
	b := cpu.New(c)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestTheBackendConforms(t *testing.T) {
	for _, isa := range cpu.ISAs() {
		t.Run(isa, func(t *testing.T) { computetest.Run(t, open(t, cpu.Config{ISA: isa, Threads: 2})) })
	}
}

func TestResultsDoNotDependOnTheNumberOfThreads(t *testing.T) {
	var others []compute.Backend
	for _, threads := range []int{2, 3, 5} {
		others = append(others, open(t, cpu.Config{Threads: threads}))
	}
	computetest.SameBits(t, open(t, cpu.Config{Threads: 1}), others...)
}
