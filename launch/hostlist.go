package launch

import (
	"fmt"
	"strconv"
	"strings"
)

// maxHosts bounds what a hostlist may expand to.
const maxHosts = 1 << 16

// Hostlist expands Slurm's short form of a list of hosts, in order:
//
//	a[1,3-4],b7     a1 a3 a4 b7
//	n[1-2][5-6]     n15 n16 n25 n26
//	gpu-[001-003]   keeps the padding
//
// Text after the last bracket of a host is refused, as Slurm does.
func Hostlist(s string) ([]string, error) {
	var hosts []string
	for s != "" {
		elem, rest, err := cutElement(s)
		if err != nil {
			return nil, err
		}
		more, err := expand(elem)
		if err != nil {
			return nil, err
		}
		if hosts = append(hosts, more...); len(hosts) > maxHosts {
			return nil, fmt.Errorf("launch: hostlist has more than %d hosts", maxHosts)
		}
		s = rest
	}
	return hosts, nil
}

// cutElement cuts at the first comma outside brackets.
func cutElement(s string) (elem, rest string, err error) {
	inside := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '[' && !inside, c == ']' && inside:
			inside = !inside
		case c == '[' || c == ']':
			return "", "", fmt.Errorf("launch: hostlist %q: unexpected %q at byte %d", s, c, i)
		case c == ',' && !inside:
			if i+1 == len(s) {
				return "", "", fmt.Errorf("launch: hostlist %q ends in a comma", s)
			}
			return s[:i], s[i+1:], nil
		}
	}
	if inside {
		return "", "", fmt.Errorf("launch: hostlist %q: bracket is not closed", s)
	}
	return s, "", nil
}

// expand multiplies out name[ranges]name[ranges]….
func expand(elem string) ([]string, error) {
	if elem == "" || strings.ContainsAny(elem, " \t\r\n") {
		return nil, fmt.Errorf("launch: hostlist: %q is not a host", elem)
	}
	hosts := []string{""}
	for rest := elem; rest != ""; {
		name, tail, bracket := strings.Cut(rest, "[")
		ends := []string{""}
		if bracket {
			list, after, _ := strings.Cut(tail, "]")
			var err error
			if ends, err = ranges(list); err != nil {
				return nil, fmt.Errorf("launch: hostlist: %q: %w", elem, err)
			}
			tail = after
		} else if name != elem {
			return nil, fmt.Errorf("launch: hostlist: %q: text after the last bracket", elem)
		}
		if len(hosts)*len(ends) > maxHosts {
			return nil, fmt.Errorf("launch: hostlist: %q has more than %d hosts", elem, maxHosts)
		}
		hosts = product(hosts, name, ends)
		rest = tail
	}
	return hosts, nil
}

func product(heads []string, middle string, ends []string) []string {
	all := make([]string, 0, len(heads)*len(ends))
	for _, h := range heads {
		for _, e := range ends {
			all = append(all, h+middle+e)
		}
	}
	return all
}

// ranges expands "1,3-4" or "001-003": the lower bound's digits are the padding.
func ranges(s string) ([]string, error) {
	var out []string
	for r := range strings.SplitSeq(s, ",") {
		a, b, two := strings.Cut(r, "-")
		if !two {
			b = a
		}
		lo, err1 := strconv.ParseUint(a, 10, 32)
		hi, err2 := strconv.ParseUint(b, 10, 32)
		if err1 != nil || err2 != nil || hi < lo || hi-lo >= maxHosts || len(out) > maxHosts {
			return nil, fmt.Errorf("%q is not a range of at most %d numbers", r, maxHosts)
		}
		for i := lo; i <= hi; i++ {
			out = append(out, fmt.Sprintf("%0*d", len(a), i))
		}
	}
	return out, nil
}
