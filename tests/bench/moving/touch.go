package moving

import (
	"golang.org/x/sys/unix"

	"github.com/ebb-vmm/ebb/machine/memory"
)

// TouchFree writes to nearly all of this host's free memory: if it is a virtual machine, as the lab is, its own host has to find a page the first
// time that one is written to, which takes several times as long as clearing it. Without this the first migrations would be the slowest,
// whoever's they are.
func TouchFree() error {
	const spared = 256 << 20 // bytes
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	m, err := memory.New((max(info.Freeram, 2*spared) - spared) / memory.Alignment * memory.Alignment)
	if err != nil {
		return err
	}
	defer m.Close()
	Touch(m)
	return nil
}

// Touch has a page of the host's behind each of m's. They stay zeroes.
func Touch(m *memory.RAM) {
	for _, r := range m.Regions() {
		for at := 0; at < len(r.Bytes); at += memory.PageSize {
			r.Bytes[at] = 0
		}
	}
}
