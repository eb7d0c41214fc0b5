package chipset

import (
	"testing"
	"time"
)

func TestCMOSShowsAndKeepsTime(t *testing.T) {
	host := time.Date(2026, 11, 23, 23, 59, 58, 0, time.UTC)
	c := NewCMOS(func() time.Time { return host })
	reg := func(i byte) byte { put(c, 0, i); return get(c, 1) }
	set := func(i, v byte) { put(c, 0, i); put(c, 1, v) }
	check := func(what string, want ...byte) {
		t.Helper()
		for k, i := range []byte{cmosCentury, cmosYear, cmosMonth, cmosDay, cmosHours, cmosMinutes, cmosSeconds} {
			if got := reg(i); got != want[k] {
				t.Errorf("%s: register %#x = %#x, want %#x", what, i, got, want[k])
			}
		}
	}
	check("start", 0x20, 0x26, 0x11, 0x23, 0x23, 0x59, 0x58)
	host = host.Add(3 * time.Second)
	check("later", 0x20, 0x26, 0x11, 0x24, 0x00, 0x00, 0x01)

	set(cmosStatusB, statusB24h|statusBSet)
	set(cmosYear, 0x30)
	set(cmosHours, 0x13)
	host = host.Add(time.Hour) // must not show while the time is being set
	check("being set", 0x20, 0x30, 0x11, 0x24, 0x13, 0x00, 0x01)
	set(cmosStatusB, statusB24h)
	host = host.Add(time.Minute)
	check("set", 0x20, 0x30, 0x11, 0x24, 0x13, 0x01, 0x01)

	set(cmosStatusB, statusBBin)
	if got := reg(cmosHours); got != 0x80|1 {
		t.Errorf("13 h on a 12-hour binary clock = %#x, want 0x81", got)
	}
	if reg(cmosStatusD)&0x80 == 0 {
		t.Error("the battery is said to be dead")
	}
}

func TestPowerOffNeedsSleepEnable(t *testing.T) {
	offs := 0
	w := NewPower(func(bool) {}, func() { offs++ })
	w.Write(PM1ControlOff, []byte{1, SleepTypeS5 << 2})
	w.Write(PM1ControlOff, []byte{1, 1<<5 | 1<<2}) // another sleep type
	if offs != 0 {
		t.Fatal("powered off without being asked")
	}
	w.Write(PM1ControlOff, []byte{1, 1<<5 | SleepTypeS5<<2})
	if offs != 1 {
		t.Fatal("did not power off")
	}
}

func TestPowerButtonRaisesSCI(t *testing.T) {
	var w wire
	p := NewPower(w.set, func() {})
	p.PressButton()
	if w.high {
		t.Fatal("SCI although the event is not enabled")
	}
	p.Write(2, []byte{0, 1}) // enable
	if !w.high || get(p, 1) != 1 {
		t.Fatal("no SCI for the button")
	}
	p.Write(0, []byte{0, 0})
	if !w.high {
		t.Fatal("writing zeroes cleared the status")
	}
	p.Write(0, []byte{0, 1})
	if w.high || get(p, 1) != 0 {
		t.Fatal("writing one did not clear the status")
	}
	if get(p, 4)&1 == 0 {
		t.Error("SCI_EN is clear: a guest would try to enable ACPI")
	}
}

func TestResetAndPanicPorts(t *testing.T) {
	resets, panics := 0, 0
	put(I8042{Reset: func() { resets++ }}, 0, 0xfe)
	put(I8042{Reset: func() { resets++ }}, 0, 0xd1)
	v := PVPanic{Panicked: func() { panics++ }}
	put(v, 0, crashLoaded)
	put(v, 0, panicked)
	if resets != 1 || panics != 1 {
		t.Errorf("%d resets and %d panics, want 1 and 1", resets, panics)
	}
	if get(v, 0) != 3 {
		t.Error("pvpanic must announce its events")
	}
}
