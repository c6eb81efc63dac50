//go:build linux

package launch

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestAnUnusableGPUIsNamedWithItsReasonAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		tell  func(*story)
		ranks int
		want  []string
	}{
		"lost":       {func(s *story) { s.gpus[0].Lost = "ERROR_GPU_IS_LOST (15)" }, 1, []string{"cannot open it: ERROR_GPU_IS_LOST", "dmesg"}},
		"MIG":        {func(s *story) { s.gpus[0].MIG = true }, 1, []string{"MIG mode is on", "-mig 0", "CUDA_VISIBLE_DEVICES=MIG-"}},
		"remap":      {func(s *story) { s.gpus[0].RemapPending = true }, 1, []string{"waits to be remapped", "--gpu-reset -i GPU-b0000000"}},
		"remap lost": {func(s *story) { s.gpus[0].RemapFailed = true }, 1, []string{"could not be remapped", "replaced"}},
		"prohibited": {func(s *story) { s.gpus[0].Mode = ModeProhibited }, 1, []string{"compute mode is prohibited", "-c DEFAULT"}},
		"exclusive":  {func(s *story) { s.gpus[0].Mode = ModeExclusiveProcess }, 2, []string{"exclusive process", "2 ranks", "-c DEFAULT"}},
		"exclusive and used": {func(s *story) { s.gpus[0].Mode = ModeExclusiveProcess; s.hold(0, Holder{7, "python3", 1 << 20}) }, 1,
			[]string{"exclusive process", "pid 7 (python3, 1 MiB)"}},
		"held": {func(s *story) { s.hold(0, Holder{4242, "python3", 71 << 30}); s.hold(0, Holder{4243, "", -1}) }, 1,
			[]string{"72708 MiB of its memory are in use by pid 4242 (python3, 72704 MiB), pid 4243 (a process that is not visible from here)", "CUDA_VISIBLE_DEVICES"}},
		"held by nobody": {func(s *story) { s.health[s.uuid(0)] = Health{MemUsed: 1 << 30} }, 1, []string{"1024 MiB of its memory are in use, by whom the driver does not say"}},
		"silent":         {func(s *story) { s.deaf[s.uuid(0)] = true }, 1, []string{"does not answer for it: GPU is lost"}},
	} {
		s := h200s(2)
		c.tell(s)
		all, err := Survey{Ranks: c.ranks}.Take(s)
		if err != nil || len(all) != 2 || all[1].Why != "" && c.ranks == 1 {
			t.Fatalf("%s: %+v, error %v", name, all, err)
		}
		for _, want := range c.want {
			if got := all[0].String(); !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q in it", name, got, want)
			}
		}
		if all[0].Why == "" || all[0].Mend == "" {
			t.Errorf("%s: reason %q, remedy %q", name, all[0].Why, all[0].Mend)
		}
		if n, err := (Survey{Ranks: c.ranks}).Usable(s); err != nil || n != 1 {
			t.Errorf("%s: %d usable, error %v", name, n, err)
		}
	}
}

func TestALittleMemoryInUseIsNoReason(t *testing.T) {
	s := h200s(1)
	s.hold(0, Holder{1, "Xorg", 400 << 20})
	if n, err := (Survey{}).Usable(s); n != 1 || err != nil {
		t.Errorf("%d usable, error %v", n, err)
	}
	if _, err := (Survey{Tolerance: 100 << 20}).Usable(s); err == nil || !strings.Contains(err.Error(), "pid 1 (Xorg, 400 MiB)") {
		t.Errorf("error %v", err)
	}
}

func TestOneExclusiveGPUTakesOneRank(t *testing.T) {
	s := h200s(1)
	s.gpus[0].Mode = ModeExclusiveProcess
	s.hold(0, Holder{9, "nvidia-cuda-mps", 30 << 20}) // NVIDIA's own server, which wants that mode
	if n, err := (Survey{}).Usable(s); n != 1 || err != nil {
		t.Errorf("%d usable, error %v", n, err)
	}
}

// The other launchers of a node start their ranks a little earlier or later.
func TestRanksOfTheSameJobAreNoStrangers(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), "SPLORA_JOB=mine")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for _, memory := range []int64{9 << 30, -1} {
		s := h200s(1)
		s.hold(0, Holder{cmd.Process.Pid, "splora", memory})
		s.health[s.uuid(0)] = Health{MemUsed: 9<<30 + 1<<20}
		waitMarked(t, cmd.Process.Pid, "SPLORA_JOB=mine")
		if n, err := (Survey{Job: "mine"}).Usable(s); n != 1 || err != nil {
			t.Errorf("memory %d, own job: %d usable, error %v", memory, n, err)
		}
		if _, err := (Survey{Job: "other"}).Usable(s); err == nil {
			t.Errorf("memory %d, another job's rank is no stranger", memory)
		}
	}
}

// waitMarked waits until the child runs its program: until then its environment is this process's.
func waitMarked(t *testing.T, pid int, mark string) {
	t.Helper()
	for range 1000 {
		if marked(pid, []string{mark}) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("pid %d never showed %s", pid, mark)
}

func TestADriverThatCannotListSaysSo(t *testing.T) {
	s := h200s(1)
	s.broken = errors.New("NVML: count devices: ERROR_UNKNOWN (999)")
	if _, err := (Survey{}).Usable(s); err == nil || !strings.Contains(err.Error(), "list the GPUs: NVML: count devices") {
		t.Errorf("error %v", err)
	}
	if _, err := (Survey{Env: []string{"CUDA_VISIBLE_DEVICES=7"}}).Usable(h200s(1)); err == nil || !strings.Contains(err.Error(), "launch: CUDA_VISIBLE_DEVICES=7") {
		t.Errorf("error %v", err)
	}
}
