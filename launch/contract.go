package launch

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Exit codes of a rank and of the launcher.
const (
	ExitDone    = 0  // the work is done
	ExitFailed  = 1  // it failed
	ExitUsage   = 2  // wrong usage or configuration: trying again is of no use
	ExitStopped = 75 // stopped on a signal, with a checkpoint published unless it came before the first step; run again to go on
)

// Contract is what a rank process is told by its launcher. The package doc has the table of its variables.
type Contract struct {
	Job        string   // id of the job, the same on all nodes
	Key        []byte   // gossip key: 16, 24 or 32 bytes
	Seeds      []string // host:port of gossip members to join; empty only by hand
	GossipPort int      // port to bind for gossip; 0 = any free one
	Bind       string   // address to bind and to advertise
	Generation int      // ≥ 1, grows with each failed attempt
	Attempt    int      // ≥ 1, this launcher's attempts
	Rank       int      // wished global rank; −1 = no wish
	LocalRank  int      // 0 … LocalSize−1
	LocalSize  int      // ranks on this node
	NodeRank   int      // 0 … nodes−1; −1 = unknown
	WorldMin   int      // fewest ranks that may run
	WorldMax   int      // most ranks that may run
	GPU        string   // UUID of this rank's GPU, the only one that CUDA shows it; empty = none
	ErrorFile  string   // JSON status of this rank, see Progress, Fail and Late; empty = none wanted
}

// FromEnv reads the contract through getenv, usually os.Getenv. The second result is false, without an
// error, when no launcher started this process (SPLORA_LOCAL_RANK is unset). An error names the variable.
func FromEnv(getenv func(string) string) (Contract, bool, error) {
	if getenv("SPLORA_LOCAL_RANK") == "" {
		return Contract{}, false, nil
	}
	r := envReader{getenv: getenv}
	c := Contract{
		Job:        r.str("SPLORA_JOB"),
		Key:        r.key("SPLORA_KEY"),
		Seeds:      splitList(getenv("SPLORA_SEEDS")),
		GossipPort: r.num("SPLORA_GOSSIP_PORT", 0, 65535),
		Bind:       r.str("SPLORA_BIND"),
		Generation: r.num("SPLORA_GENERATION", 1, 1<<30),
		Attempt:    r.num("SPLORA_ATTEMPT", 1, 1<<30),
		Rank:       r.num("SPLORA_RANK", -1, 1<<30),
		LocalRank:  r.num("SPLORA_LOCAL_RANK", 0, 1<<30),
		LocalSize:  r.num("SPLORA_LOCAL_SIZE", 1, 1<<30),
		NodeRank:   r.num("SPLORA_NODE_RANK", -1, 1<<30),
		GPU:        getenv("SPLORA_GPU"),
		ErrorFile:  getenv("SPLORA_ERROR_FILE"),
	}
	c.WorldMin, c.WorldMax = r.span("SPLORA_WORLD")
	if r.err == nil && c.LocalRank >= c.LocalSize {
		r.fail("SPLORA_LOCAL_RANK", fmt.Sprintf("%d is not below SPLORA_LOCAL_SIZE = %d", c.LocalRank, c.LocalSize))
	}
	for _, s := range c.Seeds {
		if _, _, err := net.SplitHostPort(s); err != nil {
			r.fail("SPLORA_SEEDS", err.Error())
		}
	}
	if r.err != nil {
		return Contract{}, true, r.err
	}
	return c, true, nil
}

// Environ gives the contract as NAME=value, for the environment of a rank process.
func (c Contract) Environ() []string {
	return []string{
		"SPLORA_JOB=" + c.Job,
		"SPLORA_KEY=" + base64.StdEncoding.EncodeToString(c.Key),
		"SPLORA_SEEDS=" + strings.Join(c.Seeds, ","),
		"SPLORA_GOSSIP_PORT=" + strconv.Itoa(c.GossipPort),
		"SPLORA_BIND=" + c.Bind,
		"SPLORA_GENERATION=" + strconv.Itoa(c.Generation),
		"SPLORA_ATTEMPT=" + strconv.Itoa(c.Attempt),
		"SPLORA_RANK=" + strconv.Itoa(c.Rank),
		"SPLORA_LOCAL_RANK=" + strconv.Itoa(c.LocalRank),
		"SPLORA_LOCAL_SIZE=" + strconv.Itoa(c.LocalSize),
		"SPLORA_NODE_RANK=" + strconv.Itoa(c.NodeRank),
		fmt.Sprintf("SPLORA_WORLD=%d:%d", c.WorldMin, c.WorldMax),
		"SPLORA_GPU=" + c.GPU,
		"SPLORA_ERROR_FILE=" + c.ErrorFile,
	}
}

// String leaves the key out, so that a contract may be logged.
func (c Contract) String() string {
	return fmt.Sprintf("job %s generation %d attempt %d rank %d local %d/%d node %d world %d:%d bind %s port %d seeds %s gpu %q",
		c.Job, c.Generation, c.Attempt, c.Rank, c.LocalRank, c.LocalSize, c.NodeRank, c.WorldMin, c.WorldMax,
		c.Bind, c.GossipPort, strings.Join(c.Seeds, ","), c.GPU)
}

