package kvm

// KVM_VCPU_TSC_CTRL and KVM_VCPU_TSC_OFFSET (Documentation/virt/kvm/devices/vcpu.rst, 4).
const (
	tscCtrlGroup  uint32 = 0
	tscOffsetAttr uint64 = 0
)

// GetTSCKHz returns the guest's TSC frequency in kHz (api.rst 4.56, needs CapGetTSCKHz).
func (c *VCPU) GetTSCKHz() (int, error) { return ioctlValue(c.fd, getTSCKHz, 0) }

// SetTSCKHz sets the guest's TSC frequency in kHz (api.rst 4.55). A frequency
// other than the host's needs CapTSCControl.
func (c *VCPU) SetTSCKHz(khz int) error {
	_, err := ioctlValue(c.fd, setTSCKHz, uint64(uint32(khz)))
	return err
}

// GetTSCOffset returns what is added to the host's TSC, scaled to the guest's
// frequency, to make the guest's; modulo 2^64
// (needs CapVCPUAttributes and, on x86, Linux 5.16).
func (c *VCPU) GetTSCOffset() (uint64, error) {
	var offset uint64
	err := ioctlDeviceAttr(c.fd, getDeviceAttr, tscCtrlGroup, tscOffsetAttr, &offset)
	return offset, err
}

// SetTSCOffset sets that offset. Unlike writing MSRTSC it doesn't depend on when
// it is called. A KVM without hardware help may accept and ignore both: read back what was set.
func (c *VCPU) SetTSCOffset(offset uint64) error {
	return ioctlDeviceAttr(c.fd, setDeviceAttr, tscCtrlGroup, tscOffsetAttr, &offset)
}

// KVMClockCtrl tells the guest, through its kvmclock, that it was paused, so
// that its watchdogs forgive the gap (api.rst 4.70, needs CapKVMClockCtrl). EINVAL: the guest uses no kvmclock.
func (c *VCPU) KVMClockCtrl() error {
	_, err := ioctlValue(c.fd, kvmclockCtrl, 0)
	return err
}
