package lab

import (
	"io"
	"os"
	"strings"
	"sync"
)

// consoleKeep is how much of the kernel log is kept, in bytes.
const consoleKeep = 64 << 10

// console keeps the end of the lab kernel's log.
type console struct {
	mu   sync.Mutex
	text []byte
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

// tail is the last n lines, indented.
func (c *console) tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(c.text), "\r", "")), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	return "    " + strings.Join(lines[max(0, len(lines)-n):], "\n    ")
}
