package pci

// remap brings what the host maps in line with the registers. It compares the
// present state rather than following single writes, so two vCPUs that write at
// once end with the BARs where the registers say, whoever comes last.
func (c *Config) remap() {
	c.mapMu.Lock()
	defer c.mapMu.Unlock()
	for bar := range c.barSize {
		if c.barSize[bar] == 0 {
			continue
		}
		want, have := c.decoded(bar), c.mapped[bar]
		if want == have {
			continue
		}
		b := c.bound
		if have != 0 {
			if b.Moved != nil {
				b.Moved(bar, 0)
			}
			c.mapped[bar] = 0
			if err := b.Host.MapBAR(b.Function, bar, 0); err != nil && b.Failed != nil {
				b.Failed(bar, 0, err)
			}
		}
		if want == 0 {
			continue
		}
		if err := b.Host.MapBAR(b.Function, bar, want); err != nil {
			if b.Failed != nil {
				b.Failed(bar, want, err)
			}
			continue
		}
		c.mapped[bar] = want
		if b.Moved != nil {
			b.Moved(bar, want)
		}
	}
}

// decoded returns the address a BAR answers at, 0 if at none: memory decoding is
// off, the address is 0, or it is all ones because the guest is asking for the size.
func (c *Config) decoded(bar int) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.uint16(regCommand)&CommandMemory == 0 {
		return 0
	}
	ones := uint32(-c.barSize[bar])
	addr := c.uint32(regBAR0+4*bar) & ones
	if addr == ones {
		return 0
	}
	return uint64(addr)
}

// BARAddr returns where the host maps a BAR, 0 if nowhere.
func (c *Config) BARAddr(bar int) uint64 {
	c.mapMu.Lock()
	defer c.mapMu.Unlock()
	if bar < 0 || bar >= numBARs {
		return 0
	}
	return c.mapped[bar]
}
