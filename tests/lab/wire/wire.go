// Package wire is what the lab's two sides say to each other: the launcher on the machine and the agent, PID 1 of the
// lab. Each of two virtio-serial ports carries frames:
//
//	+--------+----------------+-----------------+
//	| type 1 | length 4, LE   | payload         |
//	+--------+----------------+-----------------+
//
//	port Control, to the lab:   Start, then any of Signal, Window
//	port Control, to the host:  Ready, any of Stdout, Stderr, and Exit or Failed as the last frame
//	port Stdin, to the lab:     Data, and Data without payload at the end of input
//
// Standard input has a port of its own, so that a command which does not read does not hold up a signal to it. Output
// shares one with Exit, so that nothing of it can come too late.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Names of the ports, as in /sys/class/virtio-ports/*/name.
const (
	ControlPort = "ebb.control"
	StdinPort   = "ebb.stdin"
)

// Type is the kind of a frame.
type Type byte

const (
	Start  Type = iota + 1 // Command, as JSON
	Signal                 // one byte: the number
	Window                 // WindowSize, as JSON
	Data                   // standard input
	Ready                  // Hello, as JSON: the lab is up, the command starts next
	Stdout                 // what the command printed
	Stderr                 // the same
	Exit                   // ExitStatus, as JSON: the command has ended and all it wrote is where it belongs
	Failed                 // text: the agent could not do its work
)

// MaxPayload bounds a frame in bytes. Start is the longest: a command with its environment.
const MaxPayload = 8 << 20

// Command is what to run, and where.
type Command struct {
	Args    []string // Args[0] is looked up in Env's PATH
	Env     []string
	Dir     string
	TTY     [3]bool // stdin, stdout, stderr are the lab's terminal
	Window  WindowSize
	Shares  []string // folders of the machine that may be written; virtio-fs tags ShareTag(0), ...
	Modules string   // lib/modules/<release> of the lab's kernel on the machine
}

// RootTag is the virtio-fs tag of the machine's file system.
const RootTag = "root"

// ScratchSerial marks the drive that holds what the lab writes.
const ScratchSerial = "ebb-scratch"

// ShareTag is the virtio-fs tag of Command.Shares[i].
func ShareTag(i int) string { return fmt.Sprintf("share%d", i) }

// WindowSize is a terminal's, in characters.
type WindowSize struct{ Rows, Cols uint16 }

// Hello says how long the lab's kernel and agent took.
type Hello struct {
	Kernel    string
	Userspace float64 // seconds from the kernel's start to the agent's
	Ready     float64 // seconds from the kernel's start to now
}

// ExitStatus is the command's exit code, or 128 + the number of the signal that ended it.
type ExitStatus struct{ Code int }

// Write sends one frame in one Write call. v is a []byte or is sent as JSON.
func Write(w io.Writer, t Type, v any) error {
	payload, ok := v.([]byte)
	if !ok {
		var err error
		if payload, err = json.Marshal(v); err != nil {
			return err
		}
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes is longer than %d", len(payload), MaxPayload)
	}
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = byte(t)
	binary.LittleEndian.PutUint32(frame[1:], uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// Read receives one frame. io.EOF means that there is none, io.ErrUnexpectedEOF that it was cut off.
func Read(r io.Reader) (Type, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(header[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("frame of type %d claims %d bytes", header[0], n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Type(header[0]), payload, nil
}