// GoString is String: %#v shows no key either.
func (c Contract) GoString() string { return c.String() }

// Status is the content of a rank's ErrorFile: how far it came and, if it failed, why.
type Status struct {
	Rank  int       `json:"rank"`            // global rank as agreed, or the wished one
	Step  int       `json:"step"`            // last step that was reached
	Error string    `json:"error,omitempty"` // one line; empty while nothing failed
	Lost  bool      `json:"lost,omitempty"`  // the error only says that another rank was lost: not the cause
	Late  int       `json:"late,omitempty"`  // the generation under way that has no place for this rank; 0 = not the cause
	Time  time.Time `json:"time"`
}

// Progress tells the launcher that the rank reached step, so that a crash loop that moves forward is told
// from one that does not. Cheap (one small file, renamed into place, no fsync): call it at each checkpoint.
func (c Contract) Progress(rank, step int) error {
	return writeStatus(c.ErrorFile, Status{Rank: rank, Step: step, Time: time.Now()})
}

// Fail tells the launcher why this rank is about to exit. lost marks an error that only reports the loss of
// another rank; the launcher then looks for the cause elsewhere first.
func (c Contract) Fail(rank, step int, cause error, lost bool) error {
	return writeStatus(c.ErrorFile, Status{Rank: rank, Step: step, Error: cause.Error(), Lost: lost, Time: time.Now()})
}

// Late tells the launcher that this rank was not let in and is about to exit: a group of the job is under way, of this
// rank's generation or of a later one. The launcher tries again under that generation, until it ends.
func (c Contract) Late(generation int, cause error) error {
	return writeStatus(c.ErrorFile, Status{Rank: c.Rank, Step: -1, Error: cause.Error(), Late: generation, Time: time.Now()})
}

func writeStatus(path string, s Status) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("launch: status of rank %d: %w", s.Rank, err)
	}
	return writeAtomic(path, append(b, '\n'), false)
}

// readStatus gives a rank's status; ok is false when it wrote none (Step is then −1).
func readStatus(path string) (s Status, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return Status{Step: -1}, false
	}
	return s, true
}

// writeAtomic writes beside path and renames; sync also makes it durable.
func writeAtomic(path string, b []byte, sync bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	_, err = f.Write(b)
	if err == nil && sync {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("launch: write %s: %w", path, err)
	}
	return nil
}

// ParseKey reads a gossip key: base64 of 16, 24 or 32 bytes, white space around it allowed. Its error never
// quotes the text.
func ParseKey(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil {
		return nil, errors.New("key is not base64")
	}
	if n := len(b); n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("key has %d bytes, not 16, 24 or 32", n)
	}
	return b, nil
}

// ReadKeyFile reads a key as ParseKey does, from a file that only its owner may read.
func ReadKeyFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("launch: key file: %w", err)
	}
	if checkModes && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("launch: key file %s has mode %04o and others can read it: chmod 600 %s",
			path, st.Mode()&fs.ModePerm, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("launch: key file: %w", err)
	}
	key, err := ParseKey(string(b))
	if err != nil {
		return nil, fmt.Errorf("launch: key file %s: %w; make one with: head -c 32 /dev/urandom | base64", path, err)
	}
	return key, nil
}

// envReader keeps the first error, so that FromEnv reads as a table.
type envReader struct {
	getenv func(string) string
	err    error
}

func (r *envReader) fail(name, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("launch: environment variable %s: %s", name, what)
	}
}

func (r *envReader) str(name string) string {
	s := r.getenv(name)
	if s == "" {
		r.fail(name, "is not set, though SPLORA_LOCAL_RANK is")
	}
	return s
}

func (r *envReader) num(name string, lo, hi int) int {
	s := r.str(name)
	n, err := strconv.Atoi(s)
	if err != nil || n < lo || n > hi {
		r.fail(name, fmt.Sprintf("%q is not a number from %d to %d", s, lo, hi))
	}
	return n
}

func (r *envReader) key(name string) []byte {
	b, err := ParseKey(r.str(name))
	if err != nil {
		r.fail(name, err.Error())
	}
	return b
}

func (r *envReader) span(name string) (lo, hi int) {
	s := r.str(name)
	lo, hi, err := ParseSpan(s)
	if err != nil {
		r.fail(name, err.Error())
	}
	return lo, hi
}

// ParseSpan reads "N" or "MIN:MAX", 1 ≤ MIN ≤ MAX.
func ParseSpan(s string) (lo, hi int, err error) {
	a, b, two := strings.Cut(s, ":")
	if !two {
		b = a
	}
	lo, err1 := strconv.Atoi(a)
	hi, err2 := strconv.Atoi(b)
	if err1 != nil || err2 != nil || lo < 1 || hi < lo || hi > 1<<30 {
		return 0, 0, fmt.Errorf("%q is not N or MIN:MAX with 1 ≤ MIN ≤ MAX", s)
	}
	return lo, hi, nil
}

func splitList(s string) []string {
	var list []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			list = append(list, e)
		}
	}
	return list
}
