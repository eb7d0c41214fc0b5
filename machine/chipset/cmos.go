package chipset

import (
	"sync"
	"time"
)

// Registers of the MC146818 clock.
const (
	cmosSeconds  = 0x00
	cmosMinutes  = 0x02
	cmosHours    = 0x04
	cmosWeekday  = 0x06
	cmosDay      = 0x07
	cmosMonth    = 0x08
	cmosYear     = 0x09
	cmosStatusA  = 0x0a
	cmosStatusB  = 0x0b
	cmosStatusC  = 0x0c
	cmosStatusD  = 0x0d
	cmosCentury  = 0x32
	statusBSet   = 1 << 7 // time is being set
	statusBAlarm = 7 << 4 // interrupts, which this clock never raises
	statusB24h   = 1 << 1
	statusBBin   = 1 << 2
)

// CMOS is the real-time clock with its battery-backed memory, at an index and a
// data port. It shows the host's clock in UTC, shifted by what the guest set.
type CMOS struct {
	now func() time.Time

	mu     sync.Mutex
	index  byte
	ram    [128]byte
	offset time.Duration // guest's time minus host's
}

// NewCMOS returns a clock that follows now.
func NewCMOS(now func() time.Time) *CMOS {
	c := &CMOS{now: now}
	c.ram[cmosStatusA] = 0x26 // 32768 Hz, the usual rate
	c.ram[cmosStatusB] = statusB24h
	c.ram[cmosStatusD] = 1 << 7 // the battery is good
	return c
}

// Read implements bus.Handler.
func (c *CMOS) Read(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(p)
	if off == 0 {
		p[0] = 0xff // the index can't be read
		return
	}
	if c.ram[cmosStatusB]&statusBSet == 0 {
		c.latch()
	}
	p[0] = c.ram[c.index]
}

// Write implements bus.Handler.
func (c *CMOS) Write(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := p[0]
	switch {
	case off == 0:
		c.index = v & 0x7f // bit 7 masks NMI, which nothing here raises
	case c.index == cmosStatusC || c.index == cmosStatusD:
		// read-only
	case c.index == cmosStatusB:
		was := c.ram[cmosStatusB]
		if was&statusBSet == 0 {
			c.latch() // so that what isn't set keeps its value
		}
		c.ram[cmosStatusB] = v &^ statusBAlarm
		if was&statusBSet != 0 && v&statusBSet == 0 {
			c.offset = c.shown().Sub(c.now().UTC().Truncate(time.Second))
		}
	default:
		isTime := c.index <= cmosYear || c.index == cmosCentury
		if isTime && c.ram[cmosStatusB]&statusBSet == 0 {
			c.latch()
		}
		c.ram[c.index] = v
		if isTime && c.ram[cmosStatusB]&statusBSet == 0 {
			c.offset = c.shown().Sub(c.now().UTC().Truncate(time.Second))
		}
	}
}

// latch writes the current time into the registers.
func (c *CMOS) latch() {
	t := c.now().UTC().Add(c.offset)
	hour := c.encode(t.Hour())
	if c.ram[cmosStatusB]&statusB24h == 0 {
		h := t.Hour() % 12
		if h == 0 {
			h = 12
		}
		hour = c.encode(h)
		if t.Hour() >= 12 {
			hour |= 0x80
		}
	}
	c.ram[cmosSeconds] = c.encode(t.Second())
	c.ram[cmosMinutes] = c.encode(t.Minute())
	c.ram[cmosHours] = hour
	c.ram[cmosWeekday] = c.encode(int(t.Weekday()) + 1)
	c.ram[cmosDay] = c.encode(t.Day())
	c.ram[cmosMonth] = c.encode(int(t.Month()))
	c.ram[cmosYear] = c.encode(t.Year() % 100)
	c.ram[cmosCentury] = c.encode(t.Year() / 100)
}

// shown is the time the registers hold. Values out of range carry over.
func (c *CMOS) shown() time.Time {
	hour := c.ram[cmosHours]
	h := c.decode(hour)
	if c.ram[cmosStatusB]&statusB24h == 0 {
		h = c.decode(hour&0x7f) % 12
		if hour&0x80 != 0 {
			h += 12
		}
	}
	return time.Date(c.decode(c.ram[cmosCentury])*100+c.decode(c.ram[cmosYear]), time.Month(c.decode(c.ram[cmosMonth])),
		c.decode(c.ram[cmosDay]), h, c.decode(c.ram[cmosMinutes]), c.decode(c.ram[cmosSeconds]), 0, time.UTC)
}

func (c *CMOS) encode(v int) byte {
	if c.ram[cmosStatusB]&statusBBin != 0 {
		return byte(v)
	}
	return byte(v/10<<4 | v%10)
}

func (c *CMOS) decode(v byte) int {
	if c.ram[cmosStatusB]&statusBBin != 0 {
		return int(v)
	}
	return int(v>>4)*10 + int(v&0xf)
}
