package chipset

// Events a guest reports through pvpanic (QEMU's docs/specs/pvpanic).
const (
	panicked    = 1 << 0
	crashLoaded = 1 << 1 // the guest panicked and handles it by itself (kdump)
)

// PVPanic is the port at which a guest says that its kernel has panicked.
type PVPanic struct {
	Panicked func() // called on a vCPU's goroutine, perhaps more than once
}

// Read implements bus.Handler: which events are understood.
func (v PVPanic) Read(_ uint64, p []byte) {
	clear(p)
	p[0] = panicked | crashLoaded
}

// Write implements bus.Handler. A guest that writes its own crash dump goes on.
func (v PVPanic) Write(_ uint64, p []byte) {
	if p[0]&panicked != 0 {
		v.Panicked()
	}
}
