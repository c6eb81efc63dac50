package train

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/splora/splora/model/decoder"
)

// keys calls f with every field of Config, its key and its flag.
func keys(f func(i int, key, flag string)) {
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		key := typ.Field(i).Tag.Get("yaml")
		f(i, key, strings.ReplaceAll(key, "_", "-"))
	}
}

// value is the n-th valid value of field i, different from its default and from the other n's, as a flag would have it. Field by
// field only: what goes with what is Validate's.
func value(i, n int) string {
	d := Defaults()
	f := reflect.TypeFor[Config]().Field(i)
	words := map[string][]string{"method": {"lora", "splora"}, "schedule": {"linear", "constant"}, "too_long": {"split", "error"},
		"recompute": {"none", "block"}, "log_format": {"json", "text"}, "resume": {"none", "dir"}}
	switch f.Type.Kind() {
	case reflect.Bool:
		return fmt.Sprint(reflect.ValueOf(d).Field(i).Bool() != (n == 0))
	case reflect.Int, reflect.Uint64:
		return fmt.Sprint(7 + n)
	case reflect.Float64:
		return fmt.Sprint(0.25 + float64(n)/8)
	case reflect.Slice:
		return fmt.Sprintf("k_proj%d,v_proj%d", n, n)
	}
	if w := words[f.Tag.Get("yaml")]; w != nil {
		return w[n]
	}
	return fmt.Sprintf("/some/%s-%d: a # b", f.Name, n)
}

// set sets field i from a flag's text.
func set(t *testing.T, c *Config, i int, text string) {
	t.Helper()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Flags(fs, c)
	keys(func(j int, _, flag string) {
		if i == j {
			if err := fs.Set(flag, text); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestEveryKeyIsAFlagWithHelpAndEveryFlagOfTheDesignIsThere(t *testing.T) {
	c := Defaults()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Flags(fs, &c)
	n := 0
	keys(func(i int, key, flag string) {
		n++
		f := fs.Lookup(flag)
		if f == nil || len(f.Usage) < 5 {
			t.Errorf("key %s: flag %+v", key, f)
		} else if want := reflect.ValueOf(Defaults()).Field(i).Interface(); f.DefValue != fmt.Sprint(want) && f.DefValue != strings.Trim(strings.ReplaceAll(fmt.Sprint(want), " ", ","), "[]") {
			t.Errorf("--%s shows the default %q, which is %v", flag, f.DefValue, want)
		}
	})
	fs.VisitAll(func(*pflag.Flag) { n-- })
	if n != 0 {
		t.Errorf("%d more keys than flags", n)
	}
	for flag := range strings.FieldsSeq(`model data out adapter resume method rank alpha rslora dropout targets seq micro-batch accum global-batch max-steps epochs
		lr min-lr schedule warmup-steps warmup-ratio weight-decay clip packing shuffle train-on-prompt too-long seed recompute memory dtype threads eval-data
		eval-every save-every keep-last`) {
		if fs.Lookup(flag) == nil {
			t.Errorf("--%s is missing", flag)
		}
	}
}

func TestTheYAMLFormComesBackAsItWas(t *testing.T) {
	c := Defaults()
	keys(func(i int, _, _ string) { set(t, &c, i, value(i, 0)) })
	d := Defaults()
	keys(func(i int, key, _ string) {
		if reflect.DeepEqual(reflect.ValueOf(c).Field(i).Interface(), reflect.ValueOf(d).Field(i).Interface()) {
			t.Errorf("%s has its default: the test does not test it", key)
		}
	})
	for name, want := range map[string]Config{"all changed": c, "defaults": Defaults(), "zero": {}} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, want.YAML(), 0o644); err != nil {
			t.Fatal(err)
		}
		got := c // what the file does not say would stay
		if err := got.ReadYAML(path); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if string(got.YAML()) != string(want.YAML()) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got.YAML(), want.YAML())
		}
	}
}

