package moving

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-vmm/ebb/guest/report"
)

// Console is what a guest has said at one side, line by line.
type Console struct {
	mu    sync.Mutex
	lines []stampedLine
	rest  []byte // begins a line, of which the other side may have the end
	err   error  // the guest is no longer here
}

type stampedLine struct {
	text string
	at   time.Time // when it was complete, by the host's clock
}

func (c *Console) follow(r io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		now := time.Now()
		c.mu.Lock()
		c.rest = append(c.rest, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
			if !ok {
				break
			}
			c.lines = append(c.lines, stampedLine{string(line), now})
			c.rest = rest
		}
		c.err = err
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// state is how many lines there are, and the error says that no more come.
func (c *Console) state() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return len(c.lines), fmt.Errorf("its console ended after %d lines, with %q", len(c.lines), c.rest)
	}
	return len(c.lines), nil
}

// said is all so far, and the beginning of a line.
func (c *Console) said() ([]stampedLine, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines), string(c.rest)
}

// Line is one of the guest's, with the host's time.
type Line struct {
	report.DiskBenchSecond
	Host time.Time
	Side int // of those that the timeline was made of
}

// Timeline puts together what a guest said, first here and then there. Not a line may be missing,
// as it could be the one with the gap.
func Timeline(sides ...*Console) (all []Line, err error) {
	rest := ""
	for side, c := range sides {
		lines, begun := c.said()
		for _, l := range lines {
			text := rest + l.text
			rest = ""
			if s, ok := report.ParseDiskBenchSecond(text); ok {
				all = append(all, Line{s, l.at, side})
			} else if strings.Contains(text, "FAILED") || strings.Contains(text, "t=") || strings.Contains(text, "errors=") {
				return nil, fmt.Errorf("the guest said %q", text)
			}
		}
		rest += begun
	}
	for i := range all {
		if i > 0 && all[i].T != all[i-1].T+1 {
			err = fmt.Errorf("the guest's line %d is followed by its line %d", all[i-1].T, all[i].T)
		}
		if all[i].Errors != 0 {
			err = fmt.Errorf("%d of the guest's requests failed", all[i].Errors)
		}
	}
	return all, err
}
