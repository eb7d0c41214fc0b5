package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
)

// Guests are a few instructions, entered in long mode at entryAddr with all of
// the first 4 GiB identity-mapped.
const (
	entryAddr   = 0x200000
	counterAddr = 0x300000 // 8 bytes
	guestMemory = 16 << 20

	// hung is how long a test waits for what takes milliseconds.
	hung = 60 * time.Second
)

// out8 and out16 write v to a port; they change AX and DX.
func out8(port uint16, v byte) []byte {
	return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0xb0, v, 0xee}
}

func out16(port, v uint16) []byte {
	return []byte{0x66, 0xba, byte(port), byte(port >> 8), 0x66, 0xb8, byte(v), byte(v >> 8), 0x66, 0xef}
}

func puts(s string) (code []byte) {
	for _, c := range []byte(s) {
		code = append(code, out8(portSerial, c)...)
	}
	return code
}

var (
	powerOff = out16(portPM+4, 5<<10|1<<13)
	spin     = []byte{0xeb, 0xfe}
	count    = []byte{
		0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // inc qword [counterAddr]
		0xeb, 0xf6, // again
	}
)

// console is what a guest wrote.
type console struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	grew chan struct{} // holds one token when there is more to see
}

func newConsole() *console { return &console{grew: make(chan struct{}, 1)} }

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.grew <- struct{}{}:
	default:
	}
	return c.buf.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// rig is a machine that runs.
type rig struct {
	testing.TB
	*Machine
	console *console
	end     End
	err     error
	done    chan struct{} // Run has returned
}

func needKVM(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(kvmPath, os.O_RDWR, 0)
	if err != nil {
		t.Skip("this test needs KVM:", err)
	}
	f.Close()
}

func kernelFile(t testing.TB, code ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel")
	k := boottest.ELF{Entry: entryAddr, Segments: []boottest.Segment{{Paddr: entryAddr, Vaddr: entryAddr, Data: slices.Concat(code...)}}}
	if err := os.WriteFile(path, k.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// prepare makes a machine for the code, with what cfg leaves open filled in.
func prepare(t testing.TB, cfg Config, code ...[]byte) *rig {
	t.Helper()
	needKVM(t)
	r := &rig{TB: t, console: newConsole(), done: make(chan struct{})}
	cfg.Kernel = kernelFile(t, code...)
	cfg.Memory = max(cfg.Memory, guestMemory)
	cfg.CPUs = max(cfg.CPUs, 1)
	cfg.Console = r.console
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Machine = m
	return r
}

func (r *rig) run() {
	go func() {
		defer close(r.done)
		r.end, r.err = r.Run()
	}()
	r.Cleanup(r.finish)
}

// finish ends the guest if it runs, and frees the machine.
func (r *rig) finish() {
	r.Stop()
	r.wait()
	if err := r.Close(); err != nil {
		r.Error(err)
	}
}

func start(t testing.TB, cfg Config, code ...[]byte) *rig {
	t.Helper()
	r := prepare(t, cfg, code...)
	r.run()
	return r
}

// where says how far everything got.
func (r *rig) where() string {
	state := "no hardware"
	if r.mu.TryLock() { // whoever holds it may be what hangs
		if hw := r.hw; hw != nil && hw.gate.mu.TryLock() {
			state = fmt.Sprintf("gate held by %#b, %d of %d vCPUs outside", hw.gate.held, hw.gate.outside, len(hw.gate.cpus))
			hw.gate.mu.Unlock()
		}
		r.mu.Unlock()
	} else {
		state = "the machine is locked"
	}
	stacks := make([]byte, 1<<20)
	return fmt.Sprintf("%s, console %q\n%s", state, r.console, stacks[:runtime.Stack(stacks, true)])
}

// wait waits for the guest's end.
func (r *rig) wait() {
	r.Helper()
	select {
	case <-r.done:
	case <-time.After(hung):
		r.Fatal("the guest doesn't end: ", r.where())
	}
}

// ends waits for the guest's end and checks it and all the guest has written.
func (r *rig) ends(want End, written string) {
	r.Helper()
	r.wait()
	if r.err != nil || r.end != want {
		r.Errorf("the guest %v, error %v; want %v", r.end, r.err, want)
	}
	if got := r.console.String(); got != written {
		r.Errorf("console %q, want %q", got, written)
	}
}

// writes waits until the guest has written n bytes.
func (r *rig) writes(n int) string {
	r.Helper()
	timeout := time.After(hung)
	for {
		if s := r.console.String(); len(s) >= n {
			return s
		}
		select {
		case <-r.console.grew:
		case <-r.done:
			if s := r.console.String(); len(s) >= n {
				return s
			}
			r.Fatalf("the guest %v, error %v, before it wrote %d bytes: %q", r.end, r.err, n, r.console)
		case <-timeout:
			r.Fatalf("the guest doesn't write %d bytes: %s", n, r.where())
		}
	}
}

// number reads 8 bytes of guest memory while the guest runs; 0 before it does.
func (r *rig) number(gpa uint64) uint64 {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hw == nil {
		select {
		case <-r.done:
			r.Fatalf("the guest %v, error %v, console %q", r.end, r.err, r.console)
		default:
		}
		return 0
	}
	return binary.LittleEndian.Uint64(r.hw.ram.Bytes(gpa, 8))
}

// moves waits until the guest has counted on from n.
func (r *rig) moves(gpa, n uint64) {
	r.Helper()
	r.until(fmt.Sprintf("the counter at %#x to leave %d", gpa, n), func() bool { return r.number(gpa) != n })
}

// until waits for something that has no event of its own.
func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(hung); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			r.Fatalf("waiting for %s: %s", what, r.where())
		}
	}
}

// pause pauses and checks that no vCPU is in the guest.
func (r *rig) pause() {
	r.Helper()
	watch := time.AfterFunc(hung, func() { panic("Pause hangs: " + r.where()) })
	defer watch.Stop()
	if err := r.Pause(context.Background()); err != nil {
		r.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.hw.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.outside != len(g.cpus) {
		r.Errorf("paused with %d of %d vCPUs outside the guest", g.outside, len(g.cpus))
	}
}

func (r *rig) resume() {
	r.Helper()
	if err := r.Resume(); err != nil {
		r.Fatal(err)
	}
}

// types types on the guest's console.
func (r *rig) types(s string) {
	r.Helper()
	watch := time.AfterFunc(hung, func() { panic("Input hangs: " + r.where()) })
	defer watch.Stop()
	if err := r.Input([]byte(s)); err != nil {
		r.Fatal(err)
	}
}
