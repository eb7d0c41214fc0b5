package cli

// escapes takes ebb's own keys out of what is typed, as QEMU's console does:
// Ctrl-A and then a letter. The zero value is ready.
type escapes struct {
	pending bool // Ctrl-A was the last key
}

type action uint8

const (
	keepRunning action = iota
	endGuest
	showHelp
)

const (
	ctrlA = 0x01

	escapeHelp = "\r\n" +
		"Ctrl-A x       end the guest at once\r\n" +
		"Ctrl-A h       this help\r\n" +
		"Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"
)

// feed returns what is for the guest, in p's memory, and what ebb is to do after
// it. Input behind the key that ends the guest is dropped.
func (e *escapes) feed(p []byte) (out []byte, do action) {
	out = p[:0]
	for _, b := range p {
		switch {
		case !e.pending && b == ctrlA:
			e.pending = true
			continue
		case !e.pending:
			out = append(out, b)
			continue
		}
		e.pending = false
		switch b {
		case 'x', 'X':
			return out, endGuest
		case 'h', 'H', '?':
			do = showHelp
		case ctrlA, 'a':
			out = append(out, ctrlA)
		}
	}
	return out, do
}
