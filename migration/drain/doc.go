// Package drain lets the disks of a VM run dry before a migration stops it, in bounded time and while
// the guest runs. It decides; a driver, which has the clock and the ports, calls it every 5 to 10 ms:
//
//	windows := c.Step(now, samples)    every tick: hand them to aio.Port.SetWindow(aio.CauseDrain, n)
//	c.Ebb()                            RAM will soon be there: the windows shrink, from the next Step on
//	c.Ready()                          a drain begun now would fit the budget on every disk
//	windows := c.Hold()                admission closes, disk by disk
//	windows := c.Open()                the migration is off: windows open
//
//	        Ebb             Hold              in flight 0 everywhere
//	 Open ───────▶ Ebbing ───────▶ Holding ───────────────────────────▶ Drained
//	  ▲             ▲    ▲            │
//	  │ Open        │    └─ time ─ BackingOff      it took longer than the budget: windows
//	  any state     │                              are open, next try after 1 s, 2 s, ... 30 s
//	                └─ a disk began to flush ─ Holding
//
// While a disk hangs in Ebbing all windows are open, too: the guest must not pay for a migration that can't be.
//
// What is measured is the grace period (aio.GracePeriod): the time from a moment until all that was in
// flight then had completed. It is what a drain at that moment would have taken.
//
//	controller.go  all disks: states, staggered closing, back-off
//	disk.go        one disk: is it ready, how long will it take, does it hang, what does it need
//	law.go         what a law is; the law of Serial
//	adaptive.go    the law of Adaptive: how a window follows the grace periods
//	meter.go       what shrinking costs the guest
//	sample.go      what is observed, and how a port is read
//
// The laws that were tried, with numbers: docs/drain.md. The disks they were tried on: package sim.
package drain
