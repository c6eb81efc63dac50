package dist

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A control frame: length (of kind and payload, uint32) │ kind │ payload.

type kind byte

const (
	kRendezvous kind = iota + 1 // JSON rendezvous.Message
	kCall                       // rank → 0: what collective it entered (callFrame)
	kPart                       // rank → 0: its part of a gather (callFrame with Bytes)
	kParts                      // 0 → rank: all parts of a gather
	kBeat                       // rank → 0: where it is (vital)
	kTable                      // 0 → rank: where all are ([]vital)
	kAbort                      // rank → 0: please abort; 0 → rank: aborted
	kBye                        // rank → 0 → ranks: closes the group (byeFrame)
)

const maxFrame = 512 << 20 // parts of a gather of 256 ranks, in base64

// link is one control connection to one member. Frames are written in order by a goroutine of its own.
type link struct {
	peer string // the member's name
	conn net.Conn

	mu      sync.Mutex
	wake    sync.Cond
	out     [][]byte
	writing bool
	closed  bool
}

func newLink(peer string) *link {
	l := &link{peer: peer}
	l.wake.L = &l.mu
	return l
}

func (l *link) send(k kind, payload []byte) {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 5+len(payload)), uint32(1+len(payload)))
	b = append(append(b, byte(k)), payload...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, b)
	l.wake.Broadcast()
}

// write sends what is queued until the link is closed or fails.
func (l *link) write() error {
	for {
		l.mu.Lock()
		l.writing = false
		l.wake.Broadcast()
		for len(l.out) == 0 && !l.closed {
			l.wake.Wait()
		}
		if l.closed {
			l.mu.Unlock()
			return net.ErrClosed
		}
		var bufs net.Buffers = l.out
		l.out, l.writing = nil, true
		l.mu.Unlock()
		l.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		for _, b := range bufs {
			if _, err := l.conn.Write(b); err != nil {
				return err
			}
		}
	}
}

// read hands every frame to got until the link fails.
func (l *link) read(got func(kind, []byte)) error {
	var head [4]byte
	for {
		if _, err := io.ReadFull(l.conn, head[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n < 1 || n > maxFrame {
			return fmt.Errorf("a control frame of %d bytes", n)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(l.conn, b); err != nil {
			return err
		}
		got(kind(b[0]), b[1:])
	}
}

// flush waits until everything queued is handed to the kernel, the link closes, or the time is over.
func (l *link) flush(limit time.Duration) {
	over := false
	timer := time.AfterFunc(limit, func() {
		l.mu.Lock()
		over = true
		l.mu.Unlock()
		l.wake.Broadcast()
	})
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.out) > 0 || l.writing) && !l.closed && !over {
		l.wake.Wait()
	}
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	conn := l.conn
	l.mu.Unlock()
	l.wake.Broadcast()
	if conn != nil {
		conn.Close()
	}
}

func (l *link) opened() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil
}

// open gives the link its connection; false if it was closed meanwhile.
func (l *link) open(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = c
	return !l.closed
}

// metered counts the bytes of a connection where they are written and read.
type metered struct {
	net.Conn
	written, read *atomic.Int64
}

func (m metered) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.written.Add(int64(n))
	return n, err
}

func (m metered) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.read.Add(int64(n))
	return n, err
}

// meters of one rank.
type meters struct {
	dataWritten, dataRead, controlWritten, controlRead atomic.Int64
	deviceCalls, deviceBytes                           atomic.Int64
}

func (m *meters) data(c net.Conn) net.Conn    { return metered{c, &m.dataWritten, &m.dataRead} }
func (m *meters) control(c net.Conn) net.Conn { return metered{c, &m.controlWritten, &m.controlRead} }

func (m *meters) traffic() Traffic {
	return Traffic{DataWritten: m.dataWritten.Load(), DataRead: m.dataRead.Load(),
		ControlWritten: m.controlWritten.Load(), ControlRead: m.controlRead.Load(),
		DeviceCalls: m.deviceCalls.Load(), DeviceBytes: m.deviceBytes.Load()}
}

// device counts a collective over NCCL.
func (m *meters) device(bytes int64) {
	m.deviceCalls.Add(1)
	m.deviceBytes.Add(bytes)
}
