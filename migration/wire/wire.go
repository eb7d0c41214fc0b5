// Package wire is how the two sides of a migration put messages on a connection: frames with a
// type, a bounded length and a checksum. PROTOCOL.md describes them byte by byte.
//
// What comes from the other side is not trusted: a frame is read only after its length was found
// to be one that its type may have, and used only after its checksum was found right.
package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Version is the protocol's. Both sides must have the same.
const Version = 6

// preamble opens a connection, in both directions: eight bytes, the last of which is Version.
var preamble = [8]byte{'e', 'b', 'b', '-', 'm', 'i', 'g', Version}

// Type says what a frame is.
type Type uint8

// Frames of the control connection. S: sent by the source, D: by the destination.
const (
	Hello    Type = 1 + iota // S: what comes; JSON
	Accept                   // D: it may come; JSON
	Refuse                   // D: why not, before anything was copied; JSON
	Offered                  // S: the images' reservations are free to be taken
	Reserved                 // D: they are taken
	File                     // S: a piece of a file that the guest boots from
	Ahead                    // S: what can be prepared while the guest still runs there; JSON
	Handover                 // S: the images are synced, and their owner locks free to be taken
	Ready                    // D: they are taken, and the images open
	GiveBack                 // S: the owner locks are wanted back
	Given                    // D: they are free
	State                    // S: 12 bytes, the mark that memory must have come to, and how far the clocks are apart; then the machine's state
	Loaded                   // D: only entering the guest is left to do
	Commit                   // S: the guest is the destination's from now on
	Running                  // D: it runs; JSON
	Abort                    // S or D: the end, before Commit; JSON

	// Frames of a memory connection.
	Join   // S: which migration and which stream; JSON
	Joined // D: and what time it is there; JSON
	Pages  // S: guest memory; see package ram
	Mark   // S: end of a pass; D: and all of it is in memory; 4 bytes, its number
)

func (t Type) String() string {
	names := [...]string{Hello: "HELLO", Accept: "ACCEPT", Refuse: "REFUSE", Offered: "OFFERED", Reserved: "RESERVED", File: "FILE", Ahead: "AHEAD", Handover: "HANDOVER",
		Ready: "READY", GiveBack: "GIVE-BACK", Given: "GIVEN", State: "STATE", Loaded: "LOADED", Commit: "COMMIT", Running: "RUNNING",
		Abort: "ABORT", Join: "JOIN", Joined: "JOINED", Pages: "PAGES", Mark: "MARK"}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("frame type %d", uint8(t))
}

// Most bytes of a payload.
const (
	maxHello = 1 << 20 // processor features and disks of a machine
	maxState = 64 << 20
	maxText  = 64 << 10
	// MaxPages is the most of a Pages frame: its table and 256 KiB of memory. So it is of a File.
	MaxPages = 256<<10 + 4<<10
)

// most returns the longest payload a type may have, and false for types that don't exist.
func (t Type) most() (uint32, bool) {
	switch t {
	case Hello, Accept:
		return maxHello, true
	case State, Ahead:
		return maxState, true
	case Refuse, Abort, Join, Joined, Running:
		return maxText, true
	case Pages, File:
		return MaxPages, true
	case Mark:
		return 4, true
	case Offered, Reserved, Handover, Ready, GiveBack, Given, Loaded, Commit:
		return 0, true
	}
	return 0, false
}

// HeaderSize is the bytes of a frame before its payload:
//
//	0       1       4          8            16
//	| type  | zeros | length   | checksum   | payload ...
//
// Numbers are little-endian. The checksum is XXH64 of the first 8 bytes and the payload. It finds what was damaged by
// accident; who could do it on purpose is kept out by TLS.
const HeaderSize = 16

// Seal fills in the header of a frame, its first HeaderSize bytes.
func Seal(t Type, frame []byte) {
	frame[0], frame[1], frame[2], frame[3] = byte(t), 0, 0, 0
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)-HeaderSize))
	var sum xxhash.Digest
	sum.Reset()
	_, _ = sum.Write(frame[:8])
	_, _ = sum.Write(frame[HeaderSize:])
	binary.LittleEndian.PutUint64(frame[8:], sum.Sum64())
}

// Conn is a connection with frames on it. One goroutine may read at a time; Send any, while none
// writes by itself.
type Conn struct {
	net.Conn
	sending sync.Mutex // guards unsent, too
	unsent  error      // why a write failed, if one did
	r       *bufio.Reader
	header  [HeaderSize]byte
	sum     xxhash.Digest // of what was read of a frame
}

// ErrForeign is behind the error for a peer that speaks something else.
var ErrForeign = errors.New("the other side doesn't speak ebb's migration protocol")

// VersionError is a peer of another version.
type VersionError struct{ Peer uint8 }

func (e VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %d of the migration protocol and this one %d: use the same version of ebb on both", e.Peer, Version)
}

// Open exchanges preambles on a new connection. It takes at most as long as it says.
func Open(c net.Conn, within time.Duration) (*Conn, error) {
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write(preamble[:]); err != nil {
		return nil, err
	}
	var theirs [len(preamble)]byte
	if _, err := io.ReadFull(c, theirs[:]); err != nil {
		return nil, err
	}
	last := len(preamble) - 1
	switch {
	case string(theirs[:last]) != string(preamble[:last]):
		return nil, ErrForeign
	case theirs[last] != Version:
		return nil, VersionError{theirs[last]}
	}
	_ = c.SetDeadline(time.Time{})
	return newConn(c), nil
}

