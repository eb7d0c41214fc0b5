// Package migration moves a running guest to another host, and never stops it to wait for a disk.
//
//	source                                                            destination
//	Send ── Source (core.go): what to do next, and nothing else       Receive ── arrival.go, destination.go
//	  │        Step(event) → actions                                     │
//	  ├── source.go, connect.go, handover.go: carry the actions out      │
//	  ├── drain: windows that follow the disks (package drain)           │
//	  ├── ram: passes over memory (package ram) ═══ connections ═══▶     ├── ram
//	  └── Guest, Disk (guest.go): the machine                            └── Host, Incoming (guest.go)
//
// The package knows no KVM and no virtio: it sees the interfaces of guest.go, and what a machine is
// goes over as JSON, its state as bytes, neither of which it looks into. [Source] is a pure state machine, drawn in
// phase.go and tested by the scripts in testdata: core.go is its frame and its failures, copying.go what it does while the guest
// runs, standing.go while the vCPUs stand, and estimate.go tells whether a stop would be in time. PROTOCOL.md has the frames and their order.
//
// What holds at every moment, whatever fails (world_test.go checks it with everything failing):
//
//   - At most one side runs the guest, and only with the owner locks of all its images.
//   - Before COMMIT a failure leaves the guest at the source, with its windows open. If an image was
//     taken by somebody else meanwhile, or its lock can't be had in time, the guest stands there.
//   - After COMMIT the source doesn't run it again by itself. If the link is lost just then, neither
//     side may run it, and the user decides (`ebb resume --force`).
//   - The vCPUs stop only when nothing is in flight, everything written is where the destination finds it, which
//     has the images, but with the policy off and after a forced timeout.
package migration
