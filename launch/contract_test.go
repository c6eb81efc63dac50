package launch

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func environment(list []string) func(string) string {
	m := map[string]string{}
	for _, v := range list {
		name, value, _ := strings.Cut(v, "=")
		m[name] = value
	}
	return func(name string) string { return m[name] }
}

func TestAnyContractSurvivesTheEnvironment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 64).Draw(t, "local size")
		lo := rapid.IntRange(1, 1000).Draw(t, "min")
		c := Contract{
			Job:        rapid.StringMatching(`[A-Za-z0-9._-]{1,128}`).Draw(t, "job"),
			Key:        rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"),
			Seeds:      rapid.SliceOfN(rapid.StringMatching(`([a-z0-9.-]{1,20}|\[::1\]):[1-9][0-9]{0,3}`), 1, 5).Draw(t, "seeds"),
			GossipPort: rapid.IntRange(0, 65535).Draw(t, "port"),
			GPU:        rapid.SampledFrom([]string{"", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"}).Draw(t, "gpu"),
			Bind:       rapid.SampledFrom([]string{"127.0.0.1", "0.0.0.0", "fe80::1"}).Draw(t, "bind"),
			Generation: rapid.IntRange(1, 1e6).Draw(t, "generation"),
			Attempt:    rapid.IntRange(1, 1e6).Draw(t, "attempt"),
			Rank:       rapid.IntRange(-1, 1e6).Draw(t, "rank"),
			LocalRank:  rapid.IntRange(0, size-1).Draw(t, "local rank"),
			LocalSize:  size,
			NodeRank:   rapid.IntRange(-1, 1e4).Draw(t, "node rank"),
			WorldMin:   lo,
			WorldMax:   lo + rapid.IntRange(0, 1000).Draw(t, "more"),
			ErrorFile:  rapid.SampledFrom([]string{"", "/tmp/a b=c.json"}).Draw(t, "error file"),
		}
		got, ok, err := FromEnv(environment(c.Environ()))
		if err != nil || !ok || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %v, want %v, error %v", got, c, err)
		}
	})
}

func example() Contract {
	return Contract{Job: "j", Key: bytes.Repeat([]byte("k3y!"), 8), Seeds: []string{"h:1"}, Bind: "127.0.0.1", Generation: 1, Attempt: 1,
		LocalSize: 2, WorldMin: 1, WorldMax: 2}
}

func TestAProcessWithoutLauncherHasNoContract(t *testing.T) {
	for _, env := range [][]string{nil, {"SPLORA_JOB=x", "SPLORA_KEY=?", "SPLORA_SEEDS=n1,n2"}} { // what a batch script may set
		if _, ok, err := FromEnv(environment(env)); ok || err != nil {
			t.Errorf("%v: ok %v, error %v", env, ok, err)
		}
	}
}

func TestABrokenContractNamesItsVariable(t *testing.T) {
	for _, bad := range []string{
		"SPLORA_JOB=", "SPLORA_KEY=", "SPLORA_KEY=s3cret", "SPLORA_KEY=czNjcmV0", "SPLORA_GOSSIP_PORT=70000", "SPLORA_BIND=", "SPLORA_GENERATION=0",
		"SPLORA_ATTEMPT=x", "SPLORA_RANK=-2", "SPLORA_LOCAL_RANK=2", "SPLORA_LOCAL_RANK=-1", "SPLORA_LOCAL_SIZE=0", "SPLORA_NODE_RANK=",
		"SPLORA_WORLD=2:1", "SPLORA_WORLD=0", "SPLORA_WORLD=", "SPLORA_SEEDS=host",
	} {
		name, value, _ := strings.Cut(bad, "=")
		_, ok, err := FromEnv(environment(append(example().Environ(), bad)))
		if !ok || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: ok %v, error %v", bad, ok, err)
		}
		if name == "SPLORA_KEY" && value != "" && strings.Contains(fmt.Sprint(err), value) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func TestAPrintedContractShowsNoKey(t *testing.T) {
	c := example()
	for _, format := range []string{"%v", "%+v", "%s", "%#v"} {
		s := fmt.Sprintf(format, c)
		if strings.Contains(s, "k3y!") || strings.Contains(s, base64.StdEncoding.EncodeToString(c.Key)) || strings.Contains(s, "107") {
			t.Errorf("%s: %s", format, s)
		}
	}
}

func TestAStatusIsReadAsItWasWritten(t *testing.T) {
	c := example()
	if c.Progress(0, 1) != nil {
		t.Error("a rank without an error file may not report")
	}
	c.ErrorFile = filepath.Join(t.TempDir(), "status.json")
	if s, ok := readStatus(c.ErrorFile); ok || s.Step != -1 {
		t.Errorf("status %+v of no file", s)
	}
	if err := c.Progress(1, 7); err != nil {
		t.Fatal(err)
	}
	if s, ok := readStatus(c.ErrorFile); !ok || s.Rank != 1 || s.Step != 7 || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	if err := c.Fail(1, 8, errors.New("no\nmemory"), true); err != nil {
		t.Fatal(err)
	}
	if s, ok := readStatus(c.ErrorFile); !ok || s.Step != 8 || s.Error != "no\nmemory" || !s.Lost || time.Since(s.Time) > time.Hour {
		t.Errorf("status %+v", s)
	}
	os.WriteFile(c.ErrorFile, []byte(`{"step":9,`), 0o600)
	if s, ok := readStatus(c.ErrorFile); ok || s.Step != -1 {
		t.Errorf("status %+v of a torn file", s)
	}
}

func TestAKeyFileMustBePrivateAndWellFormed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key := bytes.Repeat([]byte{7}, 32)
	text := base64.StdEncoding.EncodeToString(key)
	for _, c := range []struct {
		content string
		mode    os.FileMode
		want    string // in the error; empty = none
	}{
		{text + "\n", 0o600, ""},
		{text, 0o400, ""},
		{text, 0o640, "chmod 600"},
		{text, 0o604, "chmod 600"},
		{"not base64!", 0o600, "head -c 32"},
		{text[:12], 0o600, "9 bytes"},
		{"", 0o600, "0 bytes"},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadKeyFile(path)
		if c.want == "" && (err != nil || !bytes.Equal(got, key)) {
			t.Errorf("%q mode %o: %v", c.content, c.mode, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), text)) {
			t.Errorf("%q mode %o: error %v, want %q in it", c.content, c.mode, err, c.want)
		}
	}
}
