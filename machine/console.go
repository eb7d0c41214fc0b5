package machine

import (
	"context"
	"io"
	"time"

	"github.com/ebb-vmm/ebb/machine/chipset"
)

// consoleWriter is where guests' consoles go, one guest after another: each has a serial port of its own.
type consoleWriter struct {
	w       io.Writer // nil: nowhere
	writing turn      // the one before may be in a Write that doesn't return
}

// consoleGather is how long output gathers before the next of it is passed on: a
// guest that prints costs a wake-up each time, not one for each byte.
const consoleGather = 2 * time.Millisecond

// pass passes on what a guest writes until its port is closed and all is written, or ctx ends.
func (c *consoleWriter) pass(ctx context.Context, port *chipset.Serial) {
	var buf []byte
	for {
		if buf = port.Output(buf); len(buf) == 0 || ctx.Err() != nil || c.writing.lock(ctx) != nil {
			return
		}
		if c.w != nil {
			_, _ = c.w.Write(buf) // a console that can't be written to is no reason to stop a guest
		}
		c.writing.unlock()
		time.Sleep(consoleGather)
	}
}

// lastWords is how long the end of a guest waits for a console that takes nothing, where somebody waits for that end.
const lastWords = time.Second

// finishConsole waits until written is closed, as all that the guest has written is passed on. But who stops the guest, or has
// moved it, wants it to end, and one that resets wants to boot, whether or not anybody reads its console.
func (m *Machine) finishConsole(written <-chan struct{}, end End) {
	done := make(chan struct{})
	go func() {
		<-written
		m.mu.Lock()
		defer m.mu.Unlock()
		close(done)
		m.changed.Broadcast()
	}()
	m.mu.Lock()
	for end != Migrated && !m.bootsAgain(end) && !m.stopping && !closed(done) {
		m.changed.Wait()
	}
	m.mu.Unlock()
	select {
	case <-done:
	case <-time.After(lastWords):
		m.cfg.Log.Warn("the guest's last output is lost: nobody reads its console")
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
