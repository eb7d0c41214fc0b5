package drain

import (
	"time"

	"github.com/ebb-vmm/ebb/aio"
)

// Unlimited is the window of a disk that isn't bounded.
const Unlimited = aio.Unlimited

// Law is how the window of one disk follows what is observed of it.
type Law interface {
	// Step takes the next sample. In EBB it returns the window, at least 1. Else the window is
	// open, whatever it returns, and it may learn what the disk does then.
	Step(now time.Duration, s Sample, ebbing bool) int

	// Bottom reports that the window won't get smaller whatever the disk does.
	Bottom() bool

	// Missed tells it that a drain took longer than the budget.
	Missed()
}

// serial is the law of Serial.
type serial struct{}

func (serial) Step(time.Duration, Sample, bool) int { return 1 }
func (serial) Bottom() bool                         { return true }
func (serial) Missed()                              {}
