package machine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestGuestPowersOff(t *testing.T) {
	start(t, Config{}, puts("hi"), powerOff, spin).ends(PoweredOff, "hi")
}

// heldConsole lets nothing through before it is released.
type heldConsole struct {
	*console
	called  chan struct{} // closed by the first Write
	release chan struct{}
	once    *sync.Once
}

func (c heldConsole) Write(p []byte) (int, error) {
	c.once.Do(func() { close(c.called) })
	<-c.release
	return c.console.Write(p)
}

// Everything a guest wrote is passed on before Run returns, however slow the
// console: here it begins when the guest's hardware is gone.
func TestConsoleIsCompleteWhenRunReturns(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 40)
	r := prepare(t, Config{}, puts(text), powerOff, spin)
	held := heldConsole{r.console, make(chan struct{}), make(chan struct{}), new(sync.Once)}
	release := sync.OnceFunc(func() { close(held.release) })
	r.Machine.console.w = held
	r.run()
	t.Cleanup(release)
	select {
	case <-held.called:
	case <-time.After(hung):
		t.Fatal("the guest writes nothing: ", r.where())
	}
	r.until("the guest's end", func() bool { return errors.Is(r.PowerButton(), ErrNotRunning) })
	start(t, Config{}, puts("meanwhile"), powerOff, spin).ends(PoweredOff, "meanwhile")
	select {
	case <-r.done:
		t.Error("Run returned before the console had anything")
	default:
	}
	release()
	r.ends(PoweredOff, text)
}

func TestGuestResets(t *testing.T) {
	ud2 := []byte{0x0f, 0x0b} // without an interrupt table: a triple fault
	for name, code := range map[string][]byte{
		"CF9":          out8(portReset, resetValue),
		"8042":         out8(portI8042, 0xfe),
		"triple fault": ud2,
	} {
		t.Run(name, func(t *testing.T) {
			start(t, Config{NoReboot: true}, puts("hi"), code, spin).ends(Reset, "hi")
		})
	}
}

// A reset is new hardware: the guest's counter in RAM is 1 at every start.
func TestGuestBootsAgain(t *testing.T) {
	r := start(t, Config{},
		[]byte{
			0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // inc qword [counterAddr]
			0x8a, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // mov al, [counterAddr]
			0x04, '0', // add al, '0'
			0x66, 0xba, 0xf8, 0x03, 0xee, // out 0x3f8, al
		},
		out8(portReset, resetValue), spin)
	r.writes(4)
	r.Stop()
	r.wait()
	if s := r.console.String(); r.err != nil || r.end != Stopped || strings.Trim(s, "1") != "" {
		t.Errorf("the guest %v, error %v, console %q; want stopped and ones", r.end, r.err, s)
	}
}

func TestGuestPanics(t *testing.T) {
	start(t, Config{}, puts("hi"), out8(portPanic, 1), spin).ends(Panicked, "hi")
	// A guest that writes its own dump goes on.
	start(t, Config{}, out8(portPanic, 2), puts("dump"), powerOff, spin).ends(PoweredOff, "dump")
}

func TestStop(t *testing.T) {
	r := start(t, Config{CPUs: 2}, puts("x"), spin)
	r.writes(1)
	r.Stop()
	r.Stop()
	r.ends(Stopped, "x")
}

func TestStopBeforeRun(t *testing.T) {
	r := prepare(t, Config{}, puts("x"), spin)
	r.Stop()
	r.run()
	r.ends(Stopped, "")
}

func TestStopWhilePaused(t *testing.T) {
	r := start(t, Config{CPUs: 2}, puts("x"), spin)
	r.writes(1)
	r.pause()
	r.Stop()
	r.ends(Stopped, "x")
}

// Many ends at once: one is reported, and nothing hangs.
func TestEndsRace(t *testing.T) {
	for range 20 {
		r := start(t, Config{NoReboot: true}, puts("x"), out8(portReset, resetValue), out8(portPanic, 1), powerOff, spin)
		go r.Stop()
		r.wait()
		if !slices.Contains([]End{Reset, Stopped}, r.end) || r.err != nil {
			t.Errorf("the guest %v, error %v", r.end, r.err)
		}
	}
}

