// Package pci is a PCI function as its device sees it: 256 bytes of
// configuration space with write masks, memory BARs, a capability chain, MSI-X.
//
// It knows no bus, no KVM and no virtio. The bus routes accesses to a [Function];
// the function reaches the machine through a [Host]. A device builds a [Config],
// adds BARs and capabilities, and calls [Config.Bind] once:
//
//	bus ── ReadConfig/WriteConfig ──▶ Function ── Read/Write ──▶ Config
//	                                                               │ command register or BAR written
//	Host.MapBAR ◀──────────────────────────────────────────────────┘
//	Host.NewVector, Vector.SetRoute ◀── MSIX ◀── table and control writes
//
// [Config.Bind] may be left out: a Config without BARs needs no host (a host
// bridge, see [Bare]).
//
// A [RootPort] is a function too: the bridge to a hotplug slot.
//
// # Locks
//
// A Config, an MSIX and a RootPort have their own locks and are safe for every vCPU at once.
// MapBAR, AddIOEventFD, NewVector and SetRoute are called with locks of this
// package held. A Host may therefore take its own locks inside them, but must not
// hold one of those locks while it calls a Function.
//
// References: PCI Local Bus Specification 3.0, chapter 6 (configuration space,
// 6.8 MSI and MSI-X); PCI Express Base Specification 5.0, 6.7 (hotplug), 7.5.3.
package pci
