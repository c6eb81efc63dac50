package nccl

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestTheConfigurationIsThe48BytesThatEveryLibrarySince217Reads(t *testing.T) {
	var c config
	for name, at := range map[string][2]uintptr{
		"size": {unsafe.Offsetof(c.size), 0}, "magic": {unsafe.Offsetof(c.magic), 8}, "version": {unsafe.Offsetof(c.version), 12},
		"blocking": {unsafe.Offsetof(c.blocking), 16}, "cgaClusterSize": {unsafe.Offsetof(c.cgaClusterSize), 20},
		"minCTAs": {unsafe.Offsetof(c.minCTAs), 24}, "maxCTAs": {unsafe.Offsetof(c.maxCTAs), 28},
		"netName": {unsafe.Offsetof(c.netName), 32}, "splitShare": {unsafe.Offsetof(c.splitShare), 40}, "sizeof": {unsafe.Sizeof(c), 48},
	} {
		if at[0] != at[1] {
			t.Errorf("%s at %d, not at %d", name, at[0], at[1])
		}
	}
	e := Config{}.encode()
	if e.size != 48 || e.magic != 0xcafebeef || e.version != 21700 || e.blocking != 0 || e.minCTAs != math.MinInt32 || e.maxCTAs != math.MinInt32 ||
		e.cgaClusterSize != math.MinInt32 || e.splitShare != math.MinInt32 || e.netName != 0 {
		t.Errorf("%+v", *e)
	}
	if e := (Config{MinCTAs: 1, MaxCTAs: 4, SplitShare: true}).encode(); e.minCTAs != 1 || e.maxCTAs != 4 || e.splitShare != 1 {
		t.Errorf("%+v", *e)
	}
}

// header is nccl.h, where a wheel or a package has brought it.
func header(t *testing.T) string {
	var at []string
	for _, p := range installed(prefixes()) {
		at = append(at, filepath.Join(filepath.Dir(p), "../include/nccl.h"))
	}
	for _, p := range append(at, "/usr/include/nccl.h") {
		if b, err := os.ReadFile(p); err == nil {
			return string(b)
		}
	}
	t.Skip("no nccl.h on this machine to compare the numbers with")
	return ""
}

func TestNamesHaveTheNumbersOfTheHeader(t *testing.T) {
	h := header(t)
	want := map[string]int{"ncclFloat8e4m3": int(Float8e4m3), "ncclFloat8e5m2": int(Float8e5m2)}
	for r := Success; r <= Timeout; r++ {
		want[r.String()] = int(r)
	}
	for _, d := range []DataType{Int8, Uint8, Int32, Uint32, Int64, Uint64, Float16, Float32, Float64, Bfloat16} {
		s := d.String()
		want["nccl"+strings.ToUpper(s[:1])+s[1:]] = int(d)
	}
	for _, o := range []RedOp{Sum, Prod, Max, Min, Avg} {
		s := o.String()
		want["nccl"+strings.ToUpper(s[:1])+s[1:]] = int(o)
	}
	if len(want) != 26 {
		t.Fatalf("%d names", len(want))
	}
	for name, n := range want {
		m := regexp.MustCompile(`\b` + name + `\s*=\s*(\d+)`).FindStringSubmatch(h)
		if m == nil {
			t.Errorf("%s is not in the header", name)
		} else if got, _ := strconv.Atoi(m[1]); got != n {
			t.Errorf("%s is %d here and %d in the header", name, n, got)
		}
	}
	for _, s := range required {
		if !regexp.MustCompile(`\b` + s + `\(`).MatchString(h) {
			t.Errorf("%s is not in the header", s)
		}
	}
}

func TestAVersionCodeIsReadAsItsThreeNumbers(t *testing.T) {
	for v, want := range map[Version]string{21805: "2.18.5", 22304: "2.23.4", 23007: "2.30.7"} {
		if v.String() != want {
			t.Errorf("%d: %s", int(v), v)
		}
	}
	if Version(23002).MultiRankGPU() || !Version(23003).MultiRankGPU() || Version(22304).RAS() || !Version(22403).RAS() {
		t.Error("features by version")
	}
}

func TestAUniqueIdIsACredentialAndIsNotPrinted(t *testing.T) {
	id := UniqueId{1, 2, 0xab}
	other := UniqueId{1, 2, 0xac}
	if s := id.String(); len(s) > 24 || s == other.String() || strings.Contains(s, "171") || id.GoString() != s {
		t.Error(s)
	}
}

func TestAnErrorCarriesTheCallTheResultAndNCCLsWords(t *testing.T) {
	e := &Error{Call: "ncclAllReduce", Result: RemoteError, Text: "socket closed by 10.0.0.7", About: "remote process exited"}
	if !errors.Is(e, RemoteError) || errors.Is(e, SystemError) || e.Error() != "nccl: ncclAllReduce: remote process exited (ncclRemoteError): socket closed by 10.0.0.7" {
		t.Error(e)
	}
}

func TestWheelsAreFoundUnderAPrefixTheNewestPythonFirst(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"lib/python3.9/site-packages", "lib/python3.12/site-packages", "lib/python3/dist-packages"} {
		f := filepath.Join(dir, p, wheel)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := installed([]string{dir})
	if len(got) != 3 || got[0] != filepath.Join(dir, "lib/python3.12/site-packages", wheel) {
		t.Error(got)
	}
}

// slow is a library whose calls take as long as they like.
type slow struct {
	abi
	enter, leave chan struct{}
}

func (s slow) commInt(string, uintptr) (int, Result) {
	close(s.enter)
	<-s.leave
	return 0, Success
}
func (s slow) comm(string, uintptr) Result { return Success }

func TestAnAbortThatCannotHaveItsTurnIsReportedAsHungWithinItsBudget(t *testing.T) {
	s := slow{enter: make(chan struct{}), leave: make(chan struct{})}
	c := newComm(&Library{abi: s}, 1)
	done := make(chan error)
	go func() { done <- c.GetAsyncError() }()
	<-s.enter
	err := c.Abort(20 * time.Millisecond)
	if h := (*HungError)(nil); !errors.As(err, &h) || h.Call != "ncclCommAbort" {
		t.Error(err)
	}
	close(s.leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := c.Abort(10 * time.Second); err != nil { // the first one's turn comes, or this one's
		t.Error(err)
	}
	if err := c.Wait(context.Background()); err == nil || !strings.Contains(err.Error(), "communicator that was aborted") {
		t.Error(err)
	}
}

// fakeDriver answers every query alike.
type fakeDriver int

func (f fakeDriver) streamQuery(stream uintptr) int { return int(f) }
func (fakeDriver) errorName(code int) string        { return "CUDA_ERROR_ILLEGAL_ADDRESS" }

func TestAStreamIsDoneBusyOrBrokenAsTheDriverSays(t *testing.T) {
	for code, want := range map[fakeDriver]struct {
		done bool
		err  string
	}{0: {true, ""}, 600: {false, ""}, 700: {false, "nccl: cuStreamQuery: CUDA_ERROR_ILLEGAL_ADDRESS (700)"}} {
		done, err := (&Driver{code}).StreamQuery(1)
		if done != want.done || err == nil != (want.err == "") || err != nil && err.Error() != want.err {
			t.Errorf("%d: %v, %v", code, done, err)
		}
	}
	if _, err := OpenDriver("/nonexistent/libcuda.so.1"); err == nil || !strings.HasPrefix(err.Error(), "nccl: the CUDA driver: ") {
		t.Error(err)
	}
}
