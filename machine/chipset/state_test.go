package chipset

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// again checks that what was loaded is saved as it was, also as JSON.
func again[S any](t *testing.T, s S, load func(S) error, save func() S) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var decoded S
	if err := json.Unmarshal(b, &decoded); err != nil {
		t.Fatal(err)
	}
	if err := load(decoded); err != nil {
		t.Fatal(err)
	}
	if got := save(); !reflect.DeepEqual(got, s) {
		t.Errorf("saved %+v, loaded and saved again %+v", s, got)
	}
}

func TestSerialState(t *testing.T) {
	var w, w2 wire
	s := NewSerial(w.set)
	again(t, s.Save(), NewSerial(w2.set).Load, s.Save)
	put(s, regLCR, lcrDLAB)
	put(s, 0, 0x34)
	put(s, 1, 0x12)
	put(s, regLCR, 3)
	put(s, regScratch, 0x77)
	put(s, regIIR, fcrEnable)
	put(s, regMCR, mcrOut2|mcrDTR)
	put(s, regIER, ierReceive)
	within(t, "Input", func() { s.Input([]byte("hello")) })
	get(s, regData)
	if !w.high {
		t.Fatal("no interrupt")
	}

	s2 := NewSerial(w2.set)
	again(t, s.Save(), s2.Load, s2.Save)
	if !w2.high {
		t.Error("the line is low")
	}
	got := ""
	for get(s2, regLSR)&lsrReady != 0 {
		got += string(get(s2, regData))
	}
	if got != "ello" || w2.high {
		t.Errorf("received %q, line high %v", got, w2.high)
	}
	within(t, "Input after the move", func() { s2.Input([]byte("!")) })
	if !w2.high || get(s2, regIIR) != iirFIFO|iirReceive {
		t.Error("no interrupt after the move")
	}
	again(t, s2.Save(), s.Load, s.Save)
}

// A guest that waits for a busy transmitter finds it free: the host it came from has
// what it sent.
func TestSerialStateWhileBusy(t *testing.T) {
	var w, w2 wire
	s, s2 := NewSerial(w.set), NewSerial(w2.set)
	put(s, regMCR, mcrOut2)
	put(s, regIER, ierTransmit)
	for get(s, regLSR)&lsrEmpty != 0 {
		put(s, regData, 'x')
	}
	if w.high {
		t.Fatal("an interrupt while the transmitter is busy")
	}
	again(t, s.Save(), s2.Load, s2.Save)
	if !w2.high || get(s2, regLSR)&lsrEmpty == 0 || get(s2, regIIR)&0xf != iirTransmit {
		t.Error("the guest isn't told that the transmitter is free")
	}
	s2.Close()
	if out := s2.Output(nil); len(out) != 0 {
		t.Errorf("%d bytes were sent twice", len(out))
	}
	s.Close()
	if out := s.Output(nil); len(out) != outputLimit {
		t.Errorf("%d bytes are left to write where they were sent", len(out))
	}
}

// What is typed while the port is held is not in its state, and comes later.
func TestSerialHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSerial(func(bool) {})
		put(s, regIIR, fcrEnable)
		put(s, regIER, ierReceive)
		s.Hold()
		go s.Input([]byte("typed"))
		synctest.Wait()
		if got := s.Save().Received; len(got) != 0 {
			t.Errorf("%q is in the state", got)
		}
		s.Let()
		synctest.Wait()
		if got := s.Save().Received; string(got) != "typed" {
			t.Errorf("it received %q", got)
		}
	})
}

func TestPowerState(t *testing.T) {
	var w, w2 wire
	p, p2 := NewPower(w.set, nil), NewPower(w2.set, nil)
	p.Write(2, []byte{pm1Timer | pm1Global, 1})
	p.Write(PM1ControlOff, []byte{1, 5 << 2})
	p.PressButton()
	again(t, p.Save(), p2.Load, p2.Save)
	if !w2.high {
		t.Error("the button's interrupt is lost")
	}
	p2.Write(0, []byte{0, 1})
	if w2.high {
		t.Error("the interrupt can't be cleared")
	}
}

