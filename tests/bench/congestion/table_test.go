package main

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	o := options{disks: []int{16, 32}, depth: 128, latency: 500 * time.Millisecond, rounds: 2}
	samples := []sample{
		{"ebb uring", 16, 4000, 2048, 500 * time.Millisecond, 600 * time.Millisecond, 0.95},
		{"QEMU native", 16, 2000, 1024, time.Second, 2 * time.Second, 0.5},
		{"ebb uring", 16, 3000, 2000, 520 * time.Millisecond, 700 * time.Millisecond, 0.85},
	}
	text := table(o, samples, []string{"ebb native: not there"})
	for _, line := range []string{
		"16 disks, 2048 requests, ideal 4096 IOPS:\n",
		"32 disks, 4096 requests, ideal 8192 IOPS:\n",
		"| ebb uring | 3500 (3000–4000) | 2024 (2000–2048) | 510 (500–520) | 650 (600–700) | 0.90 (0.85–0.95) |\n",
		"| QEMU native | 2000 (2000–2000) | 1024 (1024–1024) | 1000 (1000–1000) | 2000 (2000–2000) | 0.50 (0.50–0.50) |\n",
		"- ebb native: not there\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the table lacks %q:\n%s", line, text)
		}
	}
}
