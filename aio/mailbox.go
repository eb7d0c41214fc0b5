package aio

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// mailbox is how other goroutines hand work to the engine's thread. Messages run there in
// the order they were posted.
type mailbox struct {
	wake int // eventfd; the thread watches it and never reads it

	mu       sync.Mutex
	messages []func()
	closed   bool

	running []func() // the thread's: memory of messages being run, swapped with messages
}

func newMailbox() (*mailbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("aio: eventfd: %w", err)
	}
	return &mailbox{wake: fd}, nil
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// post leaves a message, and reports false if the engine has ended and it will not be run.
// Any goroutine may call it. It doesn't wait.
func (m *mailbox) post(message func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.messages = append(m.messages, message)
	if len(m.messages) == 1 {
		// The counter overflows after 2^64 wakes, so that this can't fail.
		_, _ = unix.Write(m.wake, one)
	}
	return true
}

// run runs what was posted. A message posted meanwhile wakes the thread anew.
func (m *mailbox) run() {
	m.mu.Lock()
	m.messages, m.running = m.running[:0], m.messages
	m.mu.Unlock()
	for i, message := range m.running {
		message()
		m.running[i] = nil
	}
}

// close runs what was posted last and refuses everything after that.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.run()
	_ = unix.Close(m.wake)
}