// TestFlagsWinOverTheFileAndTheFileOverTheDefaults, for every key by itself.
func TestFlagsWinOverTheFileAndTheFileOverTheDefaults(t *testing.T) {
	resolve := func(file string, args ...string) Config {
		c := Defaults()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Flags(fs, &c)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		Resolve(fs, &c, file) // that the settings fit together is not the question here
		return c
	}
	keys(func(i int, key, flag string) {
		inFile, given := Defaults(), Defaults()
		set(t, &inFile, i, value(i, 0))
		set(t, &given, i, value(i, 1))
		text := value(i, 0)
		if k := reflect.TypeFor[Config]().Field(i).Type.Kind(); k == reflect.String {
			text = fmt.Sprintf("%q", text)
		}
		path := filepath.Join(t.TempDir(), "run.yaml")
		if err := os.WriteFile(path, []byte(key+": "+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what      string
			got, want Config
		}{
			{"nothing", resolve(""), Defaults()},
			{"the file", resolve(path), inFile},
			{"the flag", resolve("", "--"+flag+"="+value(i, 1)), given},
			{"both", resolve(path, "--"+flag+"="+value(i, 1)), given},
		} {
			if !reflect.DeepEqual(c.got, c.want) {
				t.Errorf("%s from %s:\n%swant\n%s", key, c.what, c.got.YAML(), c.want.YAML())
			}
		}
	})
}

func TestAListInYAMLIsASequenceOrOneString(t *testing.T) {
	for _, text := range []string{"data: a,b\n", "data: a, b\n", "data: [a, b]\n", "data:\n- a\n- b\n", "data:\n  - a\n  - b\n"} {
		path := filepath.Join(t.TempDir(), "run.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var c Config
		if err := c.ReadYAML(path); err != nil || fmt.Sprint([]string(c.Data)) != "[a b]" {
			t.Errorf("%q: %q, %v", text, c.Data, err)
		}
	}
}

func TestAFileWithAnErrorNamesItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"rank: 3\nranc: 4\n":            "[2:1]",
		"rank: 3\nlr: fast\n":           "[2:5] lr must be a number",
		"rank: 3\nrank: 4\n":            "[2:1]",
		"shuffle: 3\n":                  "[1:10] shuffle must be true or false",
		"rank: 1.5\n":                   "[1:7] rank must be an integer",
		"seed: 1.0\n":                   "[1:7] seed must be an integer",
		"seed: -1\n":                    "[1:7]",
		"data: {a: b}\n":                "[1:",
		"- rank\n":                      "[1:",
		"model: a\n  rank: [\n":         "[1:8]",
		"model: a\nlora:\n  r: 3":       "[2:1]",
		`"rank": 1.5`:                   "[1:9] rank must be an integer",
		"seed: 0\n'rank': 1.5":          "[2:9] rank must be an integer",
		`rank: "1.5"`:                   "[1:7] rank must be an integer",
		"rank: |\n  1\n":                "[1:7] rank must be an integer",
		"rank: 0\n---\nrank: 1":         "[2:1] a second document",
		"rank: !!int 1.5":               "[1:7] rank: write the value itself",
		"lr: 1\nrank: !!float 3":        "[2:7] rank: write the value itself",
		"rank: &a 3":                    "[1:7] rank: write the value itself",
		"alpha: 1\nlr: *a":              "[2:5]",
		"targets: [a, &b q_proj]":       "[1:14] targets: write the value itself",
		"targets:\n- a\n- [q_proj]":     "[2:1] targets must be a list of strings",
		"? rank\n: 1":                   "[1:1] a key must be a name",
		"<<: {rank: 1}":                 "[1:1] a key must be a name",
		"3: 1":                          "[1:1] a key must be a name",
		"--- !!map\nrank: 1":            "[1:5] not keys and values",
		"rank: 9223372036854775808":     "[1:7] rank must be an integer",
		"rank: -9223372036854775809":    "[1:7] rank must be an integer",
		"seed: 18446744073709551616":    "[1:7] seed must be an integer from 0 to 2^64-1",
		"seed: 99999999999999999999999": "[1:7] seed must be an integer from 0 to 2^64-1",
	} {
		path := filepath.Join(t.TempDir(), "run.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Defaults()
		if err := c.ReadYAML(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestAFileThatSaysNothingChangesNothing(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# rank: 3\n", "---\n", "# a\n---\n# b\n", "{}\n", "rank:\nclip: ~\n"} {
		path := filepath.Join(t.TempDir(), "run.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Defaults()
		if err := c.ReadYAML(path); err != nil || !reflect.DeepEqual(c, Defaults()) {
			t.Errorf("%q: %v\n%s", text, err, c.YAML())
		}
	}
}

func TestTheOneDocumentMayStandBetweenCommentsAndMarks(t *testing.T) {
	for _, text := range []string{"%YAML 1.2\n---\nseed: 18446744073709551615\n", "# a\n---\nseed: 18446744073709551615 # b\n...\n", "seed: 18446744073709551615\n---\n# c\n"} {
		path := filepath.Join(t.TempDir(), "run.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Defaults()
		if err := c.ReadYAML(path); err != nil || c.Seed != math.MaxUint64 {
			t.Errorf("%q: seed %d, %v", text, c.Seed, err)
		}
	}
}

func TestCountsBeyondAllUseAreRefused(t *testing.T) {
	for flag, change := range map[string]func(c *Config){
		"--micro-batch":  func(c *Config) { c.MicroBatch = 1 << 40 },
		"--max-steps":    func(c *Config) { c.MaxSteps = math.MaxInt },
		"--global-batch": func(c *Config) { c.GlobalBatch = 1 << 31 },
		"--rank":         func(c *Config) { c.Rank = 1 << 31 },
		"--accum":        func(c *Config) { c.Accum, c.MicroBatch = 1<<20, 1<<20 },
		"--lr":           func(c *Config) { c.LR = math.Inf(1) },
		"--epochs":       func(c *Config) { c.MaxSteps, c.Epochs = 1, math.NaN() },
	} {
		c := Defaults()
		c.Model, c.Data, c.Out = "model", List{"rows"}, "out"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); !IsUsage(err) || !strings.Contains(err.Error(), flag+" ") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestARunThatTheHostCannotHoldIsRefusedBeforeItAllocates(t *testing.T) {
	if HostMemory() == 0 {
		t.Skip("this system does not tell how much memory it has")
	}
	j := newJob(t, 2)
	j.MicroBatch = 1 << 30
	if err := j.run(t); err == nil || !strings.Contains(err.Error(), "--micro-batch") || !strings.Contains(err.Error(), "this host has") {
		t.Error(err)
	}
	j.MicroBatch, j.Rank = 1, 1<<30
	if err := j.run(t); err == nil || !strings.Contains(err.Error(), "--rank") {
		t.Error(err)
	}
	j.Rank = 2 // one rank fits, so many do not
	j.env = func(_ int, e *Env) { e.LocalRanks = HostMemory() / 1000 }
	if err := j.run(t); err == nil || !strings.Contains(err.Error(), "number of ranks") {
		t.Error(err)
	}
}

func TestTheMemoryLimitOfEveryCgroupAboveIsLookedAt(t *testing.T) {
	got := limitFiles("9:name=systemd:/x\n4:memory:/a/b\n3:cpuset,cpu:/c\n0::/u.slice/s.scope\n")
	want := []string{"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		"/sys/fs/cgroup/u.slice/s.scope/memory.max", "/sys/fs/cgroup/u.slice/memory.max", "/sys/fs/cgroup/memory.max"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := limitFiles(""); got != nil {
		t.Errorf("without a /proc/self/cgroup: %q", got)
	}
}

// The mapped base is counted once for all ranks of a host, everything else once for each.
func TestWhatRanksOfAHostShareIsCountedOnce(t *testing.T) {
	f := Footprint{Linears: 900, Tables: 100, Mapped: 990, Process: 20, Plan: decoder.Plan{Stack: 70}}
	if f.Total() != 1090 || f.Anonymous() != 100 {
		t.Errorf("total %d, of it %d its own", f.Total(), f.Anonymous())
	}
	if !f.Fits(1190, 2) || f.Fits(1189, 2) {
		t.Error("two ranks need 990 + 2·100")
	}
	f.Block = 50
	if f.Total() != 240 || f.Anonymous() != 100 {
		t.Errorf("streamed: total %d, of it %d its own", f.Total(), f.Anonymous())
	}
}
