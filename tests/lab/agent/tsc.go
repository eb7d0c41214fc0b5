package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// calibrationLimit is how long the kernel may take to calibrate its TSC; it begins a second after its drivers and measures
// for a second.
const calibrationLimit = 20 * time.Second

// awaitTSC waits until the kernel has measured its TSC's frequency and uses it as its clock. KVM keeps the frequency that
// it finds when it is loaded. Where that is the first estimate, by 250 ppm or more too low, and the processor can't scale TSCs,
// it takes every guest's TSC for 0 (kvm_set_tsc_khz in arch/x86/kvm/x86.c fails before it has set a ratio, and nobody looks):
// a guest's timers then fire as much too late as the host is old. Under the emulator the estimate is often 700 ppm off.
func awaitTSC() error {
	const file = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		now, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(now)) == "tsc" {
			return nil
		}
		if time.Since(start) > calibrationLimit {
			return fmt.Errorf("%s still says %q after %v: the TSC wasn't calibrated", file, strings.TrimSpace(string(now)), calibrationLimit)
		}
	}
}
