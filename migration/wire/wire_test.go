package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const patience = 10 * time.Second

// pair is a connection and what to write to its other end.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = a.SetDeadline(time.Now().Add(patience))
	_ = b.SetDeadline(time.Now().Add(patience))
	opened := make(chan *Conn, 1)
	go func() {
		c, err := Open(a, patience)
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	var theirs [8]byte
	if _, err := b.Read(theirs[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write(preamble[:]); err != nil {
		t.Fatal(err)
	}
	c := <-opened
	_ = a.SetDeadline(time.Now().Add(patience))
	return c, b
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name, says string
		is         error
	}{
		{"GET / HT", "", ErrForeign},
		{"ebb-mig\x01", "version 1 of the migration protocol and this one 6", VersionError{1}},
		{"ebb-mig", "EOF", nil},
	} {
		a, b := net.Pipe()
		go func() {
			var p [8]byte
			_, _ = b.Read(p[:])
			_, _ = b.Write([]byte(c.name))
			b.Close()
		}()
		_, err := Open(a, patience)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.name, err)
		}
	}
}

// What is sent is what comes, whatever its type.
func TestFrames(t *testing.T) {
	source, end := pair(t)
	dest := newConn(end)
	for _, f := range []struct {
		typ     Type
		payload any
	}{{Hello, map[string]int{"a": 1}}, {Offered, nil}, {State, bytes.Repeat([]byte{7}, 3<<20)}, {Mark, []byte{1, 2, 3, 4}}, {Abort, Why{"it rains"}}} {
		sent := make(chan error, 1)
		go func() { sent <- source.Send(f.typ, f.payload) }()
		h, err := dest.Next()
		if err != nil || h.Type != f.typ {
			t.Fatalf("%v: %+v, %v", f.typ, h, err)
		}
		body, err := dest.Payload(h)
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := f.payload.([]byte); ok && !bytes.Equal(b, body) {
			t.Errorf("%v: another payload", f.typ)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	if err := source.Send(Offered, []byte{1}); err == nil {
		t.Error("a payload that its type has not was sent")
	}
	if err := source.Send(0, nil); err == nil {
		t.Error("type 0 was sent")
	}
}

// header is a frame with a right checksum for what it has, whatever it says that it has.
func header(typ byte, reserved byte, length uint32, payload []byte) []byte {
	b := append(make([]byte, HeaderSize), payload...)
	Seal(Type(typ), b)
	b[2] = reserved
	binary.LittleEndian.PutUint32(b[4:], length)
	return b
}

func TestGarbage(t *testing.T) {
	long := make([]byte, 100)
	damaged := header(byte(Mark), 0, 4, []byte{1, 2, 3, 4})
	damaged[HeaderSize] ^= 1
	for name, b := range map[string][]byte{
		"type 0":            header(0, 0, 0, nil),
		"unknown type":      header(200, 0, 0, nil),
		"reserved":          header(byte(Offered), 1, 0, nil),
		"too long":          header(byte(Mark), 0, 100, long),
		"huge":              header(byte(State), 0, 1<<32-1, nil),
		"payload of nobody": header(byte(Commit), 0, 4, long[:4]),
		"damaged":           damaged,
		"ends early":        header(byte(Hello), 0, 1<<20, long),
		"half a header":     {byte(Hello), 0, 0},
		"zeroes":            make([]byte, HeaderSize),
	} {
		t.Run(name, func(t *testing.T) {
			c, other := pair(t)
			go func() { _, _ = other.Write(b); other.Close() }()
			h, err := c.Next()
			if err == nil {
				_, err = c.Payload(h)
			}
			if err == nil {
				t.Error("it was taken")
			}
		})
	}
}

// mute is a connection whose writer is told that nobody answers, and whose reader finds an end then.
type mute struct {
	net.Conn
	told chan struct{}
}

func (m mute) Write([]byte) (int, error) { close(m.told); return 0, os.ErrDeadlineExceeded }
func (m mute) Read([]byte) (int, error)  { <-m.told; return 0, io.EOF }

// Who reads hears why a connection broke, though only who writes was told.
func TestReaderHearsWhyItBroke(t *testing.T) {
	c := newConn(mute{told: make(chan struct{})})
	sent := make(chan error, 1)
	go func() { sent <- c.Send(Offered, nil) }()
	if _, err := c.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := <-sent; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// A peer's reason is shown, and can do nothing to a terminal; another frame than expected is an error.
func TestExpect(t *testing.T) {
	for _, c := range []struct {
		typ     Type
		payload any
		says    string
	}{
		{Abort, Why{"the disk\x1b[2J is full"}, "the disk [2J is full"},
		{Refuse, Why{strings.Repeat("x", 5000)}, "xxx"},
		{Refuse, Why{}, "no reason"},
		{Abort, []byte("{"), "no reason"},
		{Loaded, nil, "LOADED came where ACCEPT was expected"},
		{Accept, []byte("{"), "JSON"},
	} {
		source, end := pair(t)
		dest := newConn(end)
		go func() { _ = source.Send(c.typ, c.payload) }()
		err := dest.Expect(Accept, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1100 {
			t.Errorf("%v: %v", c.typ, err)
		}
	}
}

// PROTOCOL.md has every type with its number and its bound.
func TestManualHasFrames(t *testing.T) {
	text, err := os.ReadFile("../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| ([A-Z-]+) \| [a-z]+ \| (\d+)( [KM]i)? \|`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(row[3])
		said[row[2]] = fmt.Sprint(row[1], " ", n<<map[string]int{" Ki": 10, " Mi": 20}[row[4]])
	}
	for typ := Hello; ; typ++ {
		most, ok := typ.most()
		if !ok {
			break
		}
		if want := fmt.Sprint(uint8(typ), " ", most); said[typ.String()] != want {
			t.Errorf("%v is %q there, and %q here", typ, said[typ.String()], want)
		}
		delete(said, typ.String())
	}
	if len(said) > 0 {
		t.Errorf("it has %v, which there are not", said)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(header(byte(Mark), 0, 4, []byte{1, 2, 3, 4}))
	f.Add(binary.LittleEndian.AppendUint32(header(byte(Pages), 0, 8, make([]byte, 8)), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, other := net.Pipe()
		defer a.Close()
		go func() { _, _ = other.Write(b); other.Close() }()
		c := newConn(a)
		for {
			h, err := c.Next()
			if err != nil {
				return
			}
			if _, err := c.Payload(h); err != nil {
				return
			}
		}
	})
}

// What a checksum costs, beside hash/crc32's CRC-32C of as much:
//
//	go test ./migration/wire -run - -bench Seal
func BenchmarkSeal(b *testing.B) {
	frame := make([]byte, HeaderSize+256<<10)
	_, _ = rand.Read(frame)
	b.Run("xxh64", func(b *testing.B) {
		b.SetBytes(int64(len(frame)))
		for b.Loop() {
			Seal(Pages, frame)
		}
	})
	b.Run("crc32c", func(b *testing.B) {
		table := crc32.MakeTable(crc32.Castagnoli)
		b.SetBytes(int64(len(frame)))
		for b.Loop() {
			crc32.Update(0, table, frame)
		}
	})
}
