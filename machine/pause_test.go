package machine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// stands checks that counters don't move while something else happens: another
// machine runs, from its making to its power-off.
func (r *rig) stands(gpas ...uint64) {
	r.Helper()
	read := func() (n []uint64) {
		for _, gpa := range gpas {
			n = append(n, r.number(gpa))
		}
		return n
	}
	before := read()
	start(r.TB, Config{}, puts("meanwhile"), powerOff, spin).ends(PoweredOff, "meanwhile")
	if after := read(); !slices.Equal(after, before) {
		r.Errorf("counters went from %d to %d while paused", before, after)
	}
}

func TestPauseAndResume(t *testing.T) {
	r := start(t, Config{}, count)
	r.moves(counterAddr, 0)
	for range 5 {
		r.pause()
		n := r.number(counterAddr)
		r.stands(counterAddr)
		r.pause() // again: nothing changes
		if m := r.number(counterAddr); m != n {
			t.Errorf("the counter went from %d to %d", n, m)
		}
		r.resume()
		r.resume()
		r.moves(counterAddr, n)
	}
}

// A pause that was given up while it waited for its turn doesn't come after the resume that it waited for.
func TestPauseGivenUpDoesNotComeLate(t *testing.T) {
	r := start(t, Config{}, count)
	r.moves(counterAddr, 0)
	for range 100 { // the turn is free, too
		if err := r.Pause(cancelled()); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if s, _ := r.State(); s != Running {
			t.Fatalf("the guest is %v", s)
		}
	}
}

// Application processors start as on a PC: INIT and start-up messages to all
// others, which begin at 0x8000 in real mode. Each takes a number and counts.
const (
	apStart    = 0x8000
	apCounters = 0x8700
)

var (
	apCode = []byte{
		0xb8, 0x01, 0x00, // mov ax, 1
		0xf0, 0x0f, 0xc1, 0x06, 0x00, 0x86, // lock xadd [0x8600], ax
		0xc1, 0xe0, 0x03, // shl ax, 3
		0x89, 0xc3, // mov bx, ax
		0x66, 0xff, 0x87, 0x00, 0x87, // again: inc dword [bx+apCounters]
		0xeb, 0xf9, // jmp again
	}
	startAPs = []byte{
		0x48, 0x8d, 0x35, 0x39, 0x00, 0x00, 0x00, // lea rsi, [rip+0x39]: apCode, behind this
		0xbf, 0x00, 0x80, 0x00, 0x00, // mov edi, apStart
		0xb9, 0x20, 0x00, 0x00, 0x00, // mov ecx, 32
		0xfc, 0xf3, 0xa4, // cld; rep movsb
		0xbb, 0xf0, 0x00, 0xe0, 0xfe, // mov ebx, the spurious vector register
		0xc7, 0x03, 0xff, 0x01, 0x00, 0x00, // mov [rbx], 0x1ff: APIC on
		0xbb, 0x00, 0x03, 0xe0, 0xfe, // mov ebx, the interrupt command register
		0xc7, 0x03, 0x00, 0x45, 0x0c, 0x00, // mov [rbx], INIT to all others
		0xc7, 0x03, 0x08, 0x46, 0x0c, 0x00, // mov [rbx], start-up at page 8 to all others
		0xc7, 0x03, 0x08, 0x46, 0x0c, 0x00, // twice, as the SDM asks
		0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // again: inc qword [counterAddr]
		0xeb, 0xf6, // jmp again
	}
)

func TestPauseSeveralCPUs(t *testing.T) {
	r := start(t, Config{CPUs: 3}, startAPs, apCode)
	counters := []uint64{counterAddr, apCounters, apCounters + 8}
	for _, c := range counters {
		r.moves(c, 0)
	}
	for range 3 {
		r.pause()
		var stood []uint64
		for _, c := range counters {
			stood = append(stood, r.number(c))
		}
		r.stands(counters...)
		r.resume()
		for i, c := range counters {
			r.moves(c, stood[i])
		}
	}
}

// vCPUs that wait for their start-up message are in the kernel, not in the guest.
func TestPauseCPUsThatNeverStarted(t *testing.T) {
	r := start(t, Config{CPUs: 4}, count)
	r.moves(counterAddr, 0)
	r.pause()
	n := r.number(counterAddr)
	r.stands(counterAddr)
	r.resume()
	r.moves(counterAddr, n)
}

// A pause that falls between a port access and its completion neither loses nor
// repeats it: the guest writes 0, 1, 2, ... and misses nothing.
func TestPauseLosesNoPortAccess(t *testing.T) {
	r := start(t, Config{}, []byte{
		0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, 0x20: transmitter empty
		0x74, 0xfb, // jz wait
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0x88, 0xd8, // mov al, bl
		0xee,       // out dx, al
		0xff, 0xc3, // inc ebx
		0xeb, 0xec, // jmp again
	})
	n := 0
	for range 100 {
		n = len(r.writes(n + 1))
		r.pause()
		r.resume()
	}
	written := r.writes(n + 1000)
	r.Stop()
	r.wait()
	for i, c := range []byte(written) {
		if c != byte(i) {
			t.Fatalf("byte %d is %d, want %d", i, c, byte(i))
		}
	}
}

// A guest that resets while it is paused stays paused.
func TestPauseOutlivesReset(t *testing.T) {
	r := prepare(t, Config{}, puts("x"), spin)
	r.mu.Lock()
	r.held[byUser] = "" // as after a Pause that met the end of the guest before
	r.mu.Unlock()
	r.run()
	r.until("hardware", func() bool { return r.PowerButton() == nil })
	r.stands(counterAddr)
	if s := r.console.String(); s != "" {
		t.Errorf("the guest wrote %q while paused", s)
	}
	r.resume()
	r.writes(1)
}

// BenchmarkPause measures how long it takes to stop a busy vCPU.
func BenchmarkPause(b *testing.B) {
	r := start(b, Config{}, count)
	r.moves(counterAddr, 0)
	var worst time.Duration
	for b.Loop() {
		from := time.Now()
		r.pause()
		worst = max(worst, time.Since(from))
		b.StopTimer()
		n := r.number(counterAddr)
		r.resume()
		r.moves(counterAddr, n)
		b.StartTimer()
	}
	b.ReportMetric(float64(worst.Nanoseconds()), "worst-ns")
}
