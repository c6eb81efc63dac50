package dist

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The first thing on every connection, in both directions, before any other byte is looked at:
//
//	acceptor → dialer     nonceA                                          32 random bytes: all that a stranger ever gets
//	dialer   → acceptor   nonceD │ len │ hello │ HMAC(k, "dial" │ nonceA │ nonceD │ hello)
//	acceptor → dialer     len │ reason │ HMAC(k, "accept" │ nonceA │ nonceD │ sha256(hello) │ reason)     reason "" = welcome
//
// k is derived from the job's key. It proves who connects; it does not protect what follows.

const (
	handshakeTime = 5 * time.Second
	maxHello      = 4096
)

// hello says who connects, to whom, and what for.
type hello struct {
	Job        string `json:"job"`
	Generation int    `json:"generation"`
	Attempt    int    `json:"attempt"` // data only
	Rank       int    `json:"rank"`    // data only
	Purpose    string `json:"purpose"` // "control" or "data"
	From       string `json:"from"`
	To         string `json:"to"`
}

// derive gives a key for one purpose.
func derive(key []byte, purpose string) []byte { return mac(key, []byte("splora "+purpose)) }

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// dialHandshake proves to the acceptor that we hold the key, and that it does.
func dialHandshake(c net.Conn, key []byte, h hello) error {
	c.SetDeadline(time.Now().Add(handshakeTime))
	defer c.SetDeadline(time.Time{})
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	nonces := make([]byte, 64)
	rand.Read(nonces[32:])
	if _, err := io.ReadFull(c, nonces[:32]); err != nil {
		return fmt.Errorf("no greeting (%w): is it another service?", err)
	}
	msg := append([]byte(nil), nonces[32:]...)
	msg = binary.LittleEndian.AppendUint16(msg, uint16(len(head)))
	msg = append(append(msg, head...), mac(key, []byte("dial"), nonces, head)...)
	if _, err := c.Write(msg); err != nil {
		return err
	}
	reason, sum, err := readSealed(c)
	if err != nil {
		return fmt.Errorf("the peer refused our proof (%w): the job's key differs", err)
	}
	digest := sha256.Sum256(head)
	if !hmac.Equal(sum, mac(key, []byte("accept"), nonces, digest[:], reason)) {
		return errors.New("the peer could not prove that it has the job's key")
	}
	if len(reason) > 0 {
		return fmt.Errorf("refused: %s", reason)
	}
	return nil
}

// acceptHandshake returns what an authenticated dialer says of itself. check may refuse it with a reason.
func acceptHandshake(c net.Conn, key []byte, check func(hello) string) (hello, error) {
	c.SetDeadline(time.Now().Add(handshakeTime))
	defer c.SetDeadline(time.Time{})
	var h hello
	nonces := make([]byte, 64)
	rand.Read(nonces[:32])
	if _, err := c.Write(nonces[:32]); err != nil {
		return h, err
	}
	if _, err := io.ReadFull(c, nonces[32:]); err != nil {
		return h, err
	}
	head, sum, err := readSealed(c)
	if err != nil {
		return h, err
	}
	if !hmac.Equal(sum, mac(key, []byte("dial"), nonces, head)) {
		return h, errors.New("wrong proof: a stranger, or a member with another key")
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return h, err
	}
	reason := []byte(check(h))
	digest := sha256.Sum256(head)
	msg := binary.LittleEndian.AppendUint16(nil, uint16(len(reason)))
	msg = append(append(msg, reason...), mac(key, []byte("accept"), nonces, digest[:], reason)...)
	if _, err := c.Write(msg); err != nil {
		return h, err
	}
	if len(reason) > 0 {
		return h, errors.New(string(reason))
	}
	return h, nil
}

// readSealed reads len │ body │ HMAC.
func readSealed(r io.Reader) (body, sum []byte, err error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, nil, err
	}
	size := int(binary.LittleEndian.Uint16(n[:]))
	if size > maxHello {
		return nil, nil, fmt.Errorf("a message of %d bytes", size)
	}
	b := make([]byte, size+sha256.Size)
	_, err = io.ReadFull(r, b)
	return b[:size], b[size:], err
}
