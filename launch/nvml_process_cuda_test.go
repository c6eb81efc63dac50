//go:build cuda && linux

package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/splora/splora/launch/hostnvml"
)

// What a process says of the GPUs that libnvidia-ml.so.1 tells it of.
type seen struct {
	Driver  Driver
	GPUs    []GPU
	Health  map[string]Health
	Holders map[string][]Holder
	Link    Link
	Event   Event
}

// The roles of processes that find another libnvidia-ml.so.1 than this one would.
var _ = func() bool {
	roles["look at GPUs"] = func(Contract) int { return report(look()) }
	roles["launch on GPUs"] = func(Contract) int {
		g, err := OpenGPUs()
		if err != nil {
			return report(nil, err)
		}
		defer g.Close()
		r, _ := Run(context.Background(), Config{Program: "/proc/self/exe", NProc: 2, GPUs: g, MaxRestarts: 1, Pause: time.Millisecond, GPUPoll: 10 * time.Millisecond,
			Env: append(os.Environ(), "LAUNCH_TEST_ROLE=trains")})
		return report(r, nil)
	}
	return true
}()

func report(v any, err error) int {
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(v)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// look sees all there is, and waits for one event.
func look() (s seen, err error) {
	g, err := OpenGPUs()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	s = seen{Health: map[string]Health{}, Holders: map[string][]Holder{}}
	if s.Driver, err = g.Driver(); err != nil {
		return s, err
	}
	if s.GPUs, err = g.List(); err != nil {
		return s, err
	}
	for _, d := range s.GPUs {
		if s.Health[d.UUID], err = g.Health(d.UUID); err != nil {
			return s, err
		}
		if s.Holders[d.UUID], err = g.Holders(d.UUID); err != nil {
			return s, err
		}
	}
	first, last := s.GPUs[0].UUID, s.GPUs[len(s.GPUs)-1].UUID
	if s.Link, err = g.Link(first, last); err != nil {
		return s, err
	}
	ev, err := g.Watch([]string{first})
	if err != nil {
		return s, err
	}
	leave(Contract{}, "watching", "")
	for ok := false; !ok && err == nil; {
		s.Event, ok, err = ev.Next(time.Second)
	}
	s.Event.When = time.Time{}
	return s, errors.Join(err, ev.Close())
}

// telling builds a driver's library, without some functions, and gives a command in that role which finds it, and a function
// that adds to what it tells.
func telling(t *testing.T, role, world string, without ...string) (cmd *exec.Cmd, tell func(string)) {
	t.Helper()
	lib, err := hostnvml.Library(without...)
	if errors.Is(err, hostnvml.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, dir := job(t, role, 1)
	path := filepath.Join(dir, "world")
	tell = func(more string) { // whole lines only: it is read at any time
		before, _ := os.ReadFile(path)
		if err := writeAtomic(path, append(before, more...), false); err != nil {
			t.Fatal(err)
		}
	}
	tell(world)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LAUNCH_TEST_ROLE="+role, "LD_LIBRARY_PATH="+filepath.Dir(lib), "HOSTNVML="+path)
	cmd.Stderr = os.Stderr
	return cmd, tell
}

// The figures cross the C interface: a field at the wrong place would show.
func TestADriversLibraryIsReadThroughItsCInterface(t *testing.T) {
	world := `driver 560.35.3 12060
gpu uuid=GPU-b bus=155 used=70000 util=99 power=655123 clock=1755 throttle=68 temp=91 mode=3 pending=1
gpu uuid=GPU-a bus=27 used=3 ecc=0 nvlinks=6 mig=0
proc GPU-b 4194305 60000
proc GPU-b 4194306 9000
`
	old := []string{"nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetMigMode"}
	for _, without := range [][]string{nil, old} {
		cmd, tell := telling(t, "look at GPUs", world, without...)
		done := make(chan struct{})
		go func() {
			defer close(done)
			waitFor("watching-0")
			tell("event GPU-b 8 13\nevent GPU-a 16 1\nevent GPU-a 8 79\n") // not watched, not asked for, this one
		}()
		out, err := cmd.Output()
		<-done
		if err != nil {
			t.Fatalf("without %v: %v\n%s", without, err, out)
		}
		text := string(out)
		reserved := 0
		if without != nil {
			reserved = 606 << 20 // the older function counts it as used
		}
		for _, want := range []string{
			`"Driver":{"version":"560.35.3","cuda":"12.6","nvml_version":"12.560.35.3"}`,
			`{"uuid":"GPU-a","name":"NVIDIA_H200","pci":"0000:1b:00.0","numa":-1,"memory_bytes":150754820096,"compute_capability":"9.0","compute_mode":"default","mig":false,"ecc":"off","remap_pending":false,"remap_failed":false}`,
			`{"uuid":"GPU-b","name":"NVIDIA_H200","pci":"0000:9b:00.0","numa":-1,"memory_bytes":150754820096,"compute_capability":"9.0","compute_mode":"exclusive process","mig":false,"ecc":"on","remap_pending":true,"remap_failed":false}`,
			fmt.Sprintf(`"GPU-b":{"mem_used_bytes":%d,"mem_total_bytes":150754820096,"power_w":655.123,"power_limit_w":700,"util":99,"clock_mhz":1755,"max_clock_mhz":1980,"temp_c":91,"throttle":"power cap, thermal (hardware)"}`, 70000<<20+reserved),
			`"GPU-b":[{"pid":4194305,"name":"","memory_bytes":62914560000},{"pid":4194306,"name":"","memory_bytes":9437184000}]`,
			`"Link":{"path":"NODE","nvlinks":6,"peer":true}`,
			`"Event":{"gpu":"GPU-a","kind":"xid","xid":79,`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("without %v: want %s in\n%s", without, want, text)
			}
		}
		if strings.Index(text, `"uuid":"GPU-a"`) > strings.Index(text, `"uuid":"GPU-b"`) {
			t.Errorf("not by PCI address:\n%s", text)
		}
	}
}

func TestALauncherLeavesAGPUThatFellOffTheBusForASpareOne(t *testing.T) {
	cmd, tell := telling(t, "launch on GPUs", "gpu uuid=GPU-a bus=1\ngpu uuid=GPU-b bus=2 mig=1\ngpu uuid=GPU-c bus=3\ngpu uuid=GPU-d bus=4\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		waitFor("ready-0")
		waitFor("ready-1")
		tell("event GPU-c 8 31\nevent GPU-c 8 79\n")
	}()
	out, err := cmd.Output()
	<-done
	var r struct {
		ExitCode int `json:"exit_code"`
		Attempts []struct {
			First *Failure
			Ranks []Exit
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil || r.ExitCode != 0 || len(r.Attempts) != 2 {
		t.Fatalf("error %v\n%s", err, out)
	}
	if f := r.Attempts[0].First; f.GPU != "GPU-c" || f.GPUFault != "Xid 79: the GPU has fallen off the bus" {
		t.Errorf("first failure %+v", f)
	}
	if a, b := r.Attempts[1].Ranks[0].GPU, r.Attempts[1].Ranks[1].GPU; a != "GPU-a" || b != "GPU-d" {
		t.Errorf("second attempt on %s and %s", a, b)
	}
}

func TestWithoutAKernelModuleTheLibrarySaysSo(t *testing.T) {
	cmd, _ := telling(t, "look at GPUs", "")
	cmd.Env = append(cmd.Env, "HOSTNVML=/no/such/file")
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Run(); err == nil || !strings.Contains(errs.String(), "no kernel module: modprobe nvidia") {
		t.Errorf("error %v: %s", err, errs.String())
	}
}
