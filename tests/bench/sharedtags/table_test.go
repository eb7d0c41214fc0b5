package main

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	o := options{engines: []string{"uring", "native"}, fast: 10 * time.Millisecond, slow: time.Second, depth: 64, most: 64, flush: 50, rounds: 2}
	text := table(o, []sample{
		{"uring", reads, 6000, 5700, 32},
		{"uring", reads, 6000, 6000, 30},
		{"native", flushes, 4000, 3000, 20},
		{"uring", hung, 5000, 4900, 0},
	})
	for _, line := range []string{
		"| uring | reads | 6000 (6000–6000) | 5850 (5700–6000) | 97.5 % (95.0 %–100.0 %) | 31 (30–32) |\n",
		"| native | reads, writes, flushes | 4000 (4000–4000) | 3000 (3000–3000) | 75.0 % (75.0 %–75.0 %) | 20 (20–20) |\n",
		"| uring | reads, the slow disk hangs | 5000 (5000–5000) | 4900 (4900–4900) | 98.0 % (98.0 %–98.0 %) | 0 (0–0) |\n",
		"| native | reads | – |",
		"`--aio-max 64`",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the table lacks %q:\n%s", line, text)
		}
	}
}