// newConn's buffer holds the head of a frame of pages, and little of its content, which is copied once more from there.
func newConn(c net.Conn) *Conn { return &Conn{Conn: c, r: bufio.NewReaderSize(c, 4<<10)} }

// Send writes a frame; a nil payload is empty, []byte goes as it is, and anything else as JSON.
func (c *Conn) Send(t Type, payload any) error {
	var body []byte
	switch p := payload.(type) {
	case nil:
	case []byte:
		body = p
	default:
		var err error
		if body, err = json.Marshal(p); err != nil {
			return err
		}
	}
	frame := make([]byte, HeaderSize+len(body))
	copy(frame[HeaderSize:], body)
	return c.SendFrame(t, frame)
}

// SendFrame is Send for a payload that has HeaderSize bytes of room before it.
func (c *Conn) SendFrame(t Type, frame []byte) error {
	if most, ok := t.most(); !ok || len(frame)-HeaderSize > int(most) {
		return fmt.Errorf("a %v of %d bytes is more than the protocol allows (%d)", t, len(frame)-HeaderSize, most)
	}
	Seal(t, frame)
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := c.Write(frame)
	if err != nil {
		c.unsent = err
	}
	return err
}

// ended is the error of a read. The kernel tells why a connection broke only once: if a write was told, reads find an end.
func (c *Conn) ended(err error) error {
	if err != io.EOF {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.unsent != nil {
		return c.unsent
	}
	return err
}

// Header is a frame's, read but not yet its payload.
type Header struct {
	Type   Type
	Length int
	sum    uint64 // of the whole, as sent
}

// Next reads the next frame's header. Its payload must be read before the next Next, by Payload
// or by Reader.
func (c *Conn) Next() (Header, error) {
	if _, err := io.ReadFull(c.r, c.header[:]); err != nil {
		return Header{}, c.ended(err)
	}
	le := binary.LittleEndian
	h := Header{Type: Type(c.header[0]), Length: int(le.Uint32(c.header[4:])), sum: le.Uint64(c.header[8:])}
	c.sum.Reset()
	_, _ = c.sum.Write(c.header[:8])
	most, ok := h.Type.most()
	switch {
	case !ok || c.header[1]|c.header[2]|c.header[3] != 0:
		return h, fmt.Errorf("garbage instead of a frame (%x)", c.header[:])
	case h.Length > int(most):
		return h, fmt.Errorf("a %v frame of %d bytes; at most %d are possible", h.Type, h.Length, most)
	}
	return h, nil
}

// Payload reads the rest of a frame.
func (c *Conn) Payload(h Header) ([]byte, error) {
	body := make([]byte, 0, min(h.Length, 1<<20)) // not before it comes
	for len(body) < h.Length {
		n := min(h.Length-len(body), 1<<20)
		body = append(body, make([]byte, n)...)
		if _, err := io.ReadFull(c.Reader(), body[len(body)-n:]); err != nil {
			return nil, unexpected(err)
		}
	}
	return body, c.Check(h)
}

// Reader is where the payload of a frame comes from, for who knows where it goes. What is read is summed up for Check.
func (c *Conn) Reader() io.Reader { return (*payload)(c) }

type payload Conn

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	_, _ = p.sum.Write(b[:n])
	return n, err
}

// Check compares the checksum of a frame whose payload was read.
func (c *Conn) Check(h Header) error {
	if c.sum.Sum64() != h.sum {
		return fmt.Errorf("a %v frame was damaged on its way", h.Type)
	}
	return nil
}

// Expect reads a frame that must be of the type, and decodes it into out if that isn't nil. A peer
// that refuses or aborts instead is an error that says so.
func (c *Conn) Expect(t Type, out any) error {
	h, err := c.Next()
	if err != nil {
		return err
	}
	body, err := c.Payload(h)
	if err != nil {
		return err
	}
	if h.Type == Abort || h.Type == Refuse {
		return Reason(body)
	}
	if h.Type != t {
		return fmt.Errorf("%v came where %v was expected", h.Type, t)
	}
	return Decode(body, out)
}

// Why is the payload of Refuse and Abort.
type Why struct {
	Reason string `json:"reason"`
}

// PeerError is why the other side ended the migration.
type PeerError struct{ Reason string }

func (e PeerError) Error() string { return e.Reason }

// Reason decodes a Refuse or an Abort.
func Reason(body []byte) error {
	var w Why
	if err := Decode(body, &w); err != nil || w.Reason == "" {
		return PeerError{"it gave no reason"}
	}
	return PeerError{Printable(w.Reason)}
}

// Printable keeps what a peer says from doing anything to a terminal, and from being long.
func Printable(s string) string {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if len(out) == 1000 {
			break
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

// Decode reads JSON into out. With a nil out the payload must be empty.
func Decode(body []byte, out any) error {
	if out == nil {
		if len(body) > 0 {
			return errors.New("a frame has a payload that should have none")
		}
		return nil
	}
	return json.Unmarshal(body, out)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
