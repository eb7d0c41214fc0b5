// Package boottest builds kernel files for tests: an ELF file or a bzImage of
// the few bytes that a test is about.
package boottest
