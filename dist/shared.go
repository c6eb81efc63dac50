package dist

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"unsafe"
)

// Ranks of one host pass floats through memory that both have mapped, rather than through the kernel: a ring of slots, which the left
// neighbour fills and the right one empties, the first by one copy and the second by none where it adds. The data connection stays: a
// byte from left to right says that the next slot is full, a byte back that one is empty, and its end is the peer's. So whoever waits
// sleeps in the network poller as before, and everything that is said of connections (authentication, failure, closing) stays true.
const (
	slots       = 4
	slotBytes   = 512 << 10
	tokenBytes  = 32
	headBytes   = 4096 // token, and how full each slot is
	sharedBytes = headBytes + slots*slotBytes
)

// shared is that memory: token │ filled of each slot │ … │ slots.
type shared struct{ mem []byte }

func (s *shared) token() []byte { return s.mem[:tokenBytes] }

func (s *shared) slot(i int) []byte { return s.mem[headBytes+i*slotBytes:][:slotBytes] }

// offer is what the left neighbour says of its memory, over the authenticated connection; an empty Path: nothing is shared.
type offer struct {
	Path  string `json:"path"`
	Token []byte `json:"token"`
}

// sharing agrees with both neighbours on memory to share, where they are on this host; otherwise the connections stay as they are.
func (g *group) sharing(in, out net.Conn, left, right string) (net.Conn, net.Conn, error) {
	mine, o, done, err := (*shared)(nil), offer{}, func() {}, error(nil)
	if right == g.n.cfg.Host && !g.n.cfg.Apart {
		if mine, o, done, err = newShared(); err != nil {
			g.n.cfg.Logger.Debug("no memory to share", "err", err)
			mine, o, done = nil, offer{}, func() {}
		}
	}
	defer done()
	if err := sendOffer(out, o); err != nil {
		return nil, nil, err
	}
	theirs, err := takeOffer(in)
	if err != nil {
		return nil, nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(out, answer[:]); err != nil {
		return nil, nil, err
	}
	if mine != nil && answer[0] == 1 {
		out = newSharedOut(out, mine)
	}
	if theirs != nil {
		in = newSharedIn(in, theirs)
	}
	g.n.cfg.Logger.Debug("data", "shared with the left", theirs != nil, "with the right", mine != nil && answer[0] == 1)
	return in, out, nil
}

func sendOffer(c net.Conn, o offer) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// takeOffer reads the left neighbour's offer and says whether it is taken; nil: not.
func takeOffer(c net.Conn) (s *shared, err error) {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.LittleEndian.Uint16(n[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	var o offer
	if json.Unmarshal(b, &o) == nil && o.Path != "" {
		s, _ = openShared(o) // another container, say: then it is not taken
	}
	answer := byte(0)
	if s != nil {
		answer = 1
	}
	_, err = c.Write([]byte{answer})
	return s, err
}

// bell is a connection that carries only the bytes which say that something is ready; what goes by memory is metered.
type bell struct {
	net.Conn
	meter func(n int)
	s     *shared
	buf   [slots]byte
	ready int // slots that this side may use
	next  int // the first of them
}

// wait until a slot is this side's.
func (b *bell) wait() error {
	for b.ready == 0 {
		n, err := b.Conn.Read(b.buf[:])
		b.ready += n
		if err != nil && b.ready == 0 {
			return err
		}
	}
	return nil
}

// pass hands the first slot to the other side.
func (b *bell) pass() error {
	b.ready--
	b.next = (b.next + 1) % slots
	_, err := b.Conn.Write([]byte{1})
	return err
}

// sharedOut is the left neighbour's end: Write fills slots.
type sharedOut struct{ bell }

func newSharedOut(c net.Conn, s *shared) *sharedOut {
	raw, written, _ := unmetered(c)
	return &sharedOut{bell{Conn: raw, meter: written, s: s, ready: slots}}
}

func (o *sharedOut) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if err := o.wait(); err != nil {
			return n, err
		}
		k := copy(o.s.slot(o.next), b)
		o.s.filled(o.next).Store(uint32(k))
		if err := o.pass(); err != nil {
			return n, err
		}
		o.meter(k)
		n, b = n+k, b[k:]
	}
	return n, nil
}

// sharedIn is the right neighbour's end: Read and add empty them.
type sharedIn struct {
	bell
	done int // bytes of the first slot that have been read
}

func newSharedIn(c net.Conn, s *shared) *sharedIn {
	raw, _, read := unmetered(c)
	return &sharedIn{bell: bell{Conn: raw, meter: read, s: s}}
}

// some is up to n bytes of the first slot; take ends their use.
func (i *sharedIn) some(n int) ([]byte, error) {
	if err := i.wait(); err != nil {
		return nil, err
	}
	full := min(int(i.s.filled(i.next).Load()), slotBytes)
	return i.s.slot(i.next)[i.done:full][:min(n, full-i.done)], nil
}

// take hands the slot back when all of it has been read. That the other side has gone is seen where something is missing, not here.
func (i *sharedIn) take(n int) {
	i.meter(n)
	if i.done += n; i.done >= int(i.s.filled(i.next).Load()) {
		i.done = 0
		_ = i.pass()
	}
}

func (i *sharedIn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	from, err := i.some(len(b))
	if err != nil {
		return 0, err
	}
	n := copy(b, from)
	i.take(n)
	return n, nil
}

// add adds what comes to v, without another copy. Both sides cut at whole floats, and this machine's are those of the wire.
func (i *sharedIn) add(v []float32) error {
	for len(v) > 0 {
		from, err := i.some(4 * len(v))
		if err != nil {
			return err
		}
		n := len(from) / 4
		add(v[:n], unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(from))), n))
		i.take(4 * n)
		v = v[n:]
	}
	return nil
}

// unmetered is a connection without its meter, and its meters.
func unmetered(c net.Conn) (raw net.Conn, written, read func(int)) {
	if m, ok := c.(metered); ok {
		return m.Conn, func(n int) { m.written.Add(int64(n)) }, func(n int) { m.read.Add(int64(n)) }
	}
	return c, func(int) {}, func(int) {}
}
