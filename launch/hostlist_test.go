package launch

import (
	"slices"
	"strings"
	"testing"
)

func TestHostlistsExpandAsSlurmDoes(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"a":                   "a",
		"a[1,3-4],b7":         "a1 a3 a4 b7",
		"n[1-2][5-6]":         "n15 n16 n25 n26",
		"gpu-[001-003]":       "gpu-001 gpu-002 gpu-003",
		"x[9-11]":             "x9 x10 x11",
		"n[1-3],m[09-10]":     "n1 n2 n3 m09 m10",
		"rack[0-1]n[08-10]":   "rack0n08 rack0n09 rack0n10 rack1n08 rack1n09 rack1n10",
		"a,b,c":               "a b c",
		"n[098-101]":          "n098 n099 n100 n101",
		"node-1.cluster.site": "node-1.cluster.site",
	} {
		got, err := Hostlist(in)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q, error %v", in, got, want, err)
		}
	}
}

func TestMalformedHostlistsAreRefused(t *testing.T) {
	for _, in := range []string{
		"rack[0-1]n[08-10]x", "a[1-", "a[1-2", "a]1[", "a[[1]]", "a[2-1]", "a[]", "a[x]", "a[-1]", "a[1-]", "a[1,]", "a,,b", "a,", ",a",
		"a b", "a[0-99999999]", "a[0-60000][0-60000]", "a[0-40000],b[0-40000]",
	} {
		if got, err := Hostlist(in); err == nil {
			t.Errorf("%q: got %d hosts and no error", in, len(got))
		}
	}
}

// What comes out is plain names, bounded, and expands to itself.
func FuzzHostlist(f *testing.F) {
	for _, s := range []string{"a[1,3-4],b7", "n[1-2][5-6]", "gpu-[001-003]", "rack[0-1]n[08-10]x", "a[0-4294967295]", "[1]", "[1-2]]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hosts, err := Hostlist(s)
		if err != nil {
			return
		}
		if len(hosts) > maxHosts || (len(hosts) == 0) != (s == "") {
			t.Fatalf("%q: %d hosts", s, len(hosts))
		}
		if again, err := Hostlist(strings.Join(hosts, ",")); err != nil || !slices.Equal(again, hosts) {
			t.Errorf("%q gives %q, which gives %q, error %v", s, hosts, again, err)
		}
	})
}