func TestCMOSState(t *testing.T) {
	host := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return host }
	c, c2 := NewCMOS(now), NewCMOS(now)
	put(c, 0, 0x40)
	put(c, 1, 0xab) // plain memory
	put(c, 0, cmosHours)
	put(c, 1, 0x15)
	host = host.Add(time.Minute)
	again(t, c.Save(), c2.Load, c2.Save)
	host = host.Add(time.Minute) // time that passes on the way is seen
	if get(c2, 1) != 0x15 {
		t.Error("the index or the hour is lost")
	}
	put(c2, 0, cmosMinutes)
	if got := get(c2, 1); got != 0x02 {
		t.Errorf("minute %#x, want 2", got)
	}
	put(c2, 0, 0x40)
	if get(c2, 1) != 0xab {
		t.Error("memory is lost")
	}
	// Moved while the guest sets the time.
	put(c2, 0, cmosStatusB)
	put(c2, 1, statusB24h|statusBSet)
	put(c2, 0, cmosMinutes)
	put(c2, 1, 0x30)
	again(t, c2.Save(), c.Load, c.Save)
	put(c, 0, cmosStatusB)
	put(c, 1, statusB24h)
	put(c, 0, cmosMinutes)
	if got := get(c, 1); got != 0x30 {
		t.Errorf("minute %#x, want 30", got)
	}
}

func TestStatesRefused(t *testing.T) {
	s, p, c := NewSerial(func(bool) {}), NewPower(func(bool) {}, nil), NewCMOS(time.Now)
	serial := func(change func(*SerialState)) func() error {
		return func() error { st := s.Save(); change(&st); return s.Load(st) }
	}
	power := func(change func(*PowerState)) func() error {
		return func() error { st := p.Save(); change(&st); return p.Load(st) }
	}
	cmos := func(change func(*CMOSState)) func() error {
		return func() error { st := c.Save(); change(&st); return c.Load(st) }
	}
	before := []any{s.Save(), p.Save(), c.Save()}
	for name, load := range map[string]func() error{
		"IER":           serial(func(s *SerialState) { s.IER = 0x10 }),
		"MCR":           serial(func(s *SerialState) { s.MCR = 0x20 }),
		"FIFO":          serial(func(s *SerialState) { s.Received = make([]byte, 17) }),
		"PM1 status":    power(func(s *PowerState) { s.Status = 1 }),
		"PM1 enable":    power(func(s *PowerState) { s.Enable = 1 << 15 }),
		"asleep":        power(func(s *PowerState) { s.Control |= 1 << 13 }),
		"no ACPI":       power(func(s *PowerState) { s.Control = 0 }),
		"CMOS size":     cmos(func(s *CMOSState) { s.RAM = s.RAM[:127] }),
		"CMOS too big":  cmos(func(s *CMOSState) { s.RAM = make([]byte, 129) }),
		"CMOS index":    cmos(func(s *CMOSState) { s.Index = 128 }),
		"CMOS alarm":    cmos(func(s *CMOSState) { s.RAM[cmosStatusB] |= 1 << 5 }),
		"CMOS flags":    cmos(func(s *CMOSState) { s.RAM[cmosStatusC] = 0x80 }),
		"empty battery": cmos(func(s *CMOSState) { s.RAM[cmosStatusD] = 0 }),
	} {
		if err := load(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if after := []any{s.Save(), p.Save(), c.Save()}; !reflect.DeepEqual(after, before) {
		t.Errorf("refused states left %+v, before %+v", after, before)
	}
}

// FuzzLoad loads what somebody sent, and then uses the devices.
func FuzzLoad(f *testing.F) {
	type all struct {
		Serial SerialState
		Power  PowerState
		CMOS   CMOSState
	}
	seed, err := json.Marshal(all{NewSerial(nil).Save(), NewPower(nil, nil).Save(), NewCMOS(time.Now).Save()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"Serial":{"IER":15,"MCR":8,"Received":"AAAA","THRE":true},"Power":{"Status":256,"Enable":256,"Control":1},"CMOS":{"Offset":-9223372036854775808}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var st all
		if json.Unmarshal(b, &st) != nil {
			return
		}
		s, p, c := NewSerial(func(bool) {}), NewPower(func(bool) {}, func() {}), NewCMOS(time.Now)
		if s.Load(st.Serial) == nil {
			for off := range uint64(8) {
				get(s, off)
				put(s, off, 0xff)
			}
		}
		if p.Load(st.Power) == nil {
			p.PressButton()
			p.Write(0, []byte{0xff, 0xff})
		}
		if c.Load(st.CMOS) == nil {
			get(c, 1)
			for i := range byte(128) {
				put(c, 0, i)
				put(c, 1, get(c, 1))
			}
		}
	})
}
