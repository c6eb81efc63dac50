package dist

import (
	"net"
	"strings"
	"sync"
)

// diagnosis collects what may explain why members do not find each other. It is memberlist's LogOutput, too.
type diagnosis struct {
	log Logger

	mu        sync.Mutex
	quiet     bool
	seeds     map[string]error // last answer, nil = met
	keyless   map[string]bool  // addresses whose gossip could not be decrypted
	labels    map[string]bool  // "job … at …"
	strangers map[string]bool  // addresses that failed our handshake
	refused   string           // last refused dial
}

func newDiagnosis(log Logger) *diagnosis {
	return &diagnosis{log: log, seeds: map[string]error{}, keyless: map[string]bool{}, labels: map[string]bool{}, strangers: map[string]bool{}}
}

// Write takes one line of memberlist's log: "date time [LEVEL] memberlist: text".
func (d *diagnosis) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if _, rest, ok := strings.Cut(line, "["); ok {
		line = "[" + rest
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	from := after(line, "from=")
	switch {
	case strings.Contains(line, "[DEBUG]") || d.quiet:
		return len(b), nil
	case aboutKey(line):
		d.note(d.keyless, hostOf(from), "gossip that cannot be decrypted: the gossip key differs", from)
	case strings.Contains(line, "unacceptable label"):
		label, _, _ := strings.Cut(after(line, "unacceptable label "), ": from=")
		d.note(d.labels, label+" at "+hostOf(from), "gossip of another job", label)
	case strings.Contains(line, "[ERR]"), strings.Contains(line, "[WARN]"):
		d.log.Debug("gossip: " + line)
	}
	return len(b), nil
}

// note remembers and logs something once.
func (d *diagnosis) note(set map[string]bool, key, what, detail string) {
	if !set[key] && len(set) < 16 {
		set[key] = true
		d.log.Warn(what, "from", detail)
	}
}

func aboutKey(s string) bool {
	for _, t := range []string{"no installed keys could decrypt", "encryption is configured but remote state is not encrypted",
		"remote state is encrypted and encryption is not configured", "Decrypt packet failed", "payload is too small to decrypt"} {
		if strings.Contains(s, t) {
			return true
		}
	}
	return false
}

func after(s, mark string) string {
	_, rest, _ := strings.Cut(s, mark)
	return rest
}

func hostOf(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

func (d *diagnosis) seed(addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seeds[addr] = err
}

func (d *diagnosis) stranger(addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(d.strangers, hostOf(addr), "a connection that could not authenticate: "+err.Error(), addr)
}

func (d *diagnosis) dial(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = err.Error()
}

func (d *diagnosis) silence() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quiet = true
}

// wrongKey names a seed that answers with another key, if no seed is met.
func (d *diagnosis) wrongKey() (seed string, wrong bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, err := range d.seeds {
		if err == nil {
			return "", false
		}
		if aboutKey(err.Error()) {
			seed, wrong = s, true
		}
	}
	return seed, wrong
}

// hints are the likely reasons, most telling first; "" if there is nothing to say.
func (d *diagnosis) hints() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for a := range d.keyless {
		out = append(out, "gossip from "+a+" could not be decrypted: the gossip key differs")
	}
	for l := range d.labels {
		out = append(out, "another job knocks: "+l+": give all members the same job and seeds of their own job")
	}
	for s, err := range d.seeds {
		if err != nil {
			out = append(out, "seed "+s+": "+explainSeed(err))
		}
	}
	for a := range d.strangers {
		out = append(out, "a connection from "+a+" could not authenticate: the job key differs, or it is a stranger")
	}
	if d.refused != "" {
		out = append(out, "control connection: "+d.refused)
	}
	return strings.Join(out, "; ")
}

func explainSeed(err error) string {
	text := err.Error()
	switch {
	case aboutKey(text):
		return "the gossip key differs"
	case strings.Contains(text, "connection refused"):
		return "connection refused: nobody listens there; check host and port, and that it was started"
	case strings.Contains(text, "EOF"), strings.Contains(text, "connection reset"):
		return "hung up: the job (label) differs, or it is not a member"
	case strings.Contains(text, "timeout"):
		return "no answer: check host, port and firewall (TCP and UDP)"
	}
	return text
}
