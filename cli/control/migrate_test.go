package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
)

// What the VM says of a migration reaches the client: progress, report, error.
func TestMigrate(t *testing.T) {
	const progress, report = `{"phase":"precopy"}`, `{"total_ns":7}`
	for _, c := range []struct {
		name             string
		progress, report string // empty: none
		err              error
		want             string // the error; empty: none
	}{
		{"done", progress, report, nil, ""},
		{"done at once", "", report, nil, ""},
		{"failed", progress, report, errors.New("the link is lost"), "the link is lost"},
		{"failed without a report", progress, "", errors.New("the link is lost"), "the link is lost"},
		{"refused", "", "", Refuse(http.StatusConflict, "it is being migrated"), "it is being migrated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, &fakeVM{migrate: func(_ context.Context, progress func(json.RawMessage)) (json.RawMessage, error) {
				if c.progress != "" {
					progress(json.RawMessage(c.progress))
				}
				if c.report == "" {
					return nil, c.err
				}
				return json.RawMessage(c.report), c.err
			}})
			said := ""
			got, err := r.client.Migrate(t.Context(), Migration{Address: "there:1"}, func(p json.RawMessage) { said += string(p) })
			if string(got) != c.report || said != c.progress || !r.vm.has("migrate to there:1") {
				t.Errorf("report %q after %q, calls %q", got, said, r.vm.calls)
			}
			if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A client that leaves cancels the migration.
func TestMigrationIsCancelled(t *testing.T) {
	cancelled := make(chan struct{})
	r := newRig(t, &fakeVM{migrate: func(ctx context.Context, progress func(json.RawMessage)) (json.RawMessage, error) {
		progress(json.RawMessage(`{}`))
		<-ctx.Done()
		close(cancelled)
		return json.RawMessage(`{}`), ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.client.Migrate(ctx, Migration{}, func(json.RawMessage) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	within(t, "the cancellation", func() { <-cancelled })
}
