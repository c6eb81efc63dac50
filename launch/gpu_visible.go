package launch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// lookup finds NAME in an environment of NAME=value; the last one counts.
func lookup(env []string, name string) (value string, ok bool) {
	for _, v := range slices.Backward(env) {
		if value, ok = strings.CutPrefix(v, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// HidesGPUs tells an environment in which CUDA_VISIBLE_DEVICES shows none, as people set it to compute on the CPU.
func HidesGPUs(env []string) bool {
	list, set := lookup(env, "CUDA_VISIBLE_DEVICES")
	first, _, _ := strings.Cut(list, ",")
	return set && ends(strings.TrimSpace(first))
}

// ends tells an entry that ends CUDA's list.
func ends(e string) bool { return e == "" || e == "-1" || e == "NoDevFiles" }

// visible gives those of all that CUDA_VISIBLE_DEVICES of env names, in its order: indices, UUIDs of GPUs or MIG
// instances, or unique beginnings of them. Unset: all GPUs, without instances. CUDA ends the list without a word
// at the first entry that it cannot use; here only "-1" and "NoDevFiles" end it, and a wrong entry is an error.
func visible(all []GPU, env []string) ([]GPU, error) {
	whole := slices.DeleteFunc(slices.Clone(all), func(g GPU) bool { return g.Parent != "" })
	list, set := lookup(env, "CUDA_VISIBLE_DEVICES")
	if !set {
		return whole, nil
	}
	var out []GPU
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); ends(e) {
			break
		}
		g, err := named(all, whole, e, env)
		if err == nil && slices.ContainsFunc(out, func(o GPU) bool { return o.UUID == g.UUID }) {
			err = fmt.Errorf("%s is named twice", e)
		}
		if err != nil {
			return nil, fmt.Errorf("CUDA_VISIBLE_DEVICES=%s: %w", list, err)
		}
		out = append(out, g)
	}
	if len(out) == 0 {
		return nil, errors.New("CUDA_VISIBLE_DEVICES=" + list + " hides all GPUs")
	}
	return out, nil
}

// named finds one entry of the list.
func named(all, whole []GPU, e string, env []string) (GPU, error) {
	if i, err := strconv.Atoi(e); err == nil {
		switch {
		case i < 0 || i >= len(whole):
			return GPU{}, fmt.Errorf("there is no GPU %d: this machine has %d, counted from 0", i, len(whole))
		case !sameOrder(whole, env):
			return GPU{}, fmt.Errorf("the machine has GPUs of several models, and CUDA counts the fastest first: name them by UUID "+
				"(nvidia-smi -L), or set CUDA_DEVICE_ORDER=PCI_BUS_ID; by PCI address GPU %d is %s", i, whole[i].UUID)
		}
		return whole[i], nil
	}
	var found []GPU
	for _, g := range all {
		if g.UUID == e {
			return g, nil
		}
		if strings.HasPrefix(g.UUID, e) && (strings.HasPrefix(e, "GPU-") || strings.HasPrefix(e, "MIG-")) {
			found = append(found, g)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return GPU{}, fmt.Errorf("no GPU or MIG instance of this machine is %s: see nvidia-smi -L", e)
	}
	return GPU{}, fmt.Errorf("%s is the beginning of %d UUIDs: write more of it", e, len(found))
}

// sameOrder tells whether CUDA's indices are those of the PCI addresses: asked for, or equal models, which CUDA
// leaves in that order.
func sameOrder(whole []GPU, env []string) bool {
	if order, _ := lookup(env, "CUDA_DEVICE_ORDER"); order == "PCI_BUS_ID" {
		return true
	}
	return !slices.ContainsFunc(whole, func(g GPU) bool { return g.Name != whole[0].Name })
}
