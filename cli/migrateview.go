package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/ebb-vmm/ebb/migration"
)

// migrationView shows how a migration goes: a line that is renewed on a terminal, a line a phase and
// second in a pipe, or JSON.
type migrationView struct {
	json, terminal bool
	out, err       io.Writer
	shown          bool // there is a line on the terminal
	phase          string
	at             time.Duration
}

func newMigrationView(asJSON bool) *migrationView {
	return &migrationView{json: asJSON, terminal: !asJSON && isTerminal(os.Stderr), out: os.Stdout, err: os.Stderr}
}

func (v *migrationView) progress(p migration.Progress, raw json.RawMessage) {
	switch {
	case v.json:
		fmt.Fprintf(v.out, "{\"progress\":%s}\n", raw)
	case v.terminal:
		fmt.Fprintf(v.err, "\r\x1b[K%.*s", 160, progressLine(p))
		v.shown = true
	case p.Phase != v.phase || p.Elapsed-v.at >= time.Second:
		fmt.Fprintln(v.err, progressLine(p))
		v.phase, v.at = p.Phase, p.Elapsed
	}
}

// end leaves the terminal's line.
func (v *migrationView) end() {
	if v.shown {
		fmt.Fprint(v.err, "\r\x1b[K")
		v.shown = false
	}
}

func (v *migrationView) result(r *migration.Report, raw json.RawMessage) {
	if v.json {
		fmt.Fprintf(v.out, "{\"report\":%s}\n", raw)
		return
	}
	if r.Error == "" {
		fmt.Fprintln(v.out, r.Line())
	}
}

func bytesText(n float64) string {
	return units.CustomSize("%.3g %s", n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
}

// progressLine is what a person wants to know at a glance.
func progressLine(p migration.Progress) string {
	parts := []string{fmt.Sprintf("%5.1f s", p.Elapsed.Seconds()), fmt.Sprintf("%-7s", p.Phase)}
	if p.Rate > 0 {
		parts = append(parts, fmt.Sprintf("memory left %s, %s/s, dirtied %s/s", bytesText(float64(p.Left)), bytesText(p.Rate), bytesText(p.Dirty)))
		parts = append(parts, fmt.Sprintf("downtime expected %.0f ms", float64(p.Expected)/1e6))
	}
	if p.Throttle > 0 {
		parts = append(parts, fmt.Sprintf("vCPUs slowed by %d %%", p.Throttle))
	}
	var disks []string
	for _, d := range p.Disks {
		if d.InFlight > 0 || d.Window != nil {
			s := fmt.Sprintf("%s %d", d.ID, d.InFlight)
			if d.Window != nil {
				s += fmt.Sprintf("/%d", *d.Window)
			}
			disks = append(disks, s)
		}
	}
	if len(disks) > 0 {
		parts = append(parts, "in flight "+strings.Join(disks, " "))
	}
	if p.Retries > 0 {
		parts = append(parts, fmt.Sprintf("%d tries", p.Retries+1))
	}
	if p.Verdict != "" {
		parts = append(parts, p.Verdict)
	}
	return strings.Join(parts, " · ")
}
