package drain

import "time"

// meter is the rate at which a disk completes requests under one window.
type meter struct {
	began, last time.Duration
	from, to    uint64 // completed then
	inFlight    int    // sum over the ticks
	limited     int    // ticks at which in flight had reached the window
	ticks       int
}

// tick takes a sample into account; the first one only begins. So does one of a disk that counts anew, since its driver was
// started anew.
func (m *meter) tick(now time.Duration, s Sample, window int) {
	if s.Completed < m.to {
		*m = meter{}
	}
	if m.ticks == 0 {
		m.began, m.from = now, s.Completed
	}
	m.last, m.to = now, s.Completed
	m.ticks++
	m.inFlight += s.InFlight
	if s.InFlight >= window {
		m.limited++
	}
}

func (m *meter) span() time.Duration { return m.last - m.began }

// rate is in requests per second.
func (m *meter) rate() float64 {
	if m.span() == 0 {
		return 0
	}
	return float64(m.to-m.from) / m.span().Seconds()
}

// depth is the mean number in flight.
func (m *meter) depth() float64 { return float64(m.inFlight) / float64(max(m.ticks, 1)) }

// bound reports that it was the window that held requests back. Where requests are done together it isn't full all the time:
// the next ones take a moment.
func (m *meter) bound() bool { return m.limited*2 >= m.ticks }
