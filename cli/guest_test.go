package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-vmm/ebb/machine/boot/boottest"
)

// Instructions of 32-bit protected mode. The guests enter there by their PVH note.
var (
	outDXAL = []byte{0xee}
	inALDX  = []byte{0xec}
)

func movDX(v uint16) []byte { return []byte{0x66, 0xba, byte(v), byte(v >> 8)} }
func movAL(v byte) []byte   { return []byte{0xb0, v} }

// out writes a byte to a port.
func out(port uint16, v byte) []byte { return join(movDX(port), movAL(v), outDXAL) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var (
	halt     = []byte{0xf4, 0xeb, 0xfd}                                       // hlt; jmp to it
	powerOff = join(movDX(0x604), []byte{0x66, 0xb8, 0x00, 0x34, 0x66, 0xef}) // PM1 control: S5
	reset    = out(0x64, 0xfe)                                                // pulse of the 8042
	panicked = out(0x505, 1)                                                  // pvpanic
	listen   = out(0x3f9, 1)                                                  // the UART's receive interrupt
	receive  = join(movDX(0x3fd), inALDX, []byte{0xa8, 1, 0x74, 0xfb},        // until LSR says so,
		movDX(0x3f8), inALDX) // a byte
)

// say writes text to the console.
func say(text string) (code []byte) {
	for _, c := range []byte(text) {
		code = append(code, out(0x3f8, c)...)
	}
	return code
}

// onKey does what do does if the key was typed.
func onKey(key byte, do []byte) []byte {
	do = join(do, halt)
	return join([]byte{0x3c, key, 0x75, byte(len(do))}, do) // cmp al, key; jne behind do
}

// obedient says "ready" and echoes what is typed, but p powers it off, r resets
// it and x makes it panic.
func obedient() []byte {
	loop := join(receive, onKey('p', powerOff), onKey('r', reset), onKey('x', panicked), outDXAL)
	return join(listen, say("ready"), loop, []byte{0xeb, byte(-len(loop) - 2)})
}

// deaf says "ready" and never listens.
func deaf() []byte { return join(say("ready"), halt) }

// kernel writes a guest to a file.
func kernel(t *testing.T, dir string, code []byte) string {
	t.Helper()
	const at = 1 << 20
	path := filepath.Join(dir, "kernel")
	noError(t, os.WriteFile(path, boottest.ELF{
		Entry: at, Segments: []boottest.Segment{{Paddr: at, Vaddr: at, Data: code}}, Notes: []boottest.Note{boottest.PVH(at)},
	}.Bytes(), 0o644))
	return path
}
