package chipset

// I8042 is what is left of the keyboard controller: its pulse on the reset line
// and a status that says "nothing to read, ready for a command". It sits at port
// 0x64.
type I8042 struct {
	Reset func() // called on a vCPU's goroutine
}

const pulseReset = 0xfe

// Read implements bus.Handler.
func (k I8042) Read(_ uint64, p []byte) { clear(p) }

// Write implements bus.Handler.
func (k I8042) Write(_ uint64, p []byte) {
	if p[0] == pulseReset {
		k.Reset()
	}
}
