// Package virtiotest is the other side of a virtio device, for tests: guest RAM, a
// machine, and a driver that finds a device on the PCI bus, sets it up and makes
// requests with nothing but configuration accesses, BAR accesses and rings in
// memory, in the order Linux's driver does.
//
// Everything can also be done wrong: rings and descriptors may be written raw.
package virtiotest
