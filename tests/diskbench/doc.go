// Package diskbench has tests with the bare-metal disk benchmark as the guest. It runs in ring 3, so any KVM will do,
// one that can't boot Linux as well; where there is none, they run in the lab.
package diskbench
