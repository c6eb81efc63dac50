package nccl

import (
	"fmt"
	"runtime"
	"strings"
)

// Library is an opened libnccl.so.2.
type Library struct {
	abi     abi
	path    string
	version Version
}

// Open finds and opens the library: the one at path, a file or a folder to look in; or, if path is "", the loader's, else
// one that pip has installed (site-packages/nvidia/nccl/lib). It is never closed again.
func Open(path string) (*Library, error) {
	a, found, err := open(path)
	if err != nil {
		return nil, err
	}
	return newLibrary(a, found)
}

func newLibrary(a abi, path string) (*Library, error) {
	var missing []string
	for _, s := range required {
		if !a.has(s) {
			missing = append(missing, s)
		}
	}
	if !a.has("ncclGetVersion") {
		return nil, fmt.Errorf("nccl: %s is not an NCCL library: it has no ncclGetVersion", path)
	}
	code, r := a.getVersion()
	if r != Success {
		return nil, fmt.Errorf("nccl: %s: ncclGetVersion: %w", path, r)
	}
	l := &Library{abi: a, path: path, version: Version(code)}
	if l.version < oldest {
		return nil, fmt.Errorf("nccl: %s is NCCL %s: %s or later is needed", path, l.version, oldest)
	}
	if missing != nil {
		return nil, fmt.Errorf("nccl: %s (NCCL %s) lacks %s: it is damaged or not NVIDIA's", path, l.version, strings.Join(missing, ", "))
	}
	return l, nil
}

// Path is where the library was found.
func (l *Library) Path() string { return l.path }

// GetVersion is the library's version, 2.18.0 or later.
func (l *Library) GetVersion() Version { return l.version }

// Has tells whether the library has a function, by its name in nccl.h. Only those that this package calls are known.
func (l *Library) Has(symbol string) bool { return l.abi.has(symbol) }

// Missing are the optional functions that the library is too old for.
func (l *Library) Missing() []string {
	var out []string
	for _, o := range optional {
		if !l.abi.has(o.symbol) {
			out = append(out, o.symbol)
		}
	}
	return out
}

// need is an error if an optional function is missing.
func (l *Library) need(symbol string) error {
	if l.abi.has(symbol) {
		return nil
	}
	for _, o := range optional {
		if o.symbol == symbol {
			return &MissingError{Symbol: symbol, Since: o.since, Library: l.path, Version: l.version}
		}
	}
	panic("nccl: " + symbol + " is neither required nor optional")
}

// GetUniqueId makes the id of a communicator to be. It starts a thread that listens for the ranks: the process must live
// until all of them have joined. It needs no GPU.
func (l *Library) GetUniqueId() (UniqueId, error) {
	var id UniqueId
	return id, l.check("ncclGetUniqueId", 0, l.abi.uniqueID(0, &id))
}

// GetLastError is the library's last error message; "" if there was none.
func (l *Library) GetLastError() string { return strings.TrimSpace(l.abi.lastError(0)) }

// GroupStart begins a group: the calls up to GroupEnd are issued together, so that, for one, a Send and a Recv do not wait
// for each other. The goroutine stays on its thread until then.
func (l *Library) GroupStart() error {
	runtime.LockOSThread()
	err := l.check("ncclGroupStart", 0, l.abi.group("ncclGroupStart"))
	if err != nil {
		runtime.UnlockOSThread()
	}
	return err
}

// GroupEnd issues the group. Wait on its communicators then.
func (l *Library) GroupEnd() error {
	defer runtime.UnlockOSThread()
	return l.check("ncclGroupEnd", 0, l.abi.group("ncclGroupEnd"))
}

// MemAlloc gives n bytes of device memory that NCCL can register; MemFree takes them back.
func (l *Library) MemAlloc(n int) (uintptr, error) {
	if err := l.need("ncclMemAlloc"); err != nil {
		return 0, err
	}
	p, r := l.abi.memAlloc(n)
	return p, l.check("ncclMemAlloc", 0, r)
}

// MemFree frees what MemAlloc gave.
func (l *Library) MemFree(p uintptr) error {
	if err := l.need("ncclMemFree"); err != nil {
		return err
	}
	return l.check("ncclMemFree", 0, l.abi.memFree(p))
}

// check turns a result into an error with NCCL's own words. What is in progress is no error.
func (l *Library) check(call string, comm uintptr, r Result) error {
	if r == Success || r == InProgress {
		return nil
	}
	return &Error{Call: call, Result: r, Text: strings.TrimSpace(l.abi.lastError(comm)), About: l.abi.errorString(r)}
}