// What KVM can't run is an error that says where, not an end.
func TestGuestThatCannotGoOn(t *testing.T) {
	// A jump to where no memory is: there is no instruction to fetch.
	r := start(t, Config{NoReboot: true}, []byte{0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0}) // mov eax, 0xd0000000; jmp rax
	r.wait()
	if r.err == nil || !strings.Contains(r.err.Error(), "vCPU 0") || !strings.Contains(r.err.Error(), "0xd0000000") {
		t.Errorf("the guest %v, error %v; want one with the place", r.end, r.err)
	}
}

func TestNothingToActOn(t *testing.T) {
	r := prepare(t, Config{}, powerOff, spin)
	check := func(when string) {
		t.Helper()
		for what, err := range map[string]error{"Pause": r.Pause(context.Background()), "Resume": r.Resume(), "PowerButton": r.PowerButton()} {
			if !errors.Is(err, ErrNotRunning) {
				t.Errorf("%s %s: %v, want %v", what, when, err, ErrNotRunning)
			}
		}
	}
	check("before Run")
	r.run()
	r.wait()
	check("after Run")
}

// Input waits for a guest that listens, and gives up when there will be none.
func TestInput(t *testing.T) {
	for name, end := range map[string]func(r *rig){
		"the guest ends": func(r *rig) { r.types("q") },
		"Stop":           func(r *rig) { r.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Config{}, echo)
			r.types("hello")
			if s := r.writes(5); s != "hello" {
				t.Fatalf("echo %q", s)
			}
			end(r)
			r.wait()
			input := make(chan error, 1)
			go func() { input <- r.Input([]byte("more")) }()
			select {
			case err := <-input:
				if !errors.Is(err, ErrNotRunning) {
					t.Errorf("Input: %v", err)
				}
			case <-time.After(hung):
				t.Fatal("Input hangs: ", r.where())
			}
		})
	}
}

// echo enables the receive interrupt, writes what it reads, and powers off at a q.
var echo = slices.Concat(out8(portSerial+1, 1), []byte{
	0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
	0xec,       // wait: in al, dx
	0xa8, 0x01, // test al, 1
	0x74, 0xfb, // jz wait
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xec,      // in al, dx
	0x3c, 'q', // cmp al, 'q'
	0x74, 0x03, // je off
	0xee,       // out dx, al
	0xeb, 0xeb, // jmp again
	// off:
}, powerOff, spin)

// A console that nobody reads keeps nobody from stopping the guest.
func TestStopWithoutReader(t *testing.T) {
	r := prepare(t, Config{}, puts("hello"), spin)
	reader, writer := io.Pipe()
	defer reader.Close()
	r.Machine.console.w = writer
	r.run()
	if _, err := reader.Read(make([]byte, 1)); err != nil { // the rest waits
		t.Fatal(err)
	}
	r.Stop()
	r.ends(Stopped, "")
}

// Nor does it keep a guest that resets from booting again; and its words come in their order once somebody reads.
func TestResetWithoutReader(t *testing.T) {
	r := prepare(t, Config{}, puts("hello"), []byte{
		0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // inc qword [counterAddr]
		0x48, 0x83, 0x3c, 0x25, 0x00, 0x01, 0x30, 0x00, 0x00, // again: cmp qword [goAddr], 0
		0x74, 0xf5, // je again
	}, out8(portReset, resetValue), spin)
	reader, writer := io.Pipe()
	defer reader.Close()
	r.Machine.console.w = writer
	r.run()
	r.moves(counterAddr, 0) // it has written all
	r.mu.Lock()
	first := r.hw
	r.hw.ram.Bytes(goAddr, 1)[0] = 1
	r.mu.Unlock()
	r.until("it to boot again", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.hw != nil && r.hw != first
	})
	r.moves(counterAddr, 0)
	got := make([]byte, 5)
	n, err := reader.Read(got) // what the first was in the middle of writing
	if err != nil || !strings.HasPrefix("hello", string(got[:n])) {
		t.Errorf("the first guest wrote %q (%v)", got[:n], err)
	}
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "hello" {
		t.Errorf("the second guest wrote %q (%v)", got, err)
	}
}
