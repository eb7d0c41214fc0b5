package lab

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
)

// consoleKeep is how much of the kernel log is kept, in bytes.
const consoleKeep = 64 << 10

// bugKeep is how much of it is kept from where the kernel first says that something is wrong: what it is comes
// there, and may be repeated without the code where it happens for as long as the lab lives.
const bugKeep = 8 << 10

// console keeps the end of the lab kernel's log, and where trouble begins.
type console struct {
	mu   sync.Mutex
	text []byte
	bug  []byte
	done chan struct{}
}

// newConsole reads from until its end, and copies it to w, if not nil.
func newConsole(from *os.File, w io.Writer) *console {
	c := &console{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if w != nil {
				w.Write(buf[:n])
			}
			c.mu.Lock()
			c.text = append(c.text, buf[:n]...)
			if c.bug != nil {
				c.bug = append(c.bug, buf[:min(n, bugKeep-len(c.bug))]...)
			} else if i := bytes.Index(c.text, []byte("BUG: ")); i >= 0 {
				c.bug = append(make([]byte, 0, bugKeep), c.text[i:min(len(c.text), i+bugKeep)]...)
			}
			if len(c.text) > 2*consoleKeep {
				c.text = append([]byte(nil), c.text[len(c.text)-consoleKeep:]...)
			}
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// wait returns when the log is complete: its writer is gone.
func (c *console) wait() { <-c.done }

// tail is the last n lines, and those that begin with the first BUG before them, indented.
func (c *console) tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := linesOf(c.text)
	last := lines[max(0, len(lines)-n):]
	if bug := linesOf(c.bug); len(bug) > n { // else it is in those
		last = slices.Concat(bug, []string{"..."}, last)
	}
	if len(last) == 0 {
		return ""
	}
	return "    " + strings.Join(last, "\n    ")
}

func linesOf(text []byte) []string {
	trimmed := strings.TrimSpace(strings.ReplaceAll(string(text), "\r", ""))
	if trimmed == "" {
		return nil
	}
	return strings.Split(trimmed, "\n")
}
