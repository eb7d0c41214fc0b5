package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qmp is a connection to QEMU's monitor (docs/interop/qmp-spec.txt).
type qmp struct {
	conn net.Conn
	in   *json.Decoder
}

// dialQMP waits until QEMU is there.
func dialQMP(ctx context.Context, path string) (*qmp, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &qmp{conn, json.NewDecoder(conn)}
			var greeting json.RawMessage
			if err = q.in.Decode(&greeting); err == nil {
				err = q.do("qmp_capabilities", nil, nil)
			}
			if err != nil {
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

// do carries a command out; result may be nil.
func (q *qmp) do(command string, arguments map[string]any, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return err
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
		}
		if err := q.in.Decode(&answer); err != nil {
			return fmt.Errorf("QMP %s: %w", command, err)
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
