package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// Migration asks for a migration. Durations are nanoseconds, above 0.
type Migration struct {
	Address     string        `json:"address"` // HOST:PORT
	Downtime    time.Duration `json:"downtime_ns"`
	Stall       time.Duration `json:"stall_ns"`
	Drain       string        `json:"drain"` // adaptive, serial, off
	Streams     int           `json:"streams"`
	Bandwidth   uint64        `json:"bandwidth_bytes_per_s"` // 0: no bound
	Timeout     time.Duration `json:"timeout_ns"`
	Force       bool          `json:"force_on_timeout"`
	AllowCached bool          `json:"allow_cached"`
	TLSDir      string        `json:"tls_dir,omitempty"`
	Insecure    bool          `json:"insecure"`
}

// migrationLine is one line of the answer: how it goes, until there is a report.
type migrationLine struct {
	Progress json.RawMessage `json:"progress,omitempty"`
	Report   json.RawMessage `json:"report,omitempty"`
	Error    string          `json:"error,omitempty"` // with or without a report, the last
}

// migrate answers line by line, and cancels the migration if the client leaves.
func (s *Server) migrate(w http.ResponseWriter, r *http.Request) {
	var m Migration
	if err := decode(r, &m); err != nil {
		fail(w, err)
		return
	}
	s.using.RLock()
	defer s.using.RUnlock()
	if s.isOver() {
		fail(w, s.ended())
		return
	}
	begun := false
	line := func(l migrationLine) {
		if !begun {
			begun = true
			begin(w, http.StatusOK)
		}
		send(w, l)
		_ = http.NewResponseController(w).Flush()
	}
	// A client that doesn't read holds up nobody: it misses something.
	latest, told := make(chan json.RawMessage, 1), make(chan struct{})
	go func() {
		defer close(told)
		for progress := range latest {
			line(migrationLine{Progress: progress})
		}
	}()
	report, err := s.vm.Migrate(r.Context(), m, func(progress json.RawMessage) {
		select {
		case latest <- progress:
		default:
		}
	})
	close(latest)
	<-told
	if err != nil && !begun && report == nil {
		fail(w, err)
		return
	}
	l := migrationLine{Report: report}
	if err != nil {
		l.Error = err.Error()
	}
	line(l)
}

// Migrate moves the VM's guest and returns the report; progress is told how it goes. It cancels the
// migration when ctx ends, and waits until that is done. An error beside a report is the migration's.
func (c *Client) Migrate(ctx context.Context, m Migration, progress func(json.RawMessage)) (report json.RawMessage, err error) {
	resp, err := c.send(ctx, "POST", "/v1/migrate", m)
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, c.answer(resp, nil)
	}
	d := json.NewDecoder(resp.Body)
	for {
		var l migrationLine
		if err := d.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, c.explain(err)
		}
		switch {
		case l.Error != "":
			return l.Report, errors.New(l.Error)
		case l.Report != nil:
			return l.Report, nil
		case l.Progress != nil:
			progress(l.Progress)
		}
	}
}
