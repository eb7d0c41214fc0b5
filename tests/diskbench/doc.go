// Package diskbench has tests with the bare-metal disk benchmark as the guest. It runs in ring 3, so any KVM will do,
// one that can't boot Linux as well.
package diskbench
