//go:build cuda

package decoder

import (
	"testing"

	"github.com/splora/splora/model/compute"
	"github.com/splora/splora/model/compute/cuda"
	"github.com/splora/splora/model/compute/cuda/cudatest"
	"github.com/splora/splora/model/lora"
)

func TestMain(m *testing.M) { cudatest.Main(m) }

// device makes the goldens run on the CUDA backend for the length of a test.
func device(t *testing.T) {
	onDevice = func(t testing.TB) compute.Backend { return cudatest.Open(t, cuda.Config{}) }
	t.Cleanup(func() { onDevice = nil })
}

func TestOnTheDeviceLogitsLossAndEveryAdapterGradientAgreeWithTransformers(t *testing.T) {
	device(t)
	for _, name := range goldens {
		for _, method := range []lora.Method{lora.SPLoRA, lora.LoRA} {
			t.Run(name+"/"+method.String(), func(t *testing.T) { load(t, name).agrees(t, method, MemoryReuse) })
		}
	}
}

func TestOnTheDeviceBFloat16IsAsNearToFloat64AsTorchs(t *testing.T) {
	device(t)
	TestBFloat16IsAsNearToFloat64AsTorchs(t)
}

func TestOnTheDeviceGenerationWithTheCacheIsTheFullForward(t *testing.T) {
	device(t)
	TestGenerationWithTheCacheIsTheFullForward(t)
}

func TestOnTheDeviceTwelveStepsOfTrainingFollowPyTorch(t *testing.T) {
	device(t)
	follow(t, theCurve(t), MemoryReuse)
}

func TestOnTheDeviceNothingIsAllocatedByAStep(t *testing.T) {
	device(t)
	g := load(t, "llama_bias_packed")
	m := g.model(t, lora.SPLoRA, nil, Options{})
	m.Backend.(compute.Planned).Seal() // from here on Alloc panics
	if _, _, err := m.LossGrad(g.batch()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.FindNonFinite(g.batch()); err != nil {
		t.Fatal(err)
	}
	if name := m.Adapters.FirstNonFinite(m, m.Adapters.Grads); name != "" {
		t.Error(name)
	}
}
