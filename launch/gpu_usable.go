package launch

import (
	"fmt"
	"slices"
	"strings"
)

// Candidate is a GPU that ranks may see, and why none can run on it.
type Candidate struct {
	GPU
	Why  string // empty: it can be used
	Mend string // what to do about it
}

func (c Candidate) String() string {
	return fmt.Sprintf("%s (%s, %s): %s; %s", c.UUID, c.Name, c.PCI, c.Why, c.Mend)
}

// Survey is a look at all GPUs that ranks may see.
type Survey struct {
	Env       []string // with CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, as the ranks will get it
	Ranks     int      // on each GPU; default 1
	Tolerance int64    // bytes that others may hold on a GPU; default 512 MiB
	Job       string   // processes with this SPLORA_JOB are no strangers
}

// DefaultTolerance is the memory that others may hold on a GPU that a rank is to use.
const DefaultTolerance = 512 << 20

// Take looks at the GPUs. The error is of the driver, or of CUDA_VISIBLE_DEVICES.
func (s Survey) Take(g GPUs) ([]Candidate, error) {
	setDefault(&s.Ranks, 1)
	setDefault(&s.Tolerance, DefaultTolerance)
	all, err := g.List()
	if err != nil {
		return nil, fmt.Errorf("launch: list the GPUs: %w", err)
	}
	seen, err := visible(all, s.Env)
	if err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	out := make([]Candidate, len(seen))
	for i, d := range seen {
		out[i] = Candidate{GPU: d}
		out[i].Why, out[i].Mend = s.fault(g, d)
	}
	return out, nil
}

// Usable counts the GPUs that ranks can use, or says why there is none.
func (s Survey) Usable(g GPUs) (int, error) {
	all, err := s.Take(g)
	if err != nil {
		return 0, err
	}
	good := usable(all)
	if len(good) == 0 {
		return 0, fmt.Errorf("launch: none of %d GPUs can be used%s", len(all), listed(all))
	}
	return len(good), nil
}

func usable(all []Candidate) []Candidate {
	return slices.DeleteFunc(slices.Clone(all), func(c Candidate) bool { return c.Why != "" })
}

// listed names those that cannot be used, one to a line.
func listed(all []Candidate) string {
	var b strings.Builder
	for _, c := range all {
		if c.Why != "" {
			b.WriteString("\n  " + c.String())
		}
	}
	return b.String()
}

// fault says why no rank can use d, and what to do; empty: it can be used.
func (s Survey) fault(g GPUs, d GPU) (why, mend string) {
	reset := "reset it when nothing uses it (as root: nvidia-smi --gpu-reset -i " + d.UUID + "), or reboot"
	switch {
	case d.Lost != "":
		return "the driver cannot open it: " + d.Lost, "look for NVRM and Xid in dmesg; reboot, and have it replaced if that does not help"
	case d.MIG:
		return "MIG mode is on, so that only instances of it can compute",
			"turn it off (as root: nvidia-smi -i " + d.UUID + " -mig 0), or name instances: CUDA_VISIBLE_DEVICES=MIG-…, see nvidia-smi -L"
	case d.RemapFailed:
		return "a failing memory row could not be remapped", "have it replaced"
	case d.RemapPending:
		return "a failing memory row waits to be remapped", reset
	case d.Mode == ModeProhibited:
		return "its compute mode is prohibited", "as root: nvidia-smi -i " + d.UUID + " -c DEFAULT"
	case d.Mode.exclusive() && s.Ranks > 1:
		return fmt.Sprintf("its compute mode is %s, and %d ranks are to share it", d.Mode, s.Ranks),
			"as root: nvidia-smi -i " + d.UUID + " -c DEFAULT; or start fewer ranks"
	}
	return s.busy(g, d)
}

// busy says who else uses d.
func (s Survey) busy(g GPUs, d GPU) (why, mend string) {
	h, err := g.Health(d.UUID)
	if err != nil {
		return "the driver does not answer for it: " + err.Error(), "look for NVRM and Xid in dmesg"
	}
	held, others := h.MemUsed, []Holder(nil)
	all, _ := g.Holders(d.UUID) // without them the memory in use still tells
	for _, p := range all {
		switch {
		case strings.HasPrefix(p.Name, "nvidia-cuda-mps"): // serves others, and us
		case s.Job == "" || !marked(p.PID, []string{"SPLORA_JOB=" + s.Job}):
			others = append(others, p)
		case p.Memory < 0: // of this job, but how much
			held = 0
		default:
			held -= p.Memory
		}
	}
	mend = "end what uses it, choose others with CUDA_VISIBLE_DEVICES, or allow more with --gpu-tolerance-mib"
	if d.Mode.exclusive() && len(others) > 0 {
		return fmt.Sprintf("its compute mode is %s, and it is used by %s", d.Mode, names(others)), mend
	}
	if held > s.Tolerance {
		return fmt.Sprintf("%s of its memory are in use%s", mib(held), by(others)), mend
	}
	return "", ""
}

func by(holders []Holder) string {
	if len(holders) == 0 {
		return ", by whom the driver does not say (processes outside this container, or memory that a driver fault left behind)"
	}
	return " by " + names(holders)
}

func names(holders []Holder) string {
	holders = slices.SortedFunc(slices.Values(holders), func(a, b Holder) int { return int(b.Memory>>20 - a.Memory>>20) })
	var s []string
	for _, h := range holders[:min(len(holders), 4)] {
		s = append(s, h.String())
	}
	if n := len(holders) - len(s); n > 0 {
		s = append(s, fmt.Sprintf("%d more", n))
	}
	return strings.Join(s, ", ")
}
