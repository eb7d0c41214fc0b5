package moving

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// QMP is a connection to QEMU's monitor (docs/interop/qmp-spec.txt).
type QMP struct {
	conn net.Conn
	in   *json.Decoder
}

// DialQMP waits until QEMU is there.
func DialQMP(ctx context.Context, path string) (*QMP, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &QMP{conn, json.NewDecoder(conn)}
			if err := q.greet(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return q, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (q *QMP) greet(ctx context.Context) error {
	defer context.AfterFunc(ctx, q.Close)()
	var greeting json.RawMessage
	if err := q.in.Decode(&greeting); err != nil {
		return failed(ctx, "greeting", err)
	}
	return q.do(ctx, "qmp_capabilities", nil, nil)
}

// Close ends the connection, not QEMU.
func (q *QMP) Close() { q.conn.Close() }

// QEMUMigration is what QEMU says of one that has ended well.
type QEMUMigration struct {
	Total, Downtime time.Duration
	Sent            uint64 // bytes of memory
}

// Listen has a QEMU that was started with -incoming defer wait for a guest, whose memory comes over so many connections.
func (q *QMP) Listen(ctx context.Context, listen string, streams int) error {
	if err := q.streams(ctx, streams); err != nil {
		return err
	}
	return q.do(ctx, "migrate-incoming", map[string]any{"uri": listen}, nil)
}

// streams sets over how many connections memory goes: one is QEMU's own way, else multifd's.
func (q *QMP) streams(ctx context.Context, n int) error {
	if n == 1 {
		return nil
	}
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	if err := q.do(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []capability{{"multifd", true}}}, nil); err != nil {
		return err
	}
	return q.do(ctx, "migrate-set-parameters", map[string]any{"multifd-channels": n}, nil)
}

// Migrate returns when the guest runs where QEMU listens. The limit of the downtime counts memory only.
func (q *QMP) Migrate(ctx context.Context, listen string, streams int, downtime time.Duration) (m QEMUMigration, err error) {
	if err := q.streams(ctx, streams); err != nil {
		return m, err
	}
	if err := q.do(ctx, "migrate-set-parameters", map[string]any{"downtime-limit": downtime.Milliseconds(), "max-bandwidth": 10 << 30}, nil); err != nil {
		return m, err
	}
	if err := q.do(ctx, "migrate", map[string]any{"uri": listen}, nil); err != nil {
		return m, err
	}
	for {
		var said struct {
			Status    string
			Downtime  int64 // ms
			TotalTime int64 `json:"total-time"`
			RAM       struct{ Transferred uint64 }
			ErrorDesc string `json:"error-desc"`
		}
		if err := q.do(ctx, "query-migrate", nil, &said); err != nil {
			return m, err
		}
		switch {
		case said.Status == "completed" && said.TotalTime > 0: // it says so before it has worked out the rest
			const unit = time.Millisecond
			return QEMUMigration{time.Duration(said.TotalTime) * unit, time.Duration(said.Downtime) * unit, said.RAM.Transferred}, nil
		case said.Status == "failed", said.Status == "cancelled":
			return m, fmt.Errorf("QEMU's migration %s: %s", said.Status, said.ErrorDesc)
		}
		if err := Sleep(ctx, 50*time.Millisecond); err != nil {
			return m, err
		}
	}
}

// do carries a command out; result may be nil. The connection is gone when ctx ends meanwhile.
func (q *QMP) do(ctx context.Context, command string, arguments map[string]any, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	defer context.AfterFunc(ctx, q.Close)()
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return failed(ctx, command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
		}
		if err := q.in.Decode(&answer); err != nil {
			return failed(ctx, command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("QMP %s: %s", command, answer.Error.Desc)
		case answer.Event != "":
		case result != nil:
			return json.Unmarshal(answer.Return, result)
		default:
			return nil
		}
	}
}

// failed says why there was no answer: that ctx has ended, rather than that the connection was closed for that.
func failed(ctx context.Context, command string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("QMP %s: %w", command, err)
}
