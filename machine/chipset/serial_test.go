package chipset

import (
	"bytes"
	"testing"
	"time"
)

type wire struct{ high bool }

func (w *wire) set(h bool) { w.high = h }

func get(h interface{ Read(uint64, []byte) }, off uint64) byte {
	var b [1]byte
	h.Read(off, b[:])
	return b[0]
}

func put(h interface{ Write(uint64, []byte) }, off uint64, v byte) { h.Write(off, []byte{v}) }

// within fails the test if f takes longer than a deadline meant for hangs.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("hangs: %s", what)
	}
}

func TestSerialOutput(t *testing.T) {
	s := NewSerial(func(bool) {})
	for _, b := range []byte("hello") {
		put(s, regData, b)
	}
	s.Close()
	within(t, "Output", func() {
		if got := s.Output(nil); string(got) != "hello" {
			t.Errorf("Output = %q", got)
		}
		if got := s.Output(nil); len(got) != 0 {
			t.Errorf("after Close: %q", got)
		}
	})
}

// A console nobody reads must not block a vCPU, nor lose what was accepted.
func TestSerialTransmitterStaysBusyWhenNobodyReads(t *testing.T) {
	var w wire
	s := NewSerial(w.set)
	put(s, regMCR, mcrOut2)
	put(s, regIER, ierTransmit)
	n := 0
	within(t, "writing", func() {
		for get(s, regLSR)&lsrEmpty != 0 && n <= 1<<20 {
			put(s, regData, byte(n))
			n++
		}
	})
	if n != outputLimit {
		t.Fatalf("took %d bytes, want %d", n, outputLimit)
	}
	if w.high {
		t.Error("transmit interrupt while the transmitter is busy")
	}
	if got := s.Output(nil); len(got) != n || got[n-1] != byte(n-1) {
		t.Errorf("Output returned %d bytes", len(got))
	}
	if !w.high || get(s, regIIR)&0xf != iirTransmit {
		t.Error("no interrupt when the transmitter became free")
	}
	if w.high {
		t.Error("reading the IIR did not acknowledge")
	}
}

func TestSerialInputInterrupts(t *testing.T) {
	var w wire
	s := NewSerial(w.set)
	put(s, regIIR, fcrEnable)
	put(s, regIER, ierReceive)
	in := bytes.Repeat([]byte("0123456789"), 10)
	fed := make(chan bool, 1)
	go func() { _, ok := s.Input(in); fed <- ok }()
	var got []byte
	within(t, "receiving", func() {
		for len(got) < len(in) {
			if get(s, regLSR)&lsrReady != 0 {
				got = append(got, get(s, regData))
			}
		}
	})
	if !bytes.Equal(got, in) || !<-fed {
		t.Errorf("received %q", got)
	}
	if w.high {
		t.Error("interrupt without OUT2")
	}
	put(s, regMCR, mcrOut2)
	s.Input([]byte("x"))
	if !w.high || get(s, regIIR)&0xf != iirReceive {
		t.Error("no receive interrupt")
	}
	if get(s, regData) != 'x' || w.high {
		t.Error("interrupt stays after the byte was taken")
	}
}

func TestSerialCloseEndsInput(t *testing.T) {
	s := NewSerial(func(bool) {})
	put(s, regIER, ierReceive)
	fed := make(chan bool, 1)
	go func() { _, ok := s.Input(make([]byte, 100)); fed <- ok }() // nobody reads
	s.Close()
	within(t, "Input after Close", func() {
		if <-fed {
			t.Error("Input says the guest took everything")
		}
	})
}

// Linux finds the kind of UART by these.
func TestSerialIsDetected(t *testing.T) {
	s := NewSerial(func(bool) {})
	put(s, regScratch, 0xa5)
	put(s, regIER, 0x0f)
	put(s, regLCR, lcrDLAB)
	put(s, regData, 1)
	put(s, regIER, 2)
	if get(s, regData) != 1 || get(s, regIER) != 2 {
		t.Error("divisor doesn't read back")
	}
	put(s, regLCR, 3)
	if get(s, regScratch) != 0xa5 || get(s, regIER) != 0x0f {
		t.Error("scratch or IER doesn't read back")
	}
	put(s, regIIR, fcrEnable)
	if get(s, regIIR)&iirFIFO != iirFIFO {
		t.Error("no FIFO")
	}
	put(s, regMCR, mcrLoop|mcrRTS|mcrOut2)
	if got := get(s, regMSR); got != msrCTS|msrDCD {
		t.Errorf("loopback MSR = %#x", got)
	}
	put(s, regData, 'l')
	if get(s, regData) != 'l' {
		t.Error("loopback lost a byte")
	}
}

// What is typed before the guest's driver listens must still be there when it does.
func TestSerialInputWaitsForTheDriver(t *testing.T) {
	s := NewSerial(func(bool) {})
	fed := make(chan bool, 1)
	go func() { _, ok := s.Input([]byte("x")); fed <- ok }()
	put(s, regIIR, fcrEnable|fcrClearReceive)
	if get(s, regLSR)&lsrReady != 0 {
		t.Fatal("the guest gets input before it listens")
	}
	put(s, regIER, ierReceive)
	within(t, "Input", func() { <-fed })
	if get(s, regData) != 'x' {
		t.Error("the byte is gone")
	}
}

// The machine frees its interrupt controllers while the console still takes what
// was written: from Close on the line must not be touched.
func TestSerialLeavesTheLineAloneOnceClosed(t *testing.T) {
	calls := 0
	s := NewSerial(func(bool) { calls++ })
	put(s, regMCR, mcrOut2)
	put(s, regIER, ierTransmit)
	for get(s, regLSR)&lsrEmpty != 0 {
		put(s, regData, 'x')
	}
	s.Close()
	before := calls
	within(t, "Output", func() {
		if n := len(s.Output(nil)); n != outputLimit {
			t.Errorf("%d bytes, want %d", n, outputLimit)
		}
	})
	if calls != before {
		t.Errorf("%d changes of the line after Close", calls-before)
	}
}
