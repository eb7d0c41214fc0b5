package aio

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// timer is the engine's clock, and wakes its thread at a time. It is armed only while a port
// waits for a time to come, so an idle engine is not woken.
type timer struct {
	fd  int            // timerfd; watched and, as an eventfd, never read: setting it clears it
	now func() int64   // nanoseconds since some time before the engine; never 0
	arm func(in int64) // signals fd in so many nanoseconds, at least 1
	due int64          // when it will be; 0: it isn't armed
}

func newTimer() (timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return timer{}, fmt.Errorf("aio: timerfd: %w", err)
	}
	origin := time.Now().Add(-time.Second)
	return timer{
		fd:  fd,
		now: func() int64 { return int64(time.Since(origin)) },
		arm: func(in int64) {
			spec := unix.ItimerSpec{Value: unix.NsecToTimespec(in)}
			_ = unix.TimerfdSettime(fd, 0, &spec, nil) // fails only for a bad descriptor or value
		},
	}, nil
}

// wakeAt has the engine woken at a time of its clock, or earlier if it was asked for.
// It is woken at once if the time has passed.
func (t *timer) wakeAt(due int64) {
	if t.due == 0 || t.due > due {
		t.due = due
		t.arm(max(due-t.now(), 1))
	}
}

// fired notes that the time has come.
func (t *timer) fired() { t.due = 0 }

func (t *timer) close() { _ = unix.Close(t.fd) }
